"""Command lines that would silently start another run than is meant."""

import pytest
import speechbrain as sb
from conftest import REPOSITORY
from hyperpyyaml import resolve_references
from ruamel.yaml import YAML

from vavl_sb.training.arguments import parse_arguments
from vavl_sb.utils.errors import VAVLError

FILES = sorted((REPOSITORY / "recipes").glob("*/hparams/*.yaml"))


@pytest.mark.parametrize(
    "options, words",
    [
        (["--lr=1", "--seed", "3", "--lr", "1"], "--lr: stands twice"),
        (["--frame_rat", "2"], "--frame_rat: no such option .*--frame_rate"),
        (["--labels", "[a, b"], "cannot be read as YAML"),
        (["--debug", "foo"], "foo: is neither"),
        (["--skip_prep", "no"], "--skip_prep: must be True or False, not no"),
        (["--output_folder", "a <b>"], "--output_folder: must not have <"),
        (["--labels", "[a, b, a]"], "labels: must be .* 'a' .* stands twice"),
        (["--labels", "[a, [b]]"], "labels: must be names"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(VAVLError, match=words):
        parse_arguments([str(FILES[0]), "--data_folder", "x", *options])


@pytest.mark.parametrize(
    "given, names",
    [
        ("[1, 2, 3]", ["1", "2", "3"]),
        ("[null, ~, yes, 1.50]", ["null", "~", "yes", "1.50"]),
        ('["1", a b]', ["1", "a b"]),
    ],
)
def test_labels_are_texts_whatever_they_look_like(given, names, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("labels: [a]\ncopy: !ref <labels>\n")
    found, _ = resolved([str(path), "--labels", given])
    assert found["labels"] == found["copy"] == names
    path.write_text(f"labels: {given}\n")
    if set(map(type, YAML().load(given))) != {str}:
        with pytest.raises(VAVLError, match="labels: must be names"):
            parse_arguments([str(path)])
        return
    assert resolved([str(path)])[0]["labels"] == names


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


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "No such file"),
        (b"a: [1", "cannot be read as YAML"),
        (b"just some words", "has no keys"),
        ("lr: 1  # Gr\u00f6\u00dfe".encode("latin-1"), "not text"),
    ],
)
def test_an_hparams_file_that_is_none(content, words, tmp_path):
    path = tmp_path / "vavl.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VAVLError, match=f"vavl.yaml: .*{words}"):
        parse_arguments([str(path)])


def resolved(arguments):
    """An hparams file as HyperPyYAML reads it with some options."""
    path, run_opts, overrides = parse_arguments(arguments)
    with open(path, encoding="utf-8") as file:
        text = resolve_references(file, overrides, True).getvalue()
    return YAML().load(text), run_opts


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parts[-3]} {p.stem}")
def test_options_reach_the_recipe_s_file_and_the_one_it_includes(path):
    words = [str(path), "--data_folder=x", "--lr=1e-3", "--seed", "7"]
    words += ["--frame_rate=null", "--partition=my.json", "--residual=false"]
    words += ["--labels=[a, b]", "--opt_class", "!name:torch.optim.SGD"]
    words += ["--max_grad_norm=2", "--shared", "{detection_rate: 1.5}"]
    found, run_opts = resolved(words)
    shared = found["shared"]
    assert (found["lr"], shared["lr"]) == (1e-3, 1e-3)
    assert found["seed"] == 7 and found["partition"] == "my.json"
    assert shared["frame_rate"] is None and shared["residual"] is False
    assert shared["feature_extractor"]["frame_rate"] is None
    assert shared["vavl"]["residual"] is False
    assert shared["labels"] == found["labels"] == ["a", "b"]
    assert shared["opt_class"].tag.value == "!name:torch.optim.SGD"
    assert shared["face_tracker"]["detection_rate"] == 1.5
    assert run_opts.max_grad_norm == 2


def test_the_rest_is_speechbrains():
    words = [str(FILES[0]), "--device", "cpu", "--data_folder=x", "--debug"]
    words += ["--labels", "[a, b]", "--metric", "!new:mine.Metric"]
    words += ["--pretrained_from"]
    path, run_opts, overrides = parse_arguments(words)
    their_path, their_opts, theirs = sb.parse_arguments(words)
    assert (path, run_opts) == (their_path, their_opts)
    found, expected = (YAML().load(text) for text in (overrides, theirs))
    assert list(found) == list(expected)
    assert found["metric"].tag.value == "!new:mine.Metric"
    assert found["pretrained_from"] is None
