"""RAVDESS's cross-validation: who is tested by whom, and the regression."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "RAVDESS"
sys.path.insert(0, str(RECIPE))

import crossval  # noqa: E402

from vavl_sb.features.cache import FeatureCache  # noqa: E402
from vavl_sb.utils.errors import VAVLError  # noqa: E402

HPARAMS = str(RECIPE / "hparams" / "vavl_cls.yaml")


@pytest.fixture
def corpus(tmp_path):
    """Names of RAVDESS's files are all that is read of them."""
    folder = tmp_path / "corpus"
    for actor in range(1, 8):
        path = (
            folder / f"Actor_{actor:02}" / f"03-01-03-01-01-01-{actor:02}.wav"
        )
        path.parent.mkdir(parents=True)
        path.touch()
    (folder / "01-02-03-01-01-01-24.mp4").touch()  # song
    return folder


def write_run(run, cache, test_speakers, wrong):
    """A run whose features tell the class, but for the clips of ``wrong``."""
    run.mkdir(parents=True)
    noise, index = np.random.default_rng(0), {}
    for split, speakers in (("train", "abcd"), ("test", test_speakers)):
        entries = {}
        for speaker in speakers:
            for label, sign in (("sad", -1), ("happy", 1)):
                for number in range(3):
                    clip = f"{speaker}-{label}-{number}"
                    frames = noise.normal(0, 0.5, (5, 2))
                    # Only the mean over time tells the class.
                    frames[:, 0] += 3 * sign * (-1 if clip in wrong else 1)
                    frames[0, 0] += 50
                    path = cache.path("audio", "d", f"{run.name}-{clip}")
                    cache.write(path, frames.astype(np.float16))
                    index[clip] = {"audio": str(path), "visual": None}
                    entries[clip] = {"emotion": label, "spk_id": speaker}
        entries["no sound"] = {"emotion": "sad", "spk_id": speakers[0]}
        (run / f"{split}.json").write_text(json.dumps(entries))
    index["no sound"] = {"audio": None, "visual": None}
    (run / "features.json").write_text(json.dumps(index))


@pytest.mark.parametrize("fusion", [None, "my_fusion.Gated"])
def test_networks_and_regression_are_scored_on_the_same_folds(
    corpus, tmp_path, monkeypatch, capsys, fusion
):
    out, plans = tmp_path / "out", []

    def run_protocol(plan, say):
        plans.append(plan)
        cache = FeatureCache(plan.overrides["feature_folder"])
        runs = []
        for number, fold in enumerate(plan.partitions):
            for seed in plan.seeds:
                folder = f"{fold}_{seed}"
                # Of the sad clips of fold 2, one is heard as happy.
                wrong = ["e-sad-1"] if number == 1 else []
                write_run(Path(plan.folder) / folder, cache, "e", wrong)
                uar = 0.5 + 0.1 * number + 0.01 * seed
                scores = {"audio": {"uar": uar}}
                if number == 0:  # Not in all folds, and so of no account.
                    scores["visual"] = {"uar": 1.0}
                run = {"partition": fold, "folder": folder, "scores": scores}
                runs.append(run)
        return {"partial": False, "runs": runs}, []

    monkeypatch.setattr(crossval, "run_protocol", run_protocol)
    monkeypatch.chdir(tmp_path)
    words = [HPARAMS, "--data_folder", str(corpus), "--folds", "3"]
    words += ["--seeds", "1,3", "--jobs", "2", "--output_folder", str(out)]
    words += ["--fusion", fusion] if fusion else []
    crossval.main([*words, "--lr", "0.1"])
    (plan,) = plans
    assert plan.overrides.pop("fusion", None) == fusion
    assert plan.seeds == [1, 3] and plan.jobs == 2
    assert plan.overrides == {
        "data_folder": str(corpus),
        "lr": "0.1",
        "feature_folder": str(tmp_path / "results" / "features"),
    }
    tested = [fold["test"] for fold in plan.partitions.values()]
    assert tested == [["01", "02", "03"], ["04", "05"], ["06", "07"]]
    everyone = sorted(who for fold in tested for who in fold)
    for fold in plan.partitions.values():
        assert sorted(fold["train"] + fold["test"]) == everyone
    found = json.loads((out / "crossval.json").read_text())["uar"]
    assert found == {
        f"{fusion or 'VAVL'}, audio": {
            "fold1": pytest.approx([0.51, 0.53]),
            "fold2": pytest.approx([0.61, 0.63]),
            "fold3": pytest.approx([0.71, 0.73]),
        },
        "logistic regression, audio": {
            "fold1": [1.0],
            "fold2": [pytest.approx((1 + 2 / 3) / 2)],
            "fold3": [1.0],
        },
    }
    text = (out / "crossval.md").read_text()
    assert text in capsys.readouterr().out
    text = re.sub(" +", " ", text)
    # Over the seeds: means of 0.61 and 0.63.
    name = f"{fusion or 'VAVL'}, audio"
    assert f"| {name} | 0.520 | 0.620 | 0.720 | 0.620 ± 0.014 |" in text
    assert "| 1.000 | 0.833 | 1.000 | 0.944 |" in text


@pytest.mark.parametrize(
    "options, words",
    [
        (["--lrr", "1"], "--lrr: no such option"),
        (
            ["--freeze_audio_encoder", "no"],
            "--freeze_audio_encoder: must be True or False, not no",
        ),
        (["--folds", "8"], "--folds: .* speakers in .* \\(7\\), not 8"),
        (["--folds", "1"], "--folds: must be 2 to"),
        (["--freeze_audio_encoder", "False"], "of a frozen encoder"),
    ],
)
def test_options_are_checked_before_anything_runs(
    corpus, tmp_path, monkeypatch, options, words
):
    monkeypatch.setattr(crossval, "run_protocol", None)
    out = tmp_path / "out"
    command = [HPARAMS, "--data_folder", str(corpus)]
    command += ["--output_folder", str(out), *options]
    with pytest.raises(VAVLError, match=words):
        crossval.main(command)
    assert not out.exists()


def test_a_failed_run_stops_it_and_folds_may_come_from_a_file(
    corpus, tmp_path, monkeypatch
):
    plans = []
    monkeypatch.setattr(
        crossval,
        "run_protocol",
        lambda plan, say: plans.append(plan) or ({"partial": True}, []),
    )
    path = tmp_path / "folds.json"
    path.write_text("[[1], [2, 3]]")
    command = [HPARAMS, "--data_folder", str(corpus)]
    command += ["--partitions", str(path)]
    with pytest.raises(VAVLError, match="a run failed, see above; run again"):
        crossval.main([*command, "--output_folder", str(tmp_path / "out")])
    tested = [fold["test"] for fold in plans[0].partitions.values()]
    assert tested == [[1], [2, 3]]
