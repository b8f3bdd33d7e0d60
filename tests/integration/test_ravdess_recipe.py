"""The recipe of RAVDESS, run as users run it, alone and with CREMA-D's clips."""

import json

import numpy as np
import pytest
from conftest import FAST, SMALL, listed_recipes, run_listed, run_recipe

ACTORS = {"train": [1, 2], "valid": [3], "test": [4]}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A small synthetic RAVDESS: sound and picture, some without one."""
    from synthetic import generate_corpus

    folder = tmp_path_factory.mktemp("corpus") / "RAVDESS"
    share = {"missing_audio": 0.1, "missing_video": 0.2}
    generate_corpus(folder, "ravdess", 4, **share, **FAST)
    split = json.dumps(ACTORS)
    (folder / "partition.json").write_text(split, encoding="utf-8")
    return folder


def test_the_listed_recipe_runs_with_its_debug_flags(corpus, tmp_path):
    (row,) = listed_recipes("RAVDESS")
    run_listed(row, corpus, tmp_path / "out")


def test_voices_here_and_faces_of_another_corpus(tmp_path):
    from safetensors.torch import load_file

    from synthetic import generate_corpus

    features = ("--feature_folder", tmp_path / "features")
    faces, voices = tmp_path / "CREMA-D", tmp_path / "RAVDESS"
    generate_corpus(faces, speakers=2, **FAST)
    split = tmp_path / "faces.json"
    split.write_text('{"train": ["1001"], "valid": [], "test": ["1002"]}')
    run_recipe(
        "CREMA-D",
        *("--data_folder", faces, "--output_folder", tmp_path / "faces"),
        *("--partition", split, "--prepare_only", "True"),
        *("--label_source", "acted", *SMALL),
    )
    assert not (tmp_path / "features").exists()

    generate_corpus(voices, "ravdess", 4, missing_video=1.0, **FAST)
    split = tmp_path / "voices.json"
    split.write_text(json.dumps(ACTORS))
    out = tmp_path / "out"
    run_recipe(
        "RAVDESS",
        *("--data_folder", voices, "--output_folder", out, *features),
        *("--also_train", f"[{tmp_path / 'faces'}]"),
        *("--partition", split, *SMALL),
    )
    index = json.loads((out / "features.json").read_text())
    own = {clip for clip in index if clip.startswith("01-")}
    others = {clip for clip in index if clip.startswith("1001_")}
    assert (len(own), len(others)) == (16, 4)
    # 1002 scores CREMA-D, and trains nothing.
    assert own | others == set(index)
    assert all(all(index[clip].values()) for clip in others)
    assert not any(index[clip]["visual"] for clip in own)
    # This run's manifests and scores are its own corpus's.
    train = json.loads((out / "train.json").read_text())
    assert set(train) < own and len(train) == 8
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["n_test"] == {"audio": 4, "visual": 0, "audiovisual": 0}
    # The visual branch has seen the other corpus's faces: the statistics of
    # its input are theirs.
    frames = np.concatenate(
        [np.load(index[clip]["visual"])["features"] for clip in sorted(others)]
    )
    tensors = load_file(out / "inference" / "vavl.safetensors")
    mean = tensors["visual_branch.normalize.mean"].numpy()
    assert np.allclose(mean, frames.mean(0, dtype=np.float64), atol=1e-4)
    # What it was trained with stands in its card.
    card = (out / "inference" / "README.md").read_text()
    assert "Mixup: 1" in card and "Noise on features in training: 2" in card
