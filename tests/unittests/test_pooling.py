"""Tests of the pooling of frozen features over time."""

import json

import numpy as np
import pytest
import torch
from light_model import make_model
from small_clips import grays, sine, write
from speechbrain.nnet.pooling import StatisticsPooling

from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.cache import FeatureCache, read_index
from vavl_sb.features.extraction import extract_features
from vavl_sb.features.extractor import FeatureExtractor, pool_frames
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.visual_encoder import VisualEncoder
from vavl_sb.utils.errors import EncoderError


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Six seconds of a tone that rises in level, and greys that change."""
    path = tmp_path_factory.mktemp("pooling") / "clip.mp4"
    sound = sine(6.0, 16000) * np.linspace(0.1, 1, 96000)
    return str(write(path, grays(range(0, 240, 4)), sound, fps=10) or path)


def test_statistics_are_those_of_speechbrain():
    frames = np.random.default_rng(0).normal(3, 2, (50, 7)).astype(np.float16)
    found = pool_frames(frames, "statistics")
    torch.manual_seed(0)  # Its mean has a little noise on it.
    truth = StatisticsPooling()(torch.from_numpy(frames).float()[None])[0]
    truth[:, 7:] *= (49 / 50) ** 0.5  # It divides by one less.
    np.testing.assert_allclose(found, truth.numpy(), rtol=2e-3, atol=2e-3)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(pool_frames(frames, "mean")[0], found[0, :7])
    alone = pool_frames(frames[:1], "statistics")
    np.testing.assert_array_equal(alone, [[*frames[0], *[0] * 7]])
    assert pool_frames(frames, None) is frames
    assert pool_frames(frames[:0], "mean").shape == (0, 7)


@pytest.mark.parametrize("pooling", ["mean", "statistics"])
def test_cache_clip_and_window_are_pooled_alike(clip, tmp_path, pooling):
    model = make_model(pooling=pooling)
    extractor = model.hparams.feature_extractor
    frames = extractor.encode(clip, clip)
    assert len(frames.audio) == 301 and len(frames.visual) == 30

    def truth(begin, end):
        """The network on moments by NumPy of the frames in a stretch."""
        inputs = {}
        for name, rate in (("audio", 50), ("visual", 5)):
            own = getattr(frames, name).astype(np.float64)
            own = own[round(begin * rate) : end and round(end * rate)]
            parts = [own.mean(0), own.std(0)][: 1 + (pooling != "mean")]
            row = torch.from_numpy(np.concatenate(parts)).half().float()
            inputs[name] = row[None, None]
        with torch.no_grad():
            out = model.mods.vavl.eval()(**inputs)
        return out.audiovisual.softmax(-1)[0].numpy()

    said = model.predict_file(clip).probabilities
    np.testing.assert_allclose(list(said.values()), truth(0, None), atol=1e-5)
    window = model.timeline(clip, window=2.0, hop=2.0)[1].emotion
    np.testing.assert_allclose(
        list(window.probabilities.values()), truth(2, 4), atol=2e-3
    )
    files = {n: tmp_path / f"{n}.json" for n in ("index", "report")}
    extract_features(
        [{"a": {"wav": clip, "video": clip}}], extractor, tmp_path, **files
    )
    cached = read_index(files["index"])["a"]["audio"]
    stored = FeatureCache(tmp_path).read(cached)
    assert stored.shape == (1, extractor.dim("audio"))
    np.testing.assert_array_equal(stored, extractor.pool(frames).audio)
    assert json.loads(files["report"].read_text())["failed"] == {}


def test_pooling_is_in_the_fingerprint_and_must_make_sense(monkeypatch):
    def extractor(audio=None, visual=None, encoder=None):
        encoder = encoder or AudioEncoder("logmel")
        return FeatureExtractor(
            encoder,
            VisualEncoder(),
            FaceTracker(None),
            audio_pooling=audio,
            visual_pooling=visual,
        )

    plain, pooled = extractor(), extractor("mean", "statistics")
    for modality in ("audio", "visual"):
        assert plain.fingerprint(modality) != pooled.fingerprint(modality)
    assert (pooled.audio_dim, pooled.visual_dim) == (80, 1024)
    with pytest.raises(EncoderError, match="visual_pooling: must be null, me"):
        extractor(visual="max")
    learns = AudioEncoder("logmel")
    learns.freeze = False
    with pytest.raises(EncoderError, match="frozen encoder"):
        extractor("mean", encoder=learns)
    # A recipe would leave it as it is, though it was to be fine-tuned.
    with pytest.raises(EncoderError, match="visual_encoder: must be frozen"):
        FeatureExtractor(AudioEncoder("logmel"), learns, FaceTracker(None))
