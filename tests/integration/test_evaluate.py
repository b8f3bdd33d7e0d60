"""`vavl evaluate` on a few clips and a model with random weights."""

import json

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import f1_score
from small_models import export_small, light_extractor, sharpen

from synthetic import generate_corpus
from vavl_sb.cli import main
from vavl_sb.evaluation.corruption import (
    choose_conditions,
    lose_modality,
    make_noise,
)
from vavl_sb.evaluation.robustness import (
    RobustnessTest,
    read_clips,
    report_lines,
)
from vavl_sb.inference import EmotionRecognizer
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.training.report import read_predictions

CLASSES = ["angry", "happy", "neutral"]
ATTRIBUTES = ["valence", "arousal"]
TASK = ("classification", CLASSES)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Five clips with both files, one without picture, one without sound."""
    folder = tmp_path_factory.mktemp("corpus") / "CREMA-D"
    generate_corpus(
        folder,
        speakers=1,
        clips_per_speaker=7,
        size=(96, 72),
        num_workers=1,
        progress=False,
    )
    return folder


@pytest.fixture(scope="module")
def manifest(corpus):
    """A manifest of that corpus, with labels of both kinds."""
    entries = {}
    for i, wav in enumerate(sorted((corpus / "AudioWAV").glob("*.wav"))):
        entries[wav.stem] = {
            "wav": f"{{data_root}}/AudioWAV/{wav.name}" if i != 5 else None,
            "video": f"{{data_root}}/VideoFlash/{wav.stem}.flv"
            if i != 6
            else None,
            "duration": 2.0,
            "spk_id": "1001",
            "emotion": CLASSES[i % 3],
            "valence": 1.0 + i / 2,
            "arousal": 4.0 - i / 3,
        }
    assert len(entries) == 7
    return write(corpus / "test.json", entries)


def write(path, entries):
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def make_model(
    folder, task="classification", labels=CLASSES, limits=None, **more
):
    """An exported model with random weights."""
    torch.manual_seed(1)
    net = VAVL(
        audio_dim=80,
        visual_dim=512,
        num_outputs=len(labels),
        d_model=16,
        encoder_layers=1,
        shared_layers=1,
    )
    return export_small(
        *(folder, labels, light_extractor(frame_rate=4.0), sharpen(net)),
        train_speakers=["1001", "1002"],
        task=task,
        attribute_range=limits,
        **more,
    )


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(model_folder):
    return EmotionRecognizer.from_hparams(model_folder)


def paths(corpus, clip):
    return (
        corpus / "AudioWAV" / f"{clip}.wav",
        corpus / "VideoFlash" / f"{clip}.flv",
    )


@pytest.fixture(scope="module")
def scored(model, manifest, corpus):
    """All conditions, and how often each clip was decoded and encoded."""
    counts = {"read": [], "audio": 0, "crops": 0}
    encoder = model.hparams.feature_extractor
    originals = encoder.read, encoder.encode_audio, encoder.encode_crops

    def read(wav=None, video=None):
        counts["read"] += [path for path in (wav, video) if path]
        return originals[0](wav, video)

    def encode_audio(samples, name):
        counts["audio"] += 1
        return originals[1](samples, name)

    def encode_crops(crops):
        counts["crops"] += len(crops)
        return originals[2](crops)

    encoder.read, encoder.encode_audio = read, encode_audio
    encoder.encode_crops = encode_crops
    test = RobustnessTest(model, choose_conditions([]), 7, make_noise(7))
    test.run(read_clips(manifest, *TASK, corpus))
    del encoder.read, encoder.encode_audio, encoder.encode_crops
    return test, counts


def test_clean_is_what_predict_file_says(scored, model, manifest, corpus):
    test, _ = scored
    for clip, entry in json.loads(manifest.read_text()).items():
        wav, video = paths(corpus, clip)
        if entry["video"] is None:
            answer = model.predict_file(wav)
        elif entry["wav"] is None:
            answer = model.predict_file(video, modality="visual")
        else:
            answer = model.predict_file(video, audio_path=wav)
        heads = [answer.modality] if not entry["wav"] else answer.per_modality
        for head in heads:
            found = test.clean.outputs[head][clip]
            shares = torch.softmax(found, dim=-1).tolist()
            expected = answer.per_modality[head]["probabilities"]
            assert shares == list(expected.values())  # Exactly.
        best = test.clean.outputs["auto"][clip]
        assert torch.equal(best, test.clean.outputs[answer.modality][clip])


def test_each_file_is_decoded_once(scored):
    _, counts = scored
    assert len(counts["read"]) == len(set(counts["read"])) == 12
    # Once clean for six clips with sound; three times each for middle and
    # end, five for noise, on the five clips that have both.
    assert counts["audio"] == 6 + 5 * (3 + 3 + 5)


@pytest.mark.parametrize("condition", ["sound-middle", "sound-end", "noise"])
def test_corrupted_is_what_predict_file_says_of_a_corrupted_file(
    scored, model, corpus, tmp_path, condition
):
    test, _ = scored
    clip = test.clean.clips("audiovisual")[0]
    wav, video = paths(corpus, clip)
    samples, rate = soundfile.read(wav)
    assert rate == 16000
    n = len(samples)
    if condition == "sound-middle":
        level, half = 50, round(0.5 * n)
        samples[(n - half) // 2 : (n - half) // 2 + half] = 0
    elif condition == "sound-end":
        level, samples = 75, samples[: n - round(0.75 * n)]
    else:
        level, noise = 10, make_noise(7)(clip, n).double().numpy()
        ratio = np.sqrt(np.mean(samples**2) / np.mean(noise**2))
        samples = samples + noise * ratio / 10**0.5
    path = tmp_path / "corrupted.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    answer = model.predict_file(video, audio_path=path)
    for head in ("audio", "audiovisual"):
        found = test.corrupted[condition, level].outputs[head][clip]
        expected = answer.per_modality[head]["probabilities"].values()
        clean = test.clean.outputs[head][clip]
        assert torch.softmax(found, -1).tolist() == pytest.approx(
            list(expected), abs=1e-4
        )
        assert not torch.allclose(found, clean, atol=1e-3)


def test_fewer_frames_change_what_the_face_says_and_not_the_voice(scored):
    test, _ = scored
    for clip in test.clean.clips("audiovisual"):
        clean = test.clean.outputs
        found = test.corrupted["face", 90].outputs
        assert torch.equal(found["audio"][clip], clean["audio"][clip])
        assert not torch.equal(found["visual"][clip], clean["visual"][clip])


def test_scores_are_those_of_another_library(scored, manifest):
    test, _ = scored
    entries = json.loads(manifest.read_text())
    pairs = test.clean.clips("audiovisual")
    assert len(pairs) == 5
    levels = test.summary()["conditions"]["noise"]["levels"]
    for level, part in (
        (levels[0], test.clean),
        (levels[5], test.corrupted["noise", -5]),
    ):
        for head in ("audio", "audiovisual"):
            true = [entries[clip]["emotion"] for clip in pairs]
            said = [CLASSES[part.outputs[head][c].argmax()] for c in pairs]
            scores = level["scores"][head]
            labels = sorted(set(true) | set(said))
            assert scores["n"] == 5
            assert scores["f1_macro"] == pytest.approx(
                f1_score(true, said, average="macro", labels=labels)
            )


def test_missing_modalities_are_scored_with_the_head_that_fits(scored):
    test, _ = scored
    levels = {
        level["level"]: level["scores"]["auto"]
        for level in test.summary()["conditions"]["missing"]["levels"]
    }
    pairs = test.clean.clips("audiovisual")
    assert levels[0] == test.clean.scores(["audiovisual"])["audiovisual"]
    lost = lose_modality(pairs, 100, 7)
    heads = {c: "visual" if lost[c] == "audio" else "audio" for c in pairs}
    assert levels[100] == test.clean.score_of(heads)
    assert set(heads.values()) == {"audio", "visual"}


def evaluate(*arguments):
    return main(["evaluate", *map(str, arguments)])


def test_the_command_writes_its_files_in_any_order_of_clips(
    scored, model_folder, manifest, corpus, tmp_path, capsys
):
    entries = json.loads(manifest.read_text())
    path = write(tmp_path / "m.json", dict(reversed(entries.items())))
    out = ("--output", tmp_path / "out", "--seed", 7)
    names = ["missing", "face", "noise"]
    root = ("--data_root", corpus, "--conditions", *names)
    assert evaluate(model_folder, path, *root, *out) == 0
    folder = tmp_path / "out"
    assert (folder / "robustness.png").read_bytes()[1:4] == b"PNG"
    table = (folder / "robustness.txt").read_text()
    assert table in capsys.readouterr().out
    assert "Noise in the sound (SNR in dB): macro F1" in table
    result = json.loads((folder / "robustness.json").read_text())
    # All clips are of a speaker of the training.
    seen = "trained on 1 of these speakers (1001)"
    assert seen in table and result["speakers_in_training"] == ["1001"]
    others = report_lines({**result, "speakers_in_training": []})
    assert "trained on" not in "".join(others)
    # The same as of the manifest in its own order.
    whole = json.loads(json.dumps(scored[0].summary()))
    assert result["clean"] == whole["clean"]
    assert list(result["conditions"]) == names
    for name in names:
        assert result["conditions"][name] == whole["conditions"][name]
    assert result["clips"]["used"] == result["clean"]["auto"]["n"] == 7
    # The predictions have the form of a run's, and give its scores.
    stats = read_predictions(folder / "predictions_clean.csv", *TASK)
    for head, collected in stats.items():
        found = collected.summarize("f1_macro")
        assert found == result["clean"][head]["f1_macro"]


def test_attributes_are_scored_in_the_corpus_scale(
    manifest, corpus, tmp_path, capsys
):
    folder = make_model(tmp_path / "m", "regression", ATTRIBUTES, [1.0, 5.0])
    status = evaluate(
        *(folder, manifest, "--data_root", corpus, "--output", tmp_path / "o")
    )
    assert status == 0
    result = json.loads((tmp_path / "o" / "robustness.json").read_text())
    assert result["conditions"] == {}
    model = EmotionRecognizer.from_hparams(folder)
    entries = json.loads(manifest.read_text())
    clips = [c for c, e in entries.items() if e["wav"]]
    said = [
        model.predict_file(paths(corpus, c)[0]).attributes["valence"]
        for c in clips
    ]
    true = [entries[c]["valence"] for c in clips]
    both = np.cov(said, true, bias=True)
    gap = np.mean(said) - np.mean(true)
    expected = 2 * both[0, 1] / (both[0, 0] + both[1, 1] + gap**2)
    found = result["clean"]["audio"]["ccc"]["valence"]
    assert found == pytest.approx(expected, abs=1e-6)
    assert "CCC mean" in capsys.readouterr().out
    table = tmp_path / "o" / "predictions_clean.csv"
    stats = read_predictions(table, "regression", ATTRIBUTES)["audio"]
    assert stats.stacked()[0][:, 0] == pytest.approx(said, rel=1e-5)
    assert stats.stacked()[1][:, 0] == pytest.approx(true)


def test_a_broken_clip_is_counted_and_the_rest_goes_on(
    model_folder, manifest, corpus, tmp_path, capsys
):
    entries = json.loads(manifest.read_text())
    broken = tmp_path / "broken.flv"
    broken.write_bytes(b"FLV nothing")
    first, second = list(entries)[:2]
    entries[first]["video"] = str(broken)
    entries[second].update(wav=None, video=str(tmp_path / "gone.flv"))
    path = write(tmp_path / "m.json", entries)
    status = evaluate(
        *(model_folder, path, "--data_root", corpus, "--output", tmp_path / "o")
    )
    assert status == 0
    result = json.loads((tmp_path / "o" / "robustness.json").read_text())
    clips = result["clips"]
    assert set(clips["failed"]) == {f"{first} (visual)", f"{second} (visual)"}
    assert "broken.flv" in clips["failed"][f"{first} (visual)"]
    assert (clips["in_manifest"], clips["used"]) == (7, 6)
    assert result["clean"]["audio"]["n"] == 5
    assert "2 files or parts of clips failed" in capsys.readouterr().out


def test_without_pairs_the_one_modality_is_scored_alone(
    model_folder, manifest, corpus, tmp_path, capsys
):
    entries = json.loads(manifest.read_text())
    voices = {
        clip: {**entry, "video": None}
        for clip, entry in entries.items()
        if entry["wav"]
    }
    path = write(tmp_path / "m.json", voices)
    where = ("--data_root", corpus, "--output", tmp_path / "o")
    names = ("modalities", "missing", "face", "sound-end")
    assert evaluate(model_folder, path, *where, "--conditions", *names) == 0
    result = json.loads((tmp_path / "o" / "robustness.json").read_text())
    assert set(result["skipped"]) == {"modalities", "missing", "face"}
    levels = result["conditions"]["sound-end"]["levels"]
    assert [list(x["scores"]) for x in levels] == [["audio"]] * 4
    assert levels[3]["scores"]["audio"]["n"] == 6
    out = capsys.readouterr().out
    assert "missing: skipped, no clip has both sound and a face" in out


def test_bad_input_gets_one_line(
    model_folder, manifest, corpus, tmp_path, capsys
):
    entries = json.loads(manifest.read_text())
    clip = list(entries)[3]
    entries[clip]["emotion"] = "bored"
    labels = write(tmp_path / "labels.json", entries)
    empty = write(tmp_path / "e.json", {})
    blocked = tmp_path / "file"
    blocked.write_text("")
    root, noise = ("--data_root", corpus), ("--noise", "hum.wav")
    for words, said in (
        (("nowhere.json",), ["nowhere.json"]),
        ((manifest,), ["prepare_report.json", "--data_root"]),
        ((labels, *root), ["labels.json", clip, "bored"]),
        ((empty,), ["e.json", "no clip"]),
        ((manifest, "--conditions", "fog"), ["--conditions", "fog", "noise"]),
        ((manifest, *noise), ["--noise", "--conditions"]),
        ((manifest, *noise, "--conditions", "noise"), ["hum.wav"]),
        (
            (manifest, *root, "--output", blocked / "in"),
            [str(blocked), "cannot be written"],
        ),
        (
            (manifest, "--data_root", "/no"),
            ["none of the 7 clips", "--data_root"],
        ),
    ):
        out = ("--output", tmp_path / "out")
        assert evaluate(model_folder, *out, *words) == 1
        error = capsys.readouterr().err
        lines = [x for x in error.splitlines() if x.startswith("vavl: ")]
        assert len(lines) == 1 and "Traceback" not in error, error
        assert all(word in lines[0] for word in said), lines[0]
