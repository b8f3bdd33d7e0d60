"""RAVDESS's cross-validation: who is chosen by whom, and the yardstick.

Authors
 * The vavl_sb authors 2026
"""

import csv
import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "RAVDESS"
sys.path.insert(0, str(RECIPE))

import crossval  # noqa: E402
from baseline import clip_features, logistic_regression  # noqa: E402

from vavl_sb.features.cache import FeatureCache  # noqa: E402
from vavl_sb.utils.errors import VAVLError  # noqa: E402

FOLDS = [["01", "02"], ["03", "04"], ["05"], ["06", "07"]]
EVERYONE = {speaker for fold in FOLDS for speaker in fold}


def write_run(run, answers):
    """What of a train.py's output folder is read: ``{speaker: [(t, p)]}``."""
    run.mkdir(parents=True)
    entries, rows = {}, [["id", "modality", "label", "prediction"]]
    for speaker, pairs in answers.items():
        for number, (truth, prediction) in enumerate(pairs):
            clip = f"{speaker}-{number}"
            entries[clip] = {"spk_id": speaker}
            rows.append([clip, "audio", truth, prediction])
            # Of no account here.
            rows.append([clip, "visual", truth, "happy"])
    (run / "test.json").write_text(json.dumps(entries))
    with open(run / "predictions_test.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_a_fold_s_choice_knows_all_of_its_training_actors_and_no_other(
    tmp_path, monkeypatch
):
    draw = random.Random(0)
    said = {}

    def protocol(options, place, splits, seeds, overrides):
        for name, path in splits.items():
            split = json.loads(Path(path).read_text())
            assert set(split["train"]) | set(split["test"]) == EVERYONE
            assert not set(split["train"]) & set(split["test"])
            assert split["valid"] == [] and seeds == [7]
            answers = {
                speaker: [(t, draw.choice(["sad", "happy"])) for t in truths]
                for speaker in split["test"]
                for truths in [["sad"] * 3 + ["happy"]]
            }
            key = overrides["lr"], frozenset(split["test"])
            said[key] = answers
            write_run(place / f"partition{name}_seed7", answers)

    monkeypatch.setattr(crossval, "_protocol", protocol)
    found = crossval.choose(
        SimpleNamespace(seeds="7,"),
        tmp_path,
        {"lr": 1},
        FOLDS,
        {"usual": {}, "fast": {"lr": 2}},
    )
    assert len(said) == 2 * 6
    for k, own in enumerate(FOLDS):
        for name, lr in (("usual", 1), ("fast", 2)):
            pooled = []
            for other in FOLDS[:k] + FOLDS[k + 1 :]:
                answers = said[lr, frozenset([*own, *other])]
                pooled += [pair for s in other for pair in answers[s]]
            recalls = [
                np.mean([p == t for t, p in pooled if t == label])
                for label in ("sad", "happy")
            ]
            assert found[k][name] == pytest.approx(np.mean(recalls))


def test_a_run_without_sound_cannot_be_scored(tmp_path):
    write_run(tmp_path / "run", {})
    with pytest.raises(VAVLError, match="no test clip has sound"):
        crossval._answers(tmp_path / "run")


def write_features(run, cache):
    """Clips of two layers of two numbers: the last tells, the first lies."""
    inference = run / "inference" / "audio_encoder"
    inference.mkdir(parents=True)
    (inference / "config.json").write_text('{"d_model": 2}')
    noise = np.random.default_rng(0)
    index = {}
    for split, speakers in (("train", "abcd"), ("test", "ef")):
        entries = {}
        for speaker in speakers:
            for label, sign in (("sad", -1), ("happy", 1)):
                for number in range(3):
                    clip = f"{speaker}{label}{number}"
                    frames = noise.normal(0, 0.5, (5, 4))
                    frames[:, 2] += 3 * sign
                    # What it says in training is the opposite of the test.
                    frames[:, 0] += 30 * sign * (1 if split == "train" else -1)
                    path = cache.path("audio", "d", clip)
                    cache.write(path, frames.astype(np.float16))
                    index[clip] = {"audio": str(path), "visual": None}
                    entries[clip] = {"emotion": label, "spk_id": speaker}
        (run / f"{split}.json").write_text(json.dumps(entries))
    (run / "features.json").write_text(json.dumps(index))


def test_the_yardstick_reads_the_layers_that_it_is_told(tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    write_features(tmp_path / "run", cache)
    whole, labels, speakers = clip_features(
        tmp_path / "run", cache.folder, "train"
    )
    last, _, _ = clip_features(tmp_path / "run", cache.folder, "train", "last")
    assert whole.shape == (24, 4) and np.array_equal(whole[:, 2:], last)
    assert sorted(set(labels)) == ["happy", "sad"]
    assert sorted(set(speakers)) == list("abcd")
    frames = cache.read(cache.path("audio", "d", "ahappy0"))
    assert whole[0] == pytest.approx(frames.astype(float).mean(0), abs=1e-6)

    truths, predictions = logistic_regression(
        tmp_path / "run", cache.folder, "last"
    )
    assert len(truths) == 12 and (truths == predictions).all()
    truths, predictions = logistic_regression(tmp_path / "run", cache.folder)
    assert (truths != predictions).any()


def test_choices_are_options_that_train_py_takes(tmp_path):
    path = tmp_path / "choices.yaml"
    path.write_text("plain: {}\nother: {mixup: 0.0, feature_whitening: null}")
    # null is a value; without one, train.py would refuse the option.
    assert crossval.read_choices(path) == {
        "plain": {},
        "other": {"mixup": 0.0, "feature_whitening": "null"},
    }
    known = (RECIPE / "hparams" / "vavl_cls.yaml").read_text("utf-8")
    for name in ("crossval_choices.yaml", "crossval_choices_logmel.yaml"):
        for changes in crossval.read_choices(RECIPE / name).values():
            assert all(f"\n{key}: " in known for key in changes)


@pytest.mark.parametrize("text", ["[a]", "a: 3", "a: [", "a"])
def test_a_file_that_is_no_choices(tmp_path, text):
    path = tmp_path / "choices.yaml"
    path.write_text(text)
    with pytest.raises(VAVLError, match="--choices: ") as error:
        crossval.read_choices(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options, choices, words",
    [
        (["--lrr", "1"], "plain: {}", "--lrr: no such option"),
        (["--lr", "fast"], "plain: {}", "--lr: must be a number, not fast"),
        ([], "a: {}\nb: {mixup: much}", "--mixup: must be a number, not much"),
    ],
)
def test_options_are_checked_before_anything_runs(
    tmp_path, monkeypatch, options, choices, words
):
    monkeypatch.setattr(crossval, "check_sklearn", lambda: None)
    (tmp_path / "choices.yaml").write_text(choices)
    command = [
        str(RECIPE / "hparams" / "vavl_cls.yaml"),
        *("--data_folder", str(tmp_path)),
        *("--choices", str(tmp_path / "choices.yaml")),
        *("--output_folder", str(tmp_path / "out"), *options),
    ]
    with pytest.raises(VAVLError, match=words):
        crossval.main(command)
    assert not (tmp_path / "out").exists()
