"""The one path from a clip to features, with light encoders."""

import numpy as np
import pytest
from light_model import MeanColour

from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.media.reader import read_audio
from vavl_sb.utils.errors import MediaError


def make_encoder(**changes):
    options = {"frame_rate": None, "batch_frames": 4, **changes}
    return FeatureExtractor(
        AudioEncoder("logmel"), MeanColour(), FaceTracker(None), **options
    )


@pytest.fixture(scope="module")
def clip(small_corpus):
    """A synthetic clip with sound and picture in one file."""
    return str(sorted((small_corpus / "VideoFlash").glob("*.flv"))[0])


def test_one_pass_equals_two(clip):
    encoder = make_encoder()
    both = encoder.encode(wav=clip, video=clip)
    sound, picture = encoder.encode(wav=clip), encoder.encode(video=clip)
    assert sound.visual is None and picture.audio is None
    assert np.array_equal(both.audio, sound.audio)
    assert np.array_equal(both.visual, picture.visual)
    assert both.audio.dtype == both.visual.dtype == np.float16


def test_features_are_those_of_the_encoder_alone(clip):
    found = make_encoder().encode(wav=clip).audio
    features, _ = AudioEncoder("logmel")(read_audio(clip)[None])
    assert np.array_equal(found, features[0].numpy().astype(np.float16))


def test_a_lower_frame_rate_takes_fewer_frames(clip):
    every = make_encoder().encode(video=clip).visual
    some = make_encoder(frame_rate=2.0).encode(video=clip).visual
    assert 2 <= len(some) < len(every) / 3


def test_features_that_half_precision_cannot_hold_are_an_error(clip):
    class Large(MeanColour):
        def forward(self, crops):
            return super().forward(crops) + 1e6

    encoder = make_encoder()
    encoder.visual_encoder = Large()
    with pytest.raises(MediaError, match="half precision") as error:
        encoder.encode(video=clip)
    assert clip in str(error.value)


def test_the_digest_names_what_features_depend_on():
    base = make_encoder()
    faster = make_encoder(frame_rate=5.0)
    assert base.fingerprint("audio") == faster.fingerprint("audio")
    assert base.fingerprint("visual") != faster.fingerprint("visual")
    other = make_encoder()
    other.face_tracker = FaceTracker(None, size=112)
    assert base.fingerprint("visual") != other.fingerprint("visual")
    other.audio_encoder = AudioEncoder("logmel", hop_ms=10)
    assert base.fingerprint("audio") != other.fingerprint("audio")
    # How many frames are decoded together changes nothing.
    assert base.fingerprint("visual") == make_encoder(
        batch_frames=9
    ).fingerprint("visual")
