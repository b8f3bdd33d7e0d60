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


def test_an_hparams_file_that_is_none(tmp_path):
    with pytest.raises(VAVLError, match="No such file"):
        parse_arguments([str(tmp_path / "vavl.yaml")])
    path = tmp_path / "broken.yaml"
    path.write_text("a: [1\n")
    with pytest.raises(VAVLError, match="broken.yaml: cannot be read as YAML"):
        parse_arguments([str(path)])


def test_the_rest_is_speechbrains():
    words = [str(FILES[0]), "--device", "cpu", "--data_folder=x", "--debug"]
    words += ["--labels", "[a, b]", "--audio_encoder", "!new:mine.Encoder"]
    assert parse_arguments(words) == sb.parse_arguments(words)
