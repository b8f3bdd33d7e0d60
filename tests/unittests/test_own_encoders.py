"""Encoders of a user's own that lack what cache and export need."""

import pytest
import torch
from light_model import LABELS

from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.feature_encoder import FeatureEncoder
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.training.export import export_model
from vavl_sb.utils.errors import EncoderError


class Mean(FeatureEncoder):
    """Mean colour of `parts` rows of a face, through a layer with weights."""

    def __init__(self, parts=1, seed=0):
        super().__init__()
        self.parts, self.seed = parts, seed
        self.output_dim = 3 * parts
        torch.manual_seed(seed)
        self.layer = torch.nn.Linear(3 * parts, 3 * parts)
        self.set_freeze(True)

    def forward(self, crops):
        small = torch.nn.functional.adaptive_avg_pool2d(
            crops / 255.0, (self.parts, 1)
        )
        return self.layer(small.flatten(1))


class Told(Mean):
    """Gives its settings, but exports nothing."""

    def settings(self):
        return {"parts": self.parts}


class Exported(Told):
    """Its export makes it anew."""

    def export(self, folder):
        return {"parts": self.parts, "seed": self.seed}


class Wrong(Told):
    """Its export names an argument that there is none of."""

    def export(self, folder):
        return {"size": self.parts}


def export(encoder, folder):
    export_model(
        folder,
        VAVL(80, encoder.output_dim, 2, d_model=16, shared_layers=1),
        FeatureExtractor(AudioEncoder("logmel"), encoder, FaceTracker(None)),
        task="classification",
        labels=LABELS[:2],
        corpus="none",
        attribute_range=None,
    )


def test_an_encoder_must_give_its_settings():
    with pytest.raises(NotImplementedError, match="Mean.settings"):
        Mean().fingerprint()
    assert Told(1).fingerprint() != Told(2).fingerprint()


@pytest.mark.parametrize(
    "encoder, words",
    [
        (Told(seed=1), "settings or weights"),  # Weights that are not written.
        (Told(parts=2), "settings or weights"),
        (Wrong(), "TypeError.*size"),
    ],
    ids=["weights", "argument", "unknown argument"],
)
def test_an_encoder_that_does_not_come_back_is_not_exported(
    encoder, words, tmp_path
):
    with pytest.raises(EncoderError, match=words) as error:
        export(encoder, tmp_path / "inference")
    line = str(error.value)
    assert type(encoder).__qualname__ in line and "\n" not in line
    assert not (tmp_path / "inference").exists()


def test_one_that_comes_back_is_exported(tmp_path):
    export(Exported(parts=2, seed=5), tmp_path / "inference")
    assert (tmp_path / "inference" / "model.json").is_file()
