"""Creates the VAVLBrain of recipes/CREMA-D/train.py for a network."""

import functools
import sys
from pathlib import Path

import torch

from vavl_sb.nnet.attribute_scale import AttributeScale
from vavl_sb.nnet.losses import classification_loss
from vavl_sb.utils.metrics import EmotionStats

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "CREMA-D"
sys.path.insert(0, str(RECIPE))
from train import VAVLBrain  # noqa: E402

LR = 5e-5


def make_brain(net, labels, folder, device="cpu", schedule="sequential"):
    """Creates a brain for classification with the recipe's settings.

    Arguments
    ---------
    net : vavl_sb.lobes.vavl.VAVL
        Network to train.
    labels : list of str
        Names of the classes.
    folder : str
        Output folder.
    device : str
        Device of the network.
    schedule : str
        "sequential" or "joint".
    """
    adam = {"lr": LR, "betas": (0.95, 0.999), "weight_decay": 5e-7}
    return VAVLBrain(
        modules={"vavl": net},
        opt_class=functools.partial(torch.optim.Adam, **adam, fused=True),
        hparams={
            "task": "classification",
            "labels": labels,
            "prediction_loss": classification_loss,
            "reconstruction_weight": 2.0,
            "metric": functools.partial(EmotionStats, labels),
            "scale": AttributeScale(),
            "schedule": schedule,
            "max_grad_norm": float("inf"),
            "lr": LR,
            "lr_audio_encoder": LR,
            "lr_annealing": lambda epoch: (LR, LR),
        },
        run_opts={"device": device, "noprogressbar": True},
        output_folder=folder,
    )
