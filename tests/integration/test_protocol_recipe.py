"""The ablation, and so the protocol, with the real recipe of CREMA-D."""

import json

import pytest
from conftest import REPOSITORY, SMALL

from vavl_sb import cli

# Few of the small corpus's actors: what matters here is many runs.
SPLIT = {"train": ["1001", "1002"], "valid": ["1006"], "test": ["1004", "1008"]}
HPARAMS = REPOSITORY / "recipes" / "CREMA-D" / "hparams"


@pytest.mark.slow
def test_ablation_of_a_real_recipe(small_corpus, tmp_path, monkeypatch):
    # As a user: from a folder of one's own, with paths seen from there.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").symlink_to(small_corpus)
    (tmp_path / "split.json").write_text(json.dumps(SPLIT))
    options = [
        *("--partitions", "split.json"),
        *("--data_folder", "corpus"),
        *("--feature_folder", "features"),
        *SMALL,
    ]
    hparams = str(HPARAMS / "vavl_cls.yaml")
    words = [hparams, "--output_folder", "out", "--seeds", "5,", *options]
    assert cli.main(["ablate", *words]) == 0
    result = json.loads((tmp_path / "out/ablation.json").read_text())
    assert not result["partial"] and len(result["variants"]) == 3
    # Each variant is the network that it should be.
    runs = {
        name: tmp_path / "out" / name / "partitionsplit_seed5"
        for name in ("full", *result["variants"])
    }
    settings = {}
    for name, run in runs.items():
        model = json.loads((run / "inference/model.json").read_text())
        arguments = model["network"]["arguments"]
        settings[name] = {
            key: arguments[key] for key in ("shared_layers", "residual")
        }
    assert settings["full"] == {"shared_layers": 2, "residual": True}
    assert settings["no_shared_layers"]["shared_layers"] == 0
    assert settings["no_residual"] == {"shared_layers": 2, "residual": False}
    assert settings["no_reconstruction"] == settings["full"]
    losses = {}
    for name in ("full", "no_reconstruction"):
        curves = json.loads((runs[name] / "learning_curves.json").read_text())
        losses[name] = curves[0]["train"]
    parts = ["audio_prediction_loss", "visual_prediction_loss"]
    assert [losses["full"][k] for k in parts] != [
        losses["no_reconstruction"][k] for k in parts
    ]
    # The features were computed by the first run alone.
    assert (tmp_path / "features").is_dir()
    for name, run in runs.items():
        report = json.loads((run / "feature_report.json").read_text())
        assert (sum(report["computed"].values()) > 0) == (name == "full")

    content = json.loads((tmp_path / "out/full/protocol.json").read_text())
    scores = json.loads((runs["full"] / "metrics.json").read_text())["test"]
    for head, found in content["summary"].items():
        mean = found["scores"]["f1_macro"]["mean"]
        assert mean == pytest.approx(scores[head]["f1_macro"], abs=1e-6)
