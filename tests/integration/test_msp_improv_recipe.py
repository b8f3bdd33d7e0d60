"""The recipe of MSP-IMPROV, run as users run it, on a small synthetic corpus."""

import csv
import json
import math

import pytest
from conftest import SMALL, listed_recipes, run_listed, run_recipe

ATTRIBUTES = ["arousal", "valence", "dominance"]
SPLIT = {"train": ["F01", "M01"], "valid": ["F02"], "test": ["F03", "M03"]}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Five speakers of three sessions, four clips each.

    With this seed a rating is NaN, and three clips have none of the classes.
    """
    from synthetic import generate_corpus

    folder = tmp_path_factory.mktemp("corpus") / "MSP-IMPROV"
    generate_corpus(
        folder,
        "msp-improv",
        speakers=sum(SPLIT.values(), []),
        clips_per_speaker=4,
        seed=8,
        frame_rate=5,
        size=(160, 120),
        num_workers=1,
    )
    (folder / "partition.json").write_text(json.dumps(SPLIT), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A feature cache that the runs of this module share."""
    return tmp_path_factory.mktemp("features")


def run(corpus, folder, features, hparams, *more):
    """A small run of train.py."""
    return run_recipe(
        "MSP-IMPROV",
        *("--data_folder", corpus),
        *("--output_folder", folder),
        *("--feature_folder", features),
        *("--partition", corpus / "partition.json"),
        *SMALL,
        *more,
        hparams=hparams,
    )


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory, features):
    """A run of the recipe."""
    folder = tmp_path_factory.mktemp("run") / "out"
    run(corpus, folder, features, "vavl_reg.yaml")
    return folder


def test_attributes_are_scored_and_predicted_in_the_corpus_scale(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["task"] == "regression"
    assert list(metrics["test"]) == ["audio", "visual", "audiovisual"]
    for head, scores in metrics["test"].items():
        assert set(scores) == {"ccc", "ccc_mean"}
        assert list(scores["ccc"]) == ATTRIBUTES
        mean = sum(scores["ccc"].values()) / 3
        assert scores["ccc_mean"] == pytest.approx(mean, abs=1e-6)
    # Activation was turned once: see test_msp_improv_prepare.py.
    test = json.loads((finished / "test.json").read_text())
    with open(finished / "predictions_test.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"] for row in rows} == set(test)
    for row in rows:
        for name in ATTRIBUTES:
            expected = pytest.approx(test[row["id"]][name], abs=2e-6)
            assert float(row[f"label_{name}"]) == expected
    predictions = [
        float(row[f"prediction_{name}"]) for row in rows for name in ATTRIBUTES
    ]
    assert all(math.isfinite(value) for value in predictions)
    # In the network's own scale, new heads give values about 0.
    mean = sum(predictions) / len(predictions)
    assert 2 < mean < 4 and min(predictions) > 0 and max(predictions) < 6


def test_classes_start_from_the_attributes(corpus, tmp_path, finished):
    rows = {
        row["Hparam_file"][-8:-5]: row for row in listed_recipes("MSP-IMPROV")
    }
    assert rows["cls"]["test_debug_flags"] == rows["reg"]["test_debug_flags"]
    folder = tmp_path / "out"
    source = f"--pretrained_from={finished / 'inference'}"
    assert "Started from" in run_listed(rows["cls"], corpus, folder, source)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["labels"] == ["angry", "happy", "neutral", "sad"]
    assert set(metrics["test"]["audio"]) >= {"f1_macro", "f1_micro", "uar"}
    report = json.loads((folder / "prepare_report.json").read_text())
    kept = sum(n["clips"] for n in report["kept"].values())
    left_out = {why: n["count"] for why, n in report["left_out"].items()}
    # Which clips the drawn raters disagree on depends on the drawing.
    assert set(left_out) <= {
        "raters saw another emotion",
        "raters did not agree",
    }
    assert kept == 20 - sum(left_out.values())
