"""Speaker normalization: against closed forms, simulated speakers, and itself
from the shell."""

import itertools
import json
import math
import shutil
from fnmatch import fnmatch

import numpy as np
import pytest
import soundfile
import speechbrain as sb
import torch
from light_model import LABELS, make_model
from small_models import export_small, light_extractor
from speechbrain.dataio.batch import PaddedData
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from test_brain import items, make_brain, ready

from vavl_sb.cli import main
from vavl_sb.dataio.datasets import EmotionBatch
from vavl_sb.evaluation.enrolment import EnrolmentTest, enrolment_lines
from vavl_sb.features.extractor import ClipFeatures
from vavl_sb.inference import (
    EmotionRecognizer,
    Speaker,
    emotion as emotion_module,
    loading,
)
from vavl_sb.inference.hub import FILES
from vavl_sb.inference.speakers import estimate_speaker
from vavl_sb.lobes.speaker_normalization import (
    SpeakerNormalization,
    SpeakerStatistics,
    make_normalizer,
)
from vavl_sb.training.speakers import SpeakerSamples
from vavl_sb.utils.errors import EncoderError, MediaError, VAVLError

DIM = 6


def simulated(speakers, clips, between=4.0, seed=0, dim=DIM):
    """Clips of speakers who differ more than their emotions do."""
    rng = np.random.default_rng(seed)
    offsets = math.sqrt(between) * rng.standard_normal((speakers, dim))
    emotions = np.tile(np.arange(3), speakers * clips // 3)
    means = 1.5 * np.eye(3, dim)
    names = np.repeat(np.arange(speakers), clips)
    noise = rng.standard_normal((speakers * clips, dim))
    x = offsets[names] + means[emotions] + noise
    return torch.tensor(x).float(), torch.tensor(emotions), names


def one_hot(emotions):
    return torch.nn.functional.one_hot(emotions, 3).float()


def fitted(x, emotions, names, **more):
    normalization = SpeakerNormalization(x.shape[1], 1, 3, **more)
    normalization.fit("audio", x, one_hot(emotions), [str(n) for n in names])
    return normalization


def apply(normalization, x, clips):
    """Clips (n, D) normalized by the statistics of others."""
    known = SpeakerStatistics.of(clips) if len(clips) else None
    known = SpeakerStatistics.stack([known], x.shape[1])
    return normalization("audio", x[:, None], known)[:, 0]


def test_the_variances_of_simulated_speakers_are_found():
    x, emotions, names = simulated(400, 30)
    found = fitted(x, emotions, names, iterative=True)
    assert found.audio_between.numpy() == pytest.approx(4.0, rel=0.2)
    # Within a speaker, noise and the emotions of which each is a third.
    expected = 1 + 1.5**2 * np.var(np.eye(3, DIM), axis=0)
    assert found.audio_within.numpy() == pytest.approx(expected, rel=0.05)
    slopes = 1.5 * (np.eye(3, DIM) - np.eye(3, DIM).mean(axis=0))
    assert np.abs(found.audio_slopes.numpy() - slopes).max() < 0.06


@pytest.mark.parametrize("count", [1, 5, 60])
def test_the_mean_is_the_posterior_mean_of_a_gaussian(count):
    x, emotions, names = simulated(40, 30)
    norm = fitted(x, emotions, names)
    clips = torch.randn(count, DIM) + 3
    mu, b, w = norm.audio_mean, norm.audio_between, norm.audio_within
    # Precisions of the prior and of the clips add up.
    precision = 1 / b + count / w
    mean = (mu / b + clips.sum(dim=0) / w) / precision
    around = ((clips - mean) ** 2).sum(dim=0)
    variance = (around + 10 * w) / (count + 10)
    new = torch.randn(4, DIM)
    expected = (new - mean) * (w / variance).sqrt() + mu
    assert torch.allclose(apply(norm, new, clips), expected, atol=1e-4)


def test_nothing_changes_for_a_speaker_of_whom_nothing_is_known():
    norm = fitted(*simulated(10, 9))
    new = torch.randn(4, DIM)
    assert torch.equal(apply(norm, new, new[:0]), new)


def test_what_emotions_put_into_a_mean_is_taken_out_by_half_at_most():
    norm = fitted(*simulated(200, 30), iterative=True)
    clips = SpeakerStatistics(torch.tensor([24.0]), torch.zeros(1, DIM), None)
    happy = torch.tensor([[1.0, 0.0, 0.0]])
    moved = norm.without_emotion("audio", clips, happy).mean[0]
    share = 24 / (2 * 24 + 8)
    expected = -share * 1.5 * np.array([2 / 3, -1 / 3, -1 / 3, 0, 0, 0])
    assert np.abs(moved.numpy() - expected).max() < 0.05
    balanced = norm.without_emotion("audio", clips, norm.audio_target_mean)
    assert torch.equal(balanced.mean, clips.mean)


def test_one_clip_of_each_speaker_does_not_shrink_features_to_nothing():
    x, emotions, _ = simulated(1, 30)
    norm = fitted(x, emotions, range(30))
    new = torch.randn(4, DIM)
    moved = apply(norm, new, x[:5])
    # Over the clips: their middle is the corpus's, whatever it is.
    assert bool((moved.std(dim=0) > 0.2 * new.std(dim=0)).all())


# Training


def dataset(x, emotions, names):
    """Clips of three frames, whose time means are x."""
    clips = {
        f"clip{i}": {"spk_id": str(names[i]), "row": i} for i in range(len(x))
    }

    @takes("row")
    @provides("audio")
    def audio(row):
        return x[row] + torch.tensor([[-1.0], [0.0], [1.0]])

    @takes("row")
    @provides("visual")
    def visual(row):
        return torch.zeros(0, 1)

    @takes("row")
    @provides("label")
    def label(row):
        return emotions[row : row + 1]

    keys = ["id", "audio", "visual", "label"]
    return DynamicItemDataset(clips, [audio, visual, label], keys)


@pytest.fixture(scope="module")
def samples():
    x, emotions, names = simulated(4, 30)
    found = SpeakerSamples(SpeakerNormalization(DIM, 1, 3), seed=1)
    found.fit(dataset(x, emotions, names))
    return found


def test_a_draw_is_of_other_clips_of_the_same_speaker(samples):
    sizes = []
    for epoch in range(20):
        for clip, speaker in samples.speakers.items():
            drawn = samples.sample(clip, epoch)
            assert clip not in drawn and len({*drawn}) == len(drawn)
            assert {samples.speakers[other] for other in drawn} <= {speaker}
            sizes.append(len(drawn))
    # Of 2,400 draws; the numbers between are from 1 to 28, small ones more.
    for size, share in ((0, 0.25), (29, 0.25)):
        assert np.mean(np.array(sizes) == size) == pytest.approx(
            share, abs=0.03
        )
    between = [size for size in sizes if 0 < size < 29]
    assert {*between} == {*range(1, 29)} and np.median(between) < 9


def test_a_draw_is_the_same_again_and_another_in_another_epoch(samples):
    x, emotions, names = simulated(4, 30)
    again = SpeakerSamples(SpeakerNormalization(DIM, 1, 3), seed=1)
    again.fit(dataset(x, emotions, names))
    clips = list(samples.speakers)
    first = [samples.sample(clip, 1) for clip in clips]
    assert [again.sample(clip, 1) for clip in clips] == first
    assert [samples.sample(clip, 2) for clip in clips] != first


def test_a_batch_is_normalized_clip_by_clip_and_padded_with_zeros(samples):
    x, emotions, names = simulated(4, 30)
    items = [dataset(x, emotions, names)[i] for i in range(0, 120, 7)]
    items[0]["audio"] = items[0]["audio"][:2]  # Shorter than the others.
    items[1]["audio"] = items[1]["audio"][:0]  # No sound.
    batch = samples.normalize_batch(EmotionBatch(items), epoch=3)
    for row, item in enumerate(items):
        drawn = samples.sample(item["id"], 3)
        others = x[[int(clip[4:]) for clip in drawn]]
        expected = torch.zeros(3, DIM)
        frames = item["audio"]
        expected[: len(frames)] = apply(samples.normalization, frames, others)
        assert torch.allclose(batch.audio.data[row], expected, atol=1e-4)


def test_a_speech_encoder_that_learns_cannot_be_normalized():
    with pytest.raises(VAVLError, match="freeze_audio_encoder"):
        make_normalizer("speaker", 4, 4, 3, frozen=False)


# Inference


def recognizer(iterative=False, task="classification"):
    """A small model that knows how speakers differ."""
    model = make_model(task, pooling="mean")
    sizes = [
        model.hparams.feature_extractor.dim(m) for m in ("audio", "visual")
    ]
    norm = SpeakerNormalization(*sizes, num_outputs=3, iterative=iterative)
    for seed, (name, size) in enumerate(zip(("audio", "visual"), sizes)):
        x, emotions, names = simulated(12, 30, seed=seed, dim=size)
        norm.fit(name, x, one_hot(emotions), list(map(str, names)))
    model.mods["speaker_normalizer"] = norm
    return model


def features(count, seed=0, model=None):
    """Clips with random features; every third has no face."""
    rng = np.random.default_rng(seed)
    extractor = (model or make_model()).hparams.feature_extractor
    sizes = {m: extractor.dim(m) for m in ("audio", "visual")}
    frames = lambda n, size: rng.standard_normal((n, size)).astype("f2")  # noqa: E731
    return [
        ClipFeatures(
            frames(4 + i % 3, sizes["audio"]),
            frames(3, sizes["visual"]) if i % 3 else None,
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("iterative", [False, True])
def test_answers_are_the_same_whatever_the_order_of_the_enrolment(iterative):
    model, (new, *clips) = recognizer(iterative), features(12)
    first = model.enrol_features(clips)
    again = model.enrol_features(clips[::-1])
    known, other = (model.outputs(new, one) for one in (first, again))
    unknown = model.outputs(new)
    for head, values in known.items():
        assert torch.equal(values, other[head])
        assert not torch.allclose(values, unknown[head], atol=1e-3)
    batch = model.batch_outputs([*clips, new], first)[-1]
    assert torch.allclose(batch["audio"], known["audio"], atol=1e-5)


def test_the_mean_of_features_is_what_a_speaker_is_known_by():
    model, clips = recognizer(), features(12)
    speaker = model.enrol_features(clips)
    frames = np.stack([c.audio.astype("f8").mean(axis=0) for c in clips])
    found = speaker.statistics["audio"]
    assert found.mean[0].numpy() == pytest.approx(frames.mean(axis=0), abs=2e-3)
    assert found.variance[0].numpy() == pytest.approx(
        frames.var(axis=0), rel=0.02, abs=1e-4
    )
    assert (found.count, speaker.statistics["visual"].count) == (12, 8)


def test_iterations_end_where_the_model_stays_with_what_it_says():
    model, clips = recognizer(iterative=True), features(9)
    speaker = model.enrol_features(clips)
    plain = recognizer().enrol_features(clips)
    said = [
        torch.softmax(list(out.values())[-1], dim=-1)
        for out in model.batch_outputs(clips, speaker)
    ]
    mean = torch.stack(said).mean(dim=0, keepdim=True)
    norm = model.mods.speaker_normalizer
    usual = norm.audio_target_mean
    pairs = itertools.combinations([p.argmax().item() for p in said], 2)
    shown = np.mean([a != b for a, b in pairs]) / (1 - usual.square().sum())
    skew = min(1.0, 4 * max(0.0, 1 - float(shown)))
    assert skew > 0  # else nothing is corrected
    again = norm.without_emotion(
        "audio", plain.statistics["audio"], usual + skew * (mean - usual)
    )
    moved = (speaker.statistics["audio"].mean - again.mean).abs().max()
    total = (plain.statistics["audio"].mean - again.mean).abs().max()
    assert moved < 0.02 * total


def test_a_speaker_comes_back_from_a_file_as_it_was(tmp_path):
    model, (new, *clips) = recognizer(), features(8)
    speaker = model.enrol_features(clips)
    path = tmp_path / "one.speaker.json"
    speaker.save(path)
    again = model.read_speaker(path)
    assert again.clips == 7
    for head, values in model.outputs(new, speaker).items():
        assert torch.equal(values, model.outputs(new, again)[head])
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert json.loads(text).keys() == {"model", "clips", "audio", "visual"}


def test_a_speaker_of_another_model_is_refused(tmp_path):
    speaker = recognizer().enrol_features(features(5))
    other = recognizer()
    with torch.no_grad():
        next(other.mods.vavl.parameters()).mul_(1.001)
    speaker.save(tmp_path / "one.speaker.json")
    with pytest.raises(VAVLError, match="enrolled with another model"):
        other.read_speaker(tmp_path / "one.speaker.json")
    with pytest.raises(VAVLError, match="without speaker normalization"):
        make_model().predict_features(np.zeros((3, 80), "f4"), speaker=speaker)


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        '{"model": "a", "clips": 1, "audio": {"count": 1, "mean": [1, 2],'
        ' "variance": [1]}}',
        '{"model": "a", "clips": 1, "audio": {"count": 1, "mean": [1e400],'
        ' "variance": [1]}}',
        '{"model": "a", "clips": 1, "audio": {"count": 1, "mean": [1],'
        ' "variance": [-1]}}',
        "[" * 100000,
    ],
)
def test_a_file_that_is_no_speaker_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "one.speaker.json"
    path.write_text(damage)
    with pytest.raises(VAVLError, match="vavl enrol") as error:
        Speaker.load(path)
    assert "\n" not in error.value.text
    with pytest.raises(VAVLError, match="cannot be read"):
        Speaker.load(tmp_path / "nobody.speaker.json")


def test_few_emotions_in_an_enrolment_count_as_few_clips():
    model = recognizer(iterative=True)
    norm = model.mods.speaker_normalizer
    with torch.no_grad():
        norm.audio_slopes.zero_()
    clips = [ClipFeatures(audio=c.audio) for c in features(6)]
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    for said, expected in ((labels, 6 * 8 / 15 / (2 / 3)), (0 * labels, 0)):
        predictions = torch.eye(3)[said]
        pooled = [model.hparams.feature_extractor.pool(clip) for clip in clips]
        speaker = estimate_speaker(
            "m", norm, pooled, lambda speaker, p=predictions: p, classes=True
        )
        count = speaker.statistics["audio"].count
        assert count.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "labels, skew",
    [
        ([0, 1, 2, 0, 1, 2], 0.0),  # 12 of 15 pairs differ: more than 2 of 3
        ([0, 0, 0, 0, 1, 1], 0.8),  # 8 of 15, four fifths of 2 of 3
        ([0, 0, 0, 0, 0, 0], 1.0),
    ],
)
def test_only_clips_of_few_emotions_are_corrected_for_them(labels, skew):
    model = recognizer(iterative=True)
    norm = model.mods.speaker_normalizer
    norm.audio_target_mean.fill_(1 / 3)
    clips = [ClipFeatures(audio=c.audio) for c in features(6)]
    pooled = [model.hparams.feature_extractor.pool(clip) for clip in clips]
    # Surer of the first class than the shares of the labels are.
    said = torch.eye(3)[torch.tensor(labels)] * 0.4
    said += 0.6 * torch.tensor([0.5, 0.3, 0.2])
    speaker = estimate_speaker(
        "m", norm, pooled, lambda speaker: said, classes=True
    )
    plain = recognizer().enrol_features(clips).statistics["audio"]
    effect = (said.mean(dim=0) - 1 / 3) @ norm.audio_slopes
    expected = plain.mean[0] - skew * 6 / (2 * 6 + 8) * effect
    found = speaker.statistics["audio"].mean[0]
    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    assert effect.abs().max() > 0.01


def test_attributes_have_no_diversity_and_are_iterated_all_the_same():
    model = recognizer(iterative=True, task="regression")
    speaker = model.enrol_features(features(6))
    assert speaker.statistics["audio"].count == 6
    plain = recognizer(task="regression").enrol_features(features(6))
    moved = speaker.statistics["audio"].mean - plain.statistics["audio"].mean
    assert moved.abs().max() > 1e-3


def test_what_no_head_reads_is_not_kept_of_a_person():
    model = recognizer()
    model.hparams.trained_heads = ["audio"]
    speaker = model.enrol_features(features(6))
    assert set(speaker.statistics) == {"audio"}
    faces = [
        ClipFeatures(visual=c.visual)
        for c in features(6)
        if c.visual is not None
    ]
    with pytest.raises(MediaError, match="no clip can be used"):
        model.enrol_features(faces)


def test_a_block_of_clips_has_the_outputs_of_each_alone(monkeypatch):
    model, clips = recognizer(), features(7)
    whole = model.batch_outputs(clips)
    monkeypatch.setattr(emotion_module, "BATCH_SIZE", 2)
    for one, other in zip(whole, model.batch_outputs(clips)):
        assert one.keys() == other.keys()
        for head in one:
            assert torch.allclose(one[head], other[head], atol=1e-5)


# From a folder, and from the shell


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An exported model with random weights, and five clips with sound."""
    folder = tmp_path_factory.mktemp("speakers")
    extractor = light_extractor(audio_pooling="mean")
    sizes = [extractor.dim(m) for m in ("audio", "visual")]
    norm = SpeakerNormalization(*sizes, 3)
    x, emotions, names = simulated(12, 30, dim=sizes[0])
    norm.fit("audio", x, one_hot(emotions), list(map(str, names)))
    torch.save(norm.state_dict(), folder / "fitted.pt")
    for name, one in (("with", norm), ("without", None)):
        export_small(
            *(folder / name, LABELS, extractor),
            speaker_normalization=one,
            trained_heads=["audio"],
        )
    time = np.arange(32000) / 16000
    (folder / "clips").mkdir()
    for number in range(5):
        tone = 0.2 * np.sin(2 * np.pi * (200 + 60 * number) * time)
        soundfile.write(folder / "clips" / f"{number}.wav", tone, 16000)
    long = [
        0.2 * np.sin(2 * np.pi * pitch * time) for pitch in range(200, 800, 60)
    ]
    soundfile.write(folder / "long.wav", np.concatenate(long), 16000)
    return folder


def test_an_export_brings_the_speakers_back(exported):
    clips = sorted((exported / "clips").iterdir())
    found = []
    for trust in (False, True):
        model = EmotionRecognizer.from_hparams(exported / "with", trust=trust)
        again = model.mods.speaker_normalizer.state_dict()
        for name, values in torch.load(exported / "fitted.pt").items():
            assert torch.equal(again[name], values)
        speaker = model.enrol(clips[1:])
        known = model.predict_file(clips[0], speaker=speaker)
        assert known.used[-1] == "statistics of 4 clips of the speaker"
        unknown = model.predict_file(clips[0])
        assert known.probabilities != unknown.probabilities
        one, other = (
            model.embed_file(clips[0], speaker=who)["audio"]
            for who in (speaker, None)
        )
        assert abs(one - other).max() > 1e-3
        found.append((known.probabilities, unknown.probabilities))
    assert found[0] == found[1]
    plain = EmotionRecognizer.from_hparams(exported / "without")
    assert plain.predict_file(clips[0]).probabilities == found[0][1]


def test_an_export_with_another_size_is_refused_before_it_takes_memory(
    exported, tmp_path, monkeypatch
):
    def load(module, path):
        assert not isinstance(module, SpeakerNormalization)

    monkeypatch.setattr(loading, "load_weights", load)
    folder = shutil.copytree(exported / "with", tmp_path / "model")
    model = json.loads((folder / "model.json").read_text())
    part = model["speaker_normalization"]["arguments"]
    for change in ({"audio_dim": 2**17}, {"num_outputs": 1000}, {"nhead": 2}):
        wrong = {**part, **change}
        model["speaker_normalization"]["arguments"] = wrong
        (folder / "model.json").write_text(json.dumps(model))
        with pytest.raises(
            EncoderError, match="do not fit|unknown argument|3 labels"
        ):
            EmotionRecognizer.from_hparams(folder)


def test_the_hub_gets_every_file_of_an_export(exported):
    folder = exported / "with"
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*.*")}
    sent = {f for f in files if any(fnmatch(f, pattern) for pattern in FILES)}
    assert "speaker_normalization.safetensors" in sent and sent == files


def test_a_clip_that_cannot_be_used_does_not_lose_the_others(exported, capsys):
    clips, bad = exported / "clips", exported / "bad.wav"
    bad.write_bytes(b"nothing")
    model = EmotionRecognizer.from_hparams(exported / "with")
    speaker = model.enrol([clips / "0.wav", {"path": bad}, clips / "1.wav"])
    assert speaker.clips == 2 and len(speaker.left_out) == 1
    # A lone path is a clip, not one for each letter.
    assert model.enrol(str(clips / "0.wav")).clips == 1
    path = exported / "some.speaker.json"
    words = ("enrol", exported / "with", clips, bad, "-o", path)
    assert said(capsys, *words)[0] == 1 and path.exists()
    status, out, _ = said(
        *(capsys, "predict", exported / "with", bad, "--speaker", "clips"),
        "--json",
    )
    assert status == 1 and "error" in json.loads(out)[0]
    with pytest.raises(VAVLError, match="must be a Speaker"):
        model.predict_file(clips / "0.wav", speaker=3)


def said(capsys, *arguments):
    """Exit status, JSON and errors of a command."""
    status = main(list(map(str, arguments)))
    out, errors = capsys.readouterr()
    return status, out, errors


def test_the_shell_enrols_and_predicts(exported, tmp_path, capsys):
    path = tmp_path / "one.speaker.json"
    model, clips = exported / "with", exported / "clips"
    status, out, _ = said(capsys, "enrol", model, clips, "-o", path)
    assert status == 0 and "5 clips of a speaker (audio)" in out
    answers = {}
    for name in (None, path, "clips"):
        option = ["--speaker", name] if name else []
        _, out, _ = said(capsys, "predict", model, clips, "--json", *option)
        answers[name] = [one["probabilities"] for one in json.loads(out)]
    assert answers[path] == answers["clips"] != answers[None]
    long = exported / "long.wav"
    _, out, _ = said(capsys, "predict", model, long, "--json")
    _, known, _ = said(
        *(capsys, "predict", model, long, "--json", "--speaker", "self")
    )
    alone, known = json.loads(out)[0], json.loads(known)[0]
    assert known["used"][-1] == "statistics of 7 clips of the speaker"
    assert alone["probabilities"] != known["probabilities"]


def test_the_shell_says_in_one_line_what_it_cannot(exported, tmp_path, capsys):
    path, clips = tmp_path / "one.speaker.json", exported / "clips"
    for words, reason in (
        (("enrol", exported / "without", clips, "-o", path), "without speaker"),
        (("enrol", exported / "with", clips, "-o", "one.json"), "must end in"),
        (("enrol", exported / "with", path, "-o", path), "no clip can be used"),
        (
            ("predict", exported / "with", clips, "--speaker", path),
            "cannot be read",
        ),
    ):
        status, _, errors = said(capsys, *words)
        last = errors.strip().splitlines()[-1]
        assert status == 1 and reason in last


def test_a_warning_says_that_an_enrolment_is_of_one_emotion(caplog):
    model, clips = recognizer(), features(6)
    said = [{"audio": 9 * row} for row in torch.eye(3).repeat(2, 1)]
    model.batch_outputs = lambda parts, speaker=None: said
    model.enrol_features(clips)
    assert "most clips" not in caplog.text
    said[:] = 6 * [said[1]]
    model.enrol_features(clips, warn=False)
    assert "most clips" not in caplog.text
    model.enrol_features(clips)
    assert "predicts happy for most clips" in caplog.text


# Evaluation


def test_no_clip_is_scored_that_was_enrolled(monkeypatch):
    model, clips = recognizer(), features(24)
    entries = {
        f"c{i}": {"spk_id": f"s{i % 2}", "emotion": LABELS[i // 2 % 3]}
        for i in range(24)
    }
    given = dict(zip(entries, clips))
    name_of = {id(clip.audio): name for name, clip in given.items()}
    enrolled, faults, stage = [], [], []
    enrol = emotion_module.EmotionRecognizer.enrol_features
    outputs = emotion_module.EmotionRecognizer.batch_outputs

    def spy_enrol(self, parts, warn=True):
        enrolled[:] = [name_of[id(part.audio)] for part in parts]
        speakers = {entries[name]["spk_id"] for name in enrolled}
        faults.extend([] if len(speakers) == 1 else ["two speakers"])
        stage[:] = []
        speaker = enrol(self, parts, warn)
        stage[:] = ["test"]
        return speaker

    def spy_outputs(self, parts, speaker=None):
        names = {name_of[id(part.audio)] for part in parts}
        if speaker is not None and len(enrolled) < 12 and "test" in stage:
            faults.extend(names & {*enrolled})
        return outputs(self, parts, speaker)

    monkeypatch.setattr(EmotionRecognizer, "enrol_features", spy_enrol)
    monkeypatch.setattr(EmotionRecognizer, "batch_outputs", spy_outputs)
    test = EnrolmentTest(model, entries, given, ["0", "3", "all", "50"], 2, 1)
    rows = {row["enrolment"]: row for row in test.run()}
    assert not faults
    counts = {name: row["clips"] for name, row in rows.items()}
    assert counts["0"] == 0 and counts["3"] == 3 and counts["all"] == 12
    assert rows["all"]["transductive"] and not rows["3"]["transductive"]
    assert rows["50"]["speakers"] == 0  # Nobody has so many.
    assert rows["3"]["scores"]["audio"]["n"] == 2 * 2 * 9
    assert rows["one emotion"]["clips"] == 4 and "two emotions" in rows
    # Without a speaker the score is that of the model as it is.
    right = [
        LABELS[int(out["audio"].argmax())] == entry["emotion"]
        for out, entry in zip(outputs(model, clips), entries.values())
    ]
    score = rows["0"]["scores"]["audio"]["f1_micro"]
    assert score == pytest.approx(np.mean(right))
    assert rows["0"]["without"] == rows["0"]["scores"]
    # All clips are scored, with and without.
    assert rows["all"]["without"]["audio"] == rows["0"]["scores"]["audio"]
    assert rows["one emotion"]["without"]["audio"]["n"] == 2 * 2 * 8
    found = {"task": "classification", "enrolment": list(rows.values())}
    table = "\n".join(enrolment_lines(found))
    assert "transductive" in table and "3 clips" in table


@pytest.mark.parametrize("text", ["", "1,01", "-1"])
def test_numbers_that_cannot_be_are_refused(text, tmp_path, capsys):
    status, _, errors = said(
        *(capsys, "evaluate", tmp_path, tmp_path / "t.json", "--enrol", text)
    )
    assert status == 1 and "--enrol" in errors


def test_training_sees_normalized_clips_and_what_is_scored_does_not(
    tmp_path,
):
    brain = ready(make_brain(tmp_path))
    batch = EmotionBatch(list(items(["av"] * 3).values()))
    brain.on_stage_start(sb.Stage.TRAIN, 2)
    asked, seen = [], []

    class Draws:
        def normalize_batch(self, batch, epoch):
            asked.append(epoch)
            batch.audio = PaddedData(0 * batch.audio.data, batch.audio.lengths)
            return batch

    def look(batch, stage, update="joint"):
        seen.append(bool(batch.audio.data.any()))
        return type(brain).compute_forward(brain, batch, stage, update)

    brain.speaker_samples, brain.compute_forward = Draws(), look
    brain.fit_batch(batch)
    # One sample for the three updates, that of the epoch.
    assert (asked, seen) == ([2], [False] * 3)
    for stage in (sb.Stage.VALID, sb.Stage.TEST):
        asked.clear(), seen.clear()
        brain.on_stage_start(stage)
        batch = EmotionBatch(list(items(["av"] * 3).values()))
        brain.evaluate_batch(batch, stage)
        assert (asked, seen) == ([], [True])
