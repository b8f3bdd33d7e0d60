"""Command lines that cannot be meant, with the hparams files of the recipes.

Authors
 * The vavl_sb authors 2026
"""

import pytest
import speechbrain as sb
from conftest import REPOSITORY

from vavl_sb.training.arguments import parse_arguments
from vavl_sb.utils.errors import VAVLError

FILES = sorted((REPOSITORY / "recipes").glob("*/hparams/*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parts[-3]} {p.stem}")
@pytest.mark.parametrize(
    "options, words",
    [
        (["--lr", "1", "--lr", "2"], "--lr: stands twice"),
        (["--lr=1", "--seed", "3", "--lr", "1"], "--lr: stands twice"),
        (["--lables", "[a, b]"], "--lables: no such option .*--labels"),
        (["--labels", "[a, b"], "cannot be read as YAML"),
        (["--data_folder"], "--data_folder: stands twice"),
        (["--lr"], "--lr: has no value"),
        (["--lr="], "--lr: has no value"),
        (["--labels", "--seed", "1"], "--labels: has no value"),
        (["lr=1"], "lr=1: is neither"),
        (["--lr", "1", "foo"], "foo: is neither"),
        (["--lr=1", "foo"], "foo: is neither"),
        (["--debug", "foo"], "foo: is neither"),
        (["-lr", "1"], "-lr: is neither"),
        (["--max_grad_norm", "five"], "argument --max_grad_norm: invalid"),
        (["--precision", "foo"], "argument --precision: invalid choice"),
        (["--lr", "fast"], "--lr: must be a number, not fast$"),
        (["--lr", "-0.1"], "--lr: must be a number, 0 or more, not -0.1$"),
        (["--lr", "null"], "--lr: must be a number, not null$"),
        (["--lr_final", "[1]"], "--lr_final: must be a number, not a seq$"),
        (["--batch_size", "0"], "must be a whole number, 1 or more, not 0$"),
        (["--batch_size", "2.0"], "must be a whole number"),
        (["--seed=-1"], "--seed: must be a whole number, 0 or more, not -1"),
        (["--mixup", "yes"], "--mixup: must be a number, not yes"),
        (["--skip_prep", "no"], "--skip_prep: must be True or False, not no"),
        (["--residual", "0"], "--residual: must be True or False, not 0"),
        (["--speed_changes", "90"], "must be a list such as .*, not 90"),
    ],
)
def test_options_that_cannot_be(path, options, words):
    with pytest.raises(VAVLError, match=words) as error:
        parse_arguments([str(path), "--data_folder", "x", *options])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [[], ["--data_folder"], ["--seed", "1"]])
def test_the_corpus_must_be_given(options):
    with pytest.raises(VAVLError, match="--data_folder: must be given"):
        parse_arguments([str(FILES[0]), *options])


def test_what_is_given_later_needs_no_value(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("output_folder: !PLACEHOLDER\nlr: 0.1\n")
    with pytest.raises(VAVLError, match="--output_folder: must be given"):
        parse_arguments([str(path)])
    parse_arguments([str(path), "--lr=1"], later=["output_folder"])


def test_an_hparams_file_that_is_none(tmp_path):
    with pytest.raises(VAVLError, match="No such file"):
        parse_arguments([str(tmp_path / "vavl.yaml")])
    path = tmp_path / "broken.yaml"
    path.write_text("a: [1\n")
    with pytest.raises(VAVLError, match="broken.yaml: cannot be read as YAML"):
        parse_arguments([str(path)])


@pytest.mark.parametrize(
    "content, words",
    [
        (b"just some words", "no options"),
        (b"- a\n- b: 1\n", "no options"),
        ("lr: 1  # Größe".encode("latin-1"), "UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "UTF-8"),
        (b"a\x00b", "cannot be read as YAML"),
    ],
)
def test_an_hparams_file_of_another_kind(content, words, tmp_path):
    path = tmp_path / "vavl.yaml"
    path.write_bytes(content)
    with pytest.raises(VAVLError, match=f"vavl.yaml: .*{words}") as error:
        parse_arguments([str(path)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parts[-3]} {p.stem}")
def test_values_of_every_kind(path):
    words = [str(path), "--data_folder=x", "--lr=1e-3", "--seed=007"]
    words += ["--d_model=0x10", "--frame_rate=null", "--partition=my.json"]
    words += ["--also_train=folder", "--audio_frame_average=!ref <seed>"]
    words += ["--residual=false", "--labels=[a, b]", "--lr_final=.5"]
    words += ["--mixup=1", "--feature_whitening=0.5", "--max_grad_norm=2"]
    assert parse_arguments(words) == sb.parse_arguments(words)


def test_no_value_where_the_file_has_none():
    words = [str(FILES[0]), "--data_folder", "x", "--pretrained_from"]
    assert parse_arguments(words) == sb.parse_arguments(words)


def test_steps_take_the_place_of_minutes():
    words = [str(FILES[0]), "--data_folder", "x"]
    _, run_opts, _ = parse_arguments([*words, "--ckpt_interval_steps", "5"])
    hparams = {"ckpt_interval_minutes": 15}
    brain = sb.Brain(run_opts=run_opts, hparams=hparams)
    assert brain.ckpt_interval_minutes == 0 and brain.ckpt_interval_steps == 5
    # Both: SpeechBrain says that they exclude each other.
    both = ["--ckpt_interval_steps=5", "--ckpt_interval_minutes=1"]
    _, run_opts, _ = parse_arguments([*words, *both])
    with pytest.raises(SystemExit, match="mutually exclusive"):
        sb.Brain(run_opts=run_opts, hparams=hparams)


def test_the_rest_is_speechbrains():
    words = [str(FILES[0]), "--device", "cpu", "--data_folder=x", "--debug"]
    words += ["--labels", "[a, b]", "--audio_encoder", "!new:mine.Encoder"]
    assert parse_arguments(words) == sb.parse_arguments(words)
