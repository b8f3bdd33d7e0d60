"""A visual encoder of one's own, on real faces and on drawn ones.

It is a pretrained network that tells expressions from a picture of a face, and
lies beside the real clips; docs/encoders.md says how to bring one.
"""

import importlib
import os

import numpy as np
import pytest

from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.lobes.audio_encoder import AudioEncoder

pytest.importorskip("facenet_pytorch")
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def face_expression(real_data):
    """The module, which child processes find as well."""
    folder = real_data.parent / "models" / "face-expression"
    if not folder.is_dir():
        pytest.skip(f"no network for faces at {folder}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        patch.setenv("PYTHONPATH", path.rstrip(os.pathsep))
        yield importlib.import_module("face_expression")


def test_it_sees_what_the_actors_show(face_expression, real_data):
    """Without training here: the network names what it was trained to tell."""
    extractor = FeatureExtractor(
        AudioEncoder("logmel"),
        face_expression.FaceExpression(logits=True),
        FaceTracker("mtcnn", detection_rate=2.5),
        frame_rate=5.0,
    )

    def seen(path):
        frames = extractor.encode(video=str(real_data / path)).visual
        logits = frames[:, -len(face_expression.LABELS) :]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        mean = (odds / odds.sum(axis=1, keepdims=True)).mean(axis=0)
        return dict(zip(face_expression.LABELS, mean))

    cremad = "crema_d_mini/VideoFlash/1001_DFA_{}_XX.flv"
    # Those of the six that the network's own README says it names rightly.
    for code, name in (
        ("DIS", "disgusted"),
        ("HAP", "happy"),
        ("NEU", "neutral"),
        ("SAD", "sad"),
    ):
        shares = seen(cremad.format(code))
        assert max(shares, key=shares.get) == name
    one, other, surprised = (
        seen(f"ravdess_clips/{name}.mp4")
        for name in (
            "01-01-01-01-01-01-01",
            "02-01-01-01-01-02-01",
            "01-01-08-01-01-02-01",
        )
    )
    for neutral in (one, other):
        assert max(neutral, key=neutral.get) == "neutral"
        assert surprised["surprised"] > neutral["surprised"]
