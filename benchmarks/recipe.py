"""The recipe's VAVLBrain around a network, as recipes/CREMA-D/train.py has it."""

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
    """A brain for classes, with the recipe's optimizer and losses.

    Arguments
    ---------
    net : vavl_sb.lobes.vavl.VAVL
        What it trains.
    labels : list of str
        Its classes.
    folder : str
        For what it writes.
    device : str
        Where.
    schedule : str
        "sequential" or "joint".

    Returns
    -------
    VAVLBrain
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
