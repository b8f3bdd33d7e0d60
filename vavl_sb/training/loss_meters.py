"""What a run has to remember of the epoch that it is in.

A checkpoint within an epoch holds it, so that a run that goes on from there
writes the same losses, and counts the same updates that were skipped.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import json
import math
import os
from pathlib import Path

import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import if_main_process
from torch.nn.utils import get_total_norm

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json, write_json
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)


@register_checkpoint_hooks
class Progress:
    """Sums of the epoch's losses, and the updates skipped in the whole run.

    Arguments
    ---------
    folder : str or Path
        Output folder of the run, for ``skipped.json``: a list with ``epoch``,
        ``update``, ``what`` is not finite, and the batch's ``clips``, for each
        skipped update. No update skipped, no file.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> progress = Progress(folder)
    >>> progress.start_epoch(1)
    >>> progress.note("audio", torch.tensor(0.5))
    >>> progress.note("audio", torch.tensor(1.5))
    >>> progress.losses()
    {'audio': 1.0}
    >>> progress.skip("audio", "the loss", ["a", "b"], patience=3)
    >>> progress.skipped_in_epoch()
    1
    >>> [entry["clips"] for entry in json.loads(progress.report.read_text())]
    [['a', 'b']]
    """

    def __init__(self, folder):
        self.report = Path(folder) / "skipped.json"
        self.epoch, self.sums, self.skipped = None, {}, []
        self.goes_on = False

    def start_epoch(self, epoch):
        """Forgets the losses, unless the epoch goes on from a checkpoint.

        Arguments
        ---------
        epoch : int
            The epoch; None for a stage that is none's.
        """
        if not self.goes_on:
            self.sums = {}
        self.epoch, self.goes_on = epoch, False

    def note(self, name, loss):
        """Adds a loss to its average, if it is finite.

        Arguments
        ---------
        name : str
            Of the loss.
        loss : torch.Tensor
            Scalar.
        """
        if not torch.isfinite(loss):
            return
        total, count = self.sums.get(name, (0.0, 0))
        self.sums[name] = (total + loss.detach(), count + 1)

    def losses(self):
        """Averages so far.

        Returns
        -------
        dict
            Name to float, sorted by name.
        """
        return {
            name: float(total) / count
            for name, (total, count) in sorted(self.sums.items())
        }

    def skip(self, update, what, clips, patience):
        """Records an update that was skipped; too many in an epoch are refused.

        Arguments
        ---------
        update : str
            Which update.
        what : str
            What is not finite.
        clips : list of str
            The batch's clips.
        patience : int
            How many an epoch may have.

        Raises
        ------
        VAVLError
            In one line, with the clips of all that were skipped in the epoch.
        """
        self.skipped.append(
            {
                "epoch": self.epoch,
                "update": update,
                "what": what,
                "clips": list(clips),
            }
        )
        self.write_report()
        here = [s for s in self.skipped if s["epoch"] == self.epoch]
        if len(here) > patience:
            named = dict.fromkeys(clip for s in here for clip in s["clips"])
            raise VAVLError(
                f"{len(here)} updates of epoch {self.epoch} were not finite "
                f"(nonfinite_patience: {patience}), last {what} of the "
                f"{update} update; take a lower lr, or look at these clips "
                f"(also in {self.report}): {', '.join(named)}"
            )
        logger.warning(
            "the %s update is skipped, %s is not finite: %s",
            *(update, what, ", ".join(clips)),
        )

    def skipped_in_epoch(self):
        """How many updates this epoch has lost.

        Returns
        -------
        int
        """
        return sum(s["epoch"] == self.epoch for s in self.skipped)

    def write_report(self):
        """Writes skipped.json as this run has it; removes another's."""
        if not if_main_process():
            return
        if self.skipped:
            write_json(self.report, self.skipped)
            return
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.report)

    def tell(self):
        """One line at the end of training, if any update was skipped."""
        if self.skipped:
            epochs = sorted({s["epoch"] for s in self.skipped})
            logger.warning(
                "%d updates were skipped, in epochs %s: see %s",
                *(len(self.skipped), ", ".join(map(str, epochs)), self.report),
            )

    @mark_as_saver
    def save(self, path):
        """Writes the state.

        Arguments
        ---------
        path : str or Path
            The checkpoint's file.
        """
        sums = {name: [float(t), n] for name, (t, n) in self.sums.items()}
        Path(path).write_text(
            json.dumps({"sums": sums, "skipped": self.skipped}),
            encoding="utf-8",
        )

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Reads the state.

        Arguments
        ---------
        path : str or Path
            The checkpoint's file.
        end_of_epoch : bool
            False where the epoch goes on.
        """
        state = read_json(path)
        self.skipped = state["skipped"]
        self.sums = {name: (t, n) for name, (t, n) in state["sums"].items()}
        self.goes_on = not end_of_epoch


def refuse_nonfinite(predictions, clips, modality, precision="fp32"):
    """Refuses to score a network that answers with NaN or infinity.

    Arguments
    ---------
    predictions : torch.Tensor
        Shape (B, n).
    clips : list of str
        The B clips.
    modality : str
        Which head.
    precision : str
        That they were computed in: SpeechBrain's ``eval_precision``.

    Raises
    ------
    VAVLError
        In one line that names the clips.

    Example
    -------
    >>> refuse_nonfinite(torch.ones(2, 3), ["a", "b"], "audio")
    """
    sound = torch.isfinite(predictions).all(dim=-1).tolist()
    if not all(sound):
        bad = [clip for clip, good in zip(clips, sound) if not good]
        reason = (
            "the network has diverged; take a lower lr and a new output_folder"
        )
        if precision != "fp32":
            reason = (
                f"eval_precision {precision} has overflowed, or {reason}; try "
                "--eval_precision fp32 first"
            )
        raise VAVLError(
            f"the {modality} head's answer is not finite: {reason}; seen at: "
            f"{', '.join(bad)}"
        )


def gradients_are_finite(parameters):
    """Whether no gradient holds NaN or infinity.

    Arguments
    ---------
    parameters : iterable of torch.nn.Parameter
        Those without a gradient are passed over.

    Returns
    -------
    bool

    Example
    -------
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> (weight.sum() * float("inf")).backward()
    >>> gradients_are_finite([weight])
    False
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return True
    # The largest magnitude: a sum of squares may overflow where none does.
    return math.isfinite(get_total_norm(gradients, math.inf))
