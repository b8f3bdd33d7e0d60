"""How a batch becomes updates: one after the other, or all at once.

The paper's schedule (section 3.3) takes three steps a batch: visual, audio,
then the audio-visual head with all else frozen, in eval mode and without
gradients. So each modality goes through the network twice. The joint schedule
sends it through once: the losses are added, the audio-visual head reads
representations that are cut off from the graph, and one step is taken. Every
loss still moves exactly the parameters that it moves in the paper's schedule;
what differs is that the shared layers take one step where they took two, and
that the audio-visual head learns from representations with dropout.

A batch is shared by all processes that train; what is said of its rows holds
for those of all of them (see :mod:`vavl_sb.training.distributed`).

Authors
 * The vavl_sb authors 2026
"""

import speechbrain as sb
import torch

from vavl_sb.lobes.vavl import VAVLOutput
from vavl_sb.training.loss_meters import gradients_are_finite
from vavl_sb.utils import distributed as processes

UPDATES = ("visual", "audio", "audiovisual")


def sequential(brain, batch):
    """The paper's three updates.

    Arguments
    ---------
    brain : vavl_sb.training.brain.VAVLBrain
        Whose network learns.
    batch : PaddedBatch
        Rows may lack a modality; an update that no row allows is skipped.

    Returns
    -------
    torch.Tensor
        Sum of the updates' losses, detached, on the CPU; NaN where one was
        skipped as not finite.
    """
    total = torch.zeros(())
    for brain.update in UPDATES:
        with brain.training_ctx:
            out = VAVLOutput()
            # Another process may have rows where this one has none.
            if _rows(batch, brain.update).any():
                out = brain.compute_forward(
                    batch, sb.Stage.TRAIN, update=brain.update
                )
            loss = brain.compute_objectives(
                out, batch, sb.Stage.TRAIN, update=brain.update
            )
        if loss is not None:
            total = total + _step(brain, batch, loss, brain.update)
    brain.update = None
    return total


def joint(brain, batch):
    """One update with the sum of the three losses.

    Arguments
    ---------
    brain : vavl_sb.training.brain.VAVLBrain
        Whose network learns.
    batch : PaddedBatch
        Rows may lack a modality; a loss that no row allows is left out.

    Returns
    -------
    torch.Tensor
        Sum of the losses, detached, on the CPU; NaN where the update was
        skipped as not finite.
    """
    with brain.training_ctx:
        out = brain.compute_forward(batch, sb.Stage.TRAIN)
        losses = [
            brain.compute_objectives(out, batch, sb.Stage.TRAIN, update=update)
            for update in UPDATES
        ]
        losses = [loss for loss in losses if loss is not None]
        if not losses:
            return torch.zeros(())
        total = torch.stack(losses).sum()
    return _step(brain, batch, total, "joint")


SCHEDULES = {"sequential": sequential, "joint": joint}


def _rows(batch, update):
    """Which clips have what an update needs, shape (B,)."""
    if update == "audiovisual":
        return batch.has_audio & batch.has_visual
    return getattr(batch, f"has_{update}")


def _step(brain, batch, loss, update):
    """Goes back through a loss and steps, unless the loss is not finite."""
    if not torch.isfinite(loss):
        _skip(brain, batch, update, "the loss")
        return torch.tensor(torch.nan)
    brain.backward(loss)
    # A scaler (fp16) meets infinity often, and skips such steps by itself.
    if not brain.scaler.is_enabled() and not gradients_are_finite(
        brain.modules.parameters()
    ):
        brain.modules.zero_grad(set_to_none=True)
        _skip(brain, batch, update, "a gradient")
        return torch.tensor(torch.nan)
    brain.optimizers_step()
    return loss.detach().cpu()


def _skip(brain, batch, update, what):
    """Names the clips of what is not finite; too many end the run."""
    shares = processes.gather(list(batch.id))
    clips = [id for share in shares for id in share]
    brain.progress.skip(update, what, clips, brain.nonfinite_patience)
