"""A visual encoder of one's own, on real faces and on drawn ones.

It is a pretrained network that tells expressions from a picture of a face, and
lies beside the real clips; docs/encoders.md says how to bring one.
"""

import importlib
import json
import os

import numpy as np
import pytest
from conftest import SMALL, run_recipe

from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.inference import EmotionRecognizer
from vavl_sb.lobes.audio_encoder import AudioEncoder

pytest.importorskip("facenet_pytorch")
pytestmark = pytest.mark.real

ENCODER = ("--visual_encoder", "!new:face_expression.FaceExpression")


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


def test_raw_video_is_trained_on_exported_and_recognised(
    face_expression, real_data, small_corpus, tmp_path
):
    """Six real clips by heart, then the drawn corpus from where that left."""
    mini = real_data / "crema_d_mini"
    names = "ANG angry DIS disgust FEA fear HAP happy NEU neutral SAD sad"
    words = names.split()
    emotions = dict(zip(words[::2], words[1::2]))
    clips = {
        f"1001_DFA_{code}_XX": {
            "wav": None,
            "video": f"{{data_root}}/VideoFlash/1001_DFA_{code}_XX.flv",
            "duration": 2.0,
            "spk_id": "1001",
            "emotion": emotion,
        }
        for code, emotion in emotions.items()
    }
    others = {
        path.stem: {
            "wav": None,
            "video": str(path),
            "duration": 3.0,
            "spk_id": "01",
            "emotion": "neutral",
        }
        for path in (real_data / "ravdess_clips").glob("*-01-01-01-01-*.mp4")
    }
    manifests = []
    for split, part in (("train", clips), ("valid", {}), ("test", others)):
        path = tmp_path / f"{split}.json"
        path.write_text(json.dumps(part))
        manifests += [f"--{split}_annotation", path]
    settings = [*SMALL, *ENCODER, "--face_detector", "mtcnn", "--lr", "0.003"]
    settings += ["--detection_rate", "1"]
    run_recipe(
        "CREMA-D",
        *(*settings, *manifests, "--skip_prep", "True"),
        *("--data_folder", mini, "--output_folder", tmp_path / "faces"),
        *("--feature_folder", tmp_path / "features"),
        *("--number_of_epochs", "60"),
    )
    exported = tmp_path / "faces" / "inference"
    model = EmotionRecognizer.from_hparams(exported, trust=True)
    for clip in clips.values():
        path = clip["video"].format(data_root=mini)
        found = model.predict_file(path, modality="visual")
        assert found.label == clip["emotion"]
    for path in sorted((real_data / "ravdess_clips").glob("*.mp4")):
        assert model.predict_file(path).modality == "visual"

    run_recipe(
        "CREMA-D",
        *(*settings, "--data_folder", small_corpus),
        *("--partition", small_corpus / "partition.json"),
        *("--output_folder", tmp_path / "drawn"),
        *("--feature_folder", tmp_path / "features"),
        *("--pretrained_from", exported),
    )
    metrics = json.loads((tmp_path / "drawn" / "metrics.json").read_text())
    assert all(metrics["n_test"][head] for head in ("audio", "visual"))
