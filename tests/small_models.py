"""Small models with random weights, exported as a run exports them."""

import torch

from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.lobes.visual_encoder import VisualEncoder
from vavl_sb.training.export import export_model


def light_extractor(audio=None, visual=None, **options):
    """With encoders that need no download, and no search for faces."""
    return FeatureExtractor(
        audio or AudioEncoder("logmel"),
        visual or VisualEncoder(None),
        FaceTracker(None, size=64),
        **options,
    )


def export_small(folder, labels, extractor=None, net=None, **about):
    """Exports a model; what is not given is small and random."""
    extractor = extractor or light_extractor()
    torch.manual_seed(1)
    net = net or VAVL(
        extractor.dim("audio"),
        extractor.dim("visual"),
        len(labels),
        d_model=16,
        encoder_layers=1,
        shared_layers=1,
    )
    plain = {"task": "classification", "corpus": "none"}
    about = {**plain, "attribute_range": None, "labels": labels, **about}
    export_model(folder, net, extractor, **about)
    return folder


def sharpen(net):
    """Larger weights of the heads, so that these differ clearly."""
    with torch.no_grad():
        for name, weights in net.named_parameters():
            if "head" in name and name.endswith("weight"):
                weights.mul_(4)
    return net
