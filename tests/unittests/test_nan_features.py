"""Features with NaN or infinity never reach the network."""

import dataclasses

import numpy as np
import pytest
from test_features import CountingEncoder, corpus, extract

from vavl_sb.features.cache import FeatureCache

__all__ = ["corpus"]  # A fixture.


class SickEncoder(CountingEncoder):
    """Gives one value that is not finite for the sound of clip b."""

    value = np.nan

    def encode(self, wav=None, video=None):
        found = super().encode(wav=wav, video=video)
        if wav is None or not wav.endswith("b.wav"):
            return found
        sick = found.audio.copy()
        sick[-1, 0] = self.value
        return dataclasses.replace(found, audio=sick)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_clip_whose_features_are_not_finite_is_left_out(
    tmp_path, corpus, value
):
    encoder = SickEncoder()
    encoder.value = value
    index, report = extract(tmp_path, corpus, encoder)
    assert index["b"]["audio"] is None and index["a"]["audio"] is not None
    reason = report["failed"]["b (audio)"]
    assert corpus["b"]["wav"] in reason and "not finite" in reason


def test_a_cached_feature_with_nan_is_computed_anew(tmp_path, corpus, caplog):
    index, _ = extract(tmp_path, corpus, CountingEncoder())
    cache, path = FeatureCache(tmp_path / "features"), index["a"]["audio"]
    sound = cache.read(path)
    cache.write(path, np.full_like(sound, np.nan))
    again = CountingEncoder()
    assert extract(tmp_path, corpus, again)[0] == index
    assert corpus["a"]["wav"] in again.calls and path in caplog.text
    assert np.array_equal(cache.read(path), sound)
