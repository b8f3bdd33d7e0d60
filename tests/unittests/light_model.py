"""A recognizer with light encoders, for tests of what is around them."""

import json

import torch
from small_models import sharpen

from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.inference import EmotionRecognizer
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.vavl import HEADS, VAVL
from vavl_sb.training.model_file import PARTS

LABELS = ["angry", "happy", "sad"]


class MeanColour(torch.nn.Module):
    """Visual encoder whose features are the mean of each colour."""

    output_dim = 3

    def forward(self, crops):
        return crops.float().mean(dim=(2, 3)) / 64

    def fingerprint(self):
        return "colour"


def write_model_file(folder, metadata=None, **changes):
    """A model.json that is whole, for tests of what only reads it."""
    parts = {
        part: {"class": kind, "arguments": {}}
        for part, (kind, *_) in PARTS.items()
    }
    model = {
        "format": 1,
        "task": "classification",
        "labels": LABELS,
        "corpus": "none",
        "attribute_range": None,
        "trained_heads": list(HEADS),
        "temperatures": {},
        **parts,
        "metadata": metadata or {},
        **changes,
    }
    (folder / "model.json").write_text(json.dumps(model), encoding="utf-8")


def make_model(
    task="classification",
    tracker=None,
    frame_rate=5.0,
    average=1,
    pooling=None,
    **more,
):
    """A recognizer with random weights, whose heads differ clearly."""
    torch.manual_seed(3)
    encoder = FeatureExtractor(
        AudioEncoder("logmel", average=average),
        MeanColour(),
        tracker or FaceTracker(None, size=32),
        frame_rate=frame_rate,
        audio_pooling=pooling,
        visual_pooling=pooling,
    )
    net = VAVL(
        audio_dim=encoder.dim("audio"),
        visual_dim=encoder.dim("visual"),
        num_outputs=len(LABELS),
        d_model=16,
        encoder_layers=1,
        shared_layers=1,
    )
    return EmotionRecognizer(
        modules={"vavl": sharpen(net)},
        hparams={
            "task": task,
            "labels": LABELS,
            "feature_extractor": encoder,
            **more,
        },
    )
