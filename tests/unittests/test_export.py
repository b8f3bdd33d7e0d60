"""What an export holds, and what it leaves out."""

import pytest
import torch
from safetensors.torch import load_file
from small_clips import save_efficientnet
from small_models import export_small, light_extractor
from test_inference import sweep

from vavl_sb.inference import EmotionRecognizer
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.visual_encoder import VisualEncoder
from vavl_sb.training.model_card import describe
from vavl_sb.utils.errors import MediaError


def export(folder, speech, face, heads):
    """An export of a small network with random weights."""
    extractor = light_extractor(AudioEncoder(speech), VisualEncoder(face))
    names = {"encoder_names": {"audio": "speech", "visual": "imagenet"}}
    about = {"record": names, "trained_heads": heads}
    export_small(folder, ["calm", "tense"], extractor, **about)
    return extractor


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    return save_efficientnet(tmp_path_factory.mktemp("weights"))


def size(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def test_a_model_of_voices_has_no_face_network(tmp_path, face):
    heads = {"voices": ["audio"], "both": ["audio", "visual", "audiovisual"]}
    for name, trained in heads.items():
        export(tmp_path / name, "logmel", face, trained)
    assert size(tmp_path / "both") - size(tmp_path / "voices") > 30e6
    assert size(tmp_path / "voices") < 1e6
    models = {
        (name, trust): EmotionRecognizer.from_hparams(tmp_path / name, trust)
        for name in heads
        for trust in (False, True)
    }
    (first, *others) = (
        model.predict_batch(sweep(2)[None])[0].per_modality["audio"]
        for model in models.values()
    )
    assert all(other == first for other in others)
    crops = torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(MediaError, match="never trained"):
        models["voices", False].predict_batch(crops=crops)
    said = describe(tmp_path / "voices")
    assert "not included" in said["encoders"]["visual"]
    assert "visual" not in said["licences"] and "audio" in said["licences"]


def test_a_speech_encoder_of_half_precision_stays_so(tmp_path, whisper_folder):
    encoder = export(tmp_path / "half", whisper_folder, None, ["audio"])
    path = tmp_path / "half" / "audio_encoder" / "model.safetensors"
    kinds = {tensor.dtype for tensor in load_file(path).values()}
    assert kinds == {torch.float16}
    assert size(tmp_path / "half") < 25e6
    model = EmotionRecognizer.from_hparams(tmp_path / "half")
    again = model.hparams.feature_extractor
    assert again.fingerprint("audio") == encoder.fingerprint("audio")
    # What has learned is no longer of half precision.
    with torch.no_grad():
        for weights in encoder.audio_encoder.parameters():
            weights.mul_(1.001)
    encoder.audio_encoder.export(tmp_path / "learned")
    found = load_file(tmp_path / "learned" / "audio_encoder" / path.name)
    assert torch.float32 in {tensor.dtype for tensor in found.values()}
