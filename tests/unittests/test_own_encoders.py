"""Encoders of a user's own that lack what cache and export need."""

import pytest
import torch
from light_model import LABELS
from small_models import export_small, light_extractor

from vavl_sb.lobes.feature_encoder import FeatureEncoder
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


class Wrong(Told):
    """Its export names an argument that there is none of."""

    def export(self, folder):
        return {"size": self.parts}


def export(encoder, folder):
    export_small(folder, LABELS[:2], light_extractor(visual=encoder))


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
