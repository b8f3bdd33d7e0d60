"""The recipe of CREMA-D, run as users run it, on a small synthetic corpus."""

import csv
import json
import os
import shutil
import signal
import time

import child_runs
import pytest
import torch
from conftest import (
    REPOSITORY,
    listed_recipes,
    run_listed,
    run_recipe,
    small_run,
)
from safetensors.torch import load_file
from small_encoders import save_encoder

from vavl_sb.inference import EmotionRecognizer


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A feature cache that the runs of this module share."""
    return tmp_path_factory.mktemp("features")


def snapshot(folder):
    """Name, size and time of change of all that is below a folder."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture(scope="module")
def before(small_corpus):
    """What the corpus was before the first run."""
    return snapshot(small_corpus)


@pytest.fixture(scope="module")
def finished(small_corpus, before, tmp_path_factory, features):
    """A finished run of each task."""
    folders = {}
    for hparams in ("vavl_cls.yaml", "vavl_reg.yaml"):
        folder = tmp_path_factory.mktemp("run") / "out"
        run_recipe(
            "CREMA-D",
            *small_run(small_corpus, folder, features),
            hparams=hparams,
            draws=hparams == "vavl_cls.yaml",
        )
        folders[hparams] = folder
    return folders


def predictions(folder):
    """Rows of predictions_test.csv."""
    with open(folder / "predictions_test.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_what_the_readme_says(finished):
    folder = finished["vavl_cls.yaml"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["task"] == "classification"
    heads = ["audio", "visual", "audiovisual"]
    assert list(metrics["test"]) == heads and list(metrics["n_test"]) == heads
    for scores in metrics["test"].values():
        assert {"f1_macro", "f1_micro", "uar", "ece"} <= set(scores)
        assert scores["temperature"] != 1.0
    assert metrics["target"].startswith("perceived: the emotion with more")
    for name in (
        "predictions_test.csv",
        "scores.txt",
        "learning_curves.png",
        "reliability.png",
        "train_log.txt",
        "inference/model.json",
        *(f"confusion_{head}.png" for head in heads),
    ):
        assert (folder / name).stat().st_size > 0
    report = json.loads((folder / "prepare_report.json").read_text())
    assert 0.5 < report["ceiling"]["audiovisual"]["accuracy"] < 1
    # What was drawn is told to be, in the card as well.
    drawn = "a synthetic corpus in the layout of CREMA-D"
    about = json.loads((folder / "inference" / "model.json").read_text())
    assert about["corpus"] == drawn
    card = (folder / "inference" / "README.md").read_text()
    assert f"# VAVL, trained on {drawn}\n" in card
    assert "nothing to license" in card and "means nothing" in card
    assert metrics["target"] in card and "An ideal judge" in card
    temperatures = {h: s["temperature"] for h, s in metrics["test"].items()}
    assert about["temperatures"] == temperatures
    metrics = json.loads(
        (finished["vavl_reg.yaml"] / "metrics.json").read_text()
    )
    assert metrics["task"] == "regression"
    assert set(metrics["test"]["audio"]) == {"ccc", "ccc_mean"}
    assert set(metrics["test"]["audio"]["ccc"]) == {
        "angry",
        "disgust",
        "fear",
        "happy",
        "neutral",
        "sad",
    }


def test_a_run_leaves_the_corpus_as_it_was(finished, small_corpus, before):
    # On a read-only disk: tests/faults/test_disks.py.
    assert len(before) > 20 and snapshot(small_corpus) == before


def test_the_scores_are_those_of_the_predictions(finished):
    from sklearn.metrics import f1_score

    folder = finished["vavl_cls.yaml"]
    metrics = json.loads((folder / "metrics.json").read_text())
    for head, scores in metrics["test"].items():
        rows = [r for r in predictions(folder) if r["modality"] == head]
        assert len(rows) == metrics["n_test"][head]
        expected = f1_score(
            [row["label"] for row in rows],
            [row["prediction"] for row in rows],
            average="macro",
        )
        assert scores["f1_macro"] == pytest.approx(expected)


def test_clips_without_one_file_are_scored_on_the_other(finished):
    n_test = json.loads(
        (finished["vavl_cls.yaml"] / "metrics.json").read_text()
    )["n_test"]
    assert n_test["audiovisual"] < min(n_test["audio"], n_test["visual"])


def test_the_same_seed_gives_the_same_metrics(small_corpus, tmp_path, finished):
    # Features are computed anew. That the order of files on a disk does not
    # matter is tested in test_cremad_prepare.py.
    words = small_run(small_corpus, tmp_path / "out", tmp_path / "features")
    run_recipe("CREMA-D", *words)
    for name in ("metrics.json", "predictions_test.csv"):
        first = (finished["vavl_cls.yaml"] / name).read_bytes()
        assert (tmp_path / "out" / name).read_bytes() == first


@pytest.mark.parametrize("hparams", ["vavl_cls.yaml", "vavl_reg.yaml"])
def test_the_exported_model_repeats_the_test_from_raw_media(
    small_corpus, tmp_path, finished, hparams
):
    # Copied elsewhere: nothing may point back to the run.
    model_folder = tmp_path / "model"
    shutil.copytree(finished[hparams] / "inference", model_folder)
    model = EmotionRecognizer.from_hparams(model_folder)
    rows = predictions(finished[hparams])
    clips = sorted({row["id"] for row in rows})
    assert len(clips) >= 10
    checked = 0
    for id in clips:
        wav = small_corpus / "AudioWAV" / f"{id}.wav"
        video = small_corpus / "VideoFlash" / f"{id}.flv"
        if video.exists():
            # Sound in the container is not that of the wav: name the wav.
            sound = wav if wav.exists() else video
            answer = model.predict_file(video, audio_path=sound)
        else:
            answer = model.predict_file(wav)
        for row in (r for r in rows if r["id"] == id):
            if row["modality"] != "visual" and not wav.exists():
                continue
            found = answer.per_modality[row["modality"]]
            values = found.get("probabilities") or found["attributes"]
            prefix = "prob_" if "probabilities" in found else "prediction_"
            for name, value in values.items():
                assert value == pytest.approx(
                    float(row[prefix + name]), abs=2e-5
                )
            checked += 1
    assert checked == len(rows)


@pytest.mark.parametrize(
    "change, words",
    [
        (["--partition", "9"], ["partition", "9"]),
        (["--audio_encoder_source", "/nowhere/model"], ["/nowhere/model"]),
        (["--visual_encoder_weights", "imagenet"], ["cannot be downloaded"]),
        (["--pretrained_from", "/nowhere"], ["pretrained_from", "/nowhere"]),
        (["--lables", "[a]"], ["--lables: no such option", "--labels"]),
        (["--schedule", "Joint"], ["schedule", "sequential or joint"]),
        (["--select_by", "accuracy"], ["select_by", "f1_micro"]),
    ],
)
def test_wrong_options_get_one_line(
    small_corpus, tmp_path, features, change, words
):
    options = (*small_run(small_corpus, tmp_path / "out", features), *change)
    status, output = run_recipe("CREMA-D", *options, check=False)
    assert status == 1 and "Traceback" not in output, output
    (line,) = [x for x in output.splitlines() if "error: " in x]
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    "row", listed_recipes("CREMA-D"), ids=lambda r: r["Hparam_file"]
)
def test_listed_recipes_run_with_their_debug_flags(small_corpus, tmp_path, row):
    run_listed(row, small_corpus, tmp_path / "out")


def test_a_speech_encoder_can_learn_with_the_network(
    small_corpus, tmp_path, features
):
    source, folder = tmp_path / "wav2vec2", tmp_path / "out"
    settings = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    save_encoder(source, num_hidden_layers=2, **settings)
    run_recipe(
        "CREMA-D",
        *small_run(small_corpus, folder, features),
        *("--audio_encoder_source", source, "--audio_encoder_layers", "1"),
        *("--freeze_audio_encoder", "False", "--lr_audio_encoder", "0.001"),
    )
    before = load_file(source / "model.safetensors")
    after = load_file(folder / "inference/audio_encoder/model.safetensors")
    name = "encoder.layers.0.attention.k_proj.weight"
    assert not torch.equal(before[name], after[name])
    # The convolutions below the transformer stay as they were.
    name = "feature_extractor.conv_layers.0.conv.weight"
    assert torch.equal(before[name], after[name])
    assert not any(key.startswith("encoder.layers.1.") for key in after)

    model = EmotionRecognizer.from_hparams(folder / "inference")
    rows = [r for r in predictions(folder) if r["modality"] == "audio"]
    for row in rows[:4]:
        wav = small_corpus / "AudioWAV" / f"{row['id']}.wav"
        found = model.predict_file(wav, modality="audio").probabilities
        for emotion, value in found.items():
            expected = float(row[f"prob_{emotion}"])
            # Training reads full precision, inference half.
            assert value == pytest.approx(expected, abs=2e-3)


def wait_until(true):
    """Waits for something, for five minutes at the most."""
    for _ in range(3000):
        if true():
            return
        time.sleep(0.1)
    raise TimeoutError


def wait_for(path, process):
    """Waits until a run has written a file."""
    wait_until(lambda: path.exists() or not process.is_alive())
    assert path.exists(), "the run has ended"


def test_a_stopped_run_leaves_no_process_and_goes_on(
    small_corpus, tmp_path, features
):
    out, log = tmp_path / "out", tmp_path / "log"
    options = small_run(small_corpus, out, features)
    options += ["--num_workers", "2"]
    options[options.index("--number_of_epochs") + 1] = "9999"
    words = ["train.py", "hparams/vavl_cls.yaml", *options]
    folder = REPOSITORY / "recipes" / "CREMA-D"
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        log.write_text("")
        (out / "train_log.txt").unlink(missing_ok=True)
        running = child_runs.start(folder, words, log)
        wait_for(out / "train_log.txt", running)
        # Two workers are there, but not between an epoch's stages.
        wait_until(lambda: len(child_runs.members(running.pid)) > 2)
        if status == 143:
            other = tmp_path / "other.log"
            assert child_runs.run(folder, words, other) == 1
            text = other.read_text()
            (line,) = [x for x in text.splitlines() if "error: " in x]
            assert "another run is at work there" in line and str(out) in line
            assert "Traceback" not in text
        # Ctrl-C goes to all processes of a terminal.
        send = os.killpg if number == signal.SIGINT else os.kill
        send(running.pid, number)
        running.join(120)
        assert running.exitcode == status, log.read_text()[-3000:]
        text = log.read_text()
        assert text.count("stopped; the same command resumes") == 1
        assert "Traceback" not in text
        wait_until(lambda: child_runs.members(running.pid) == [])
    # It goes on, and ends where it is told to.
    epochs = (out / "train_log.txt").read_text().splitlines()
    words[words.index("--number_of_epochs") + 1] = str(len(epochs))
    assert child_runs.run(folder, words, log) == 0, log.read_text()[-3000:]
    assert (out / "inference" / "vavl.safetensors").exists()
