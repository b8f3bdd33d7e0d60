"""Losses, skipped updates and the log of a run.

Their state is part of a checkpoint, so that a resumed run writes the same files
as an uninterrupted one.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.train_logger import FileTrainLogger

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json, write_atomically, write_json
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)


@register_checkpoint_hooks
class LossMeters:
    """Average losses of an epoch, and the updates skipped in the whole run.

    ``skipped.json`` in the run's folder lists ``epoch``, ``update``, ``what``
    is not finite, and the batch's ``clips``, for each skipped update. It exists
    only if an update was skipped.

    Example
    -------
    >>> meters = LossMeters(getfixture("tmp_path"))
    >>> meters.start_epoch(1)
    >>> meters.add("audio", torch.tensor(0.5))
    >>> meters.add("audio", torch.tensor(1.5))
    >>> meters.averages()
    {'audio_loss': 1.0}
    >>> meters.skip("audio", "the loss", ["a", "b"], patience=3)
    >>> meters.skipped_in_epoch()
    1
    """

    def __init__(self, folder: str | Path):
        self.report = Path(folder) / "skipped.json"
        self.epoch: int | None = None
        self.sums, self.skipped = {}, []
        self.resumes = False

    def start_epoch(self, epoch: int | None) -> None:
        """Resets the losses, unless the epoch (None for a test) resumes from a
        checkpoint."""
        if not self.resumes:
            self.sums = {}
        self.epoch, self.resumes = epoch, False

    def add(self, name: str, loss: torch.Tensor) -> None:
        """Adds a scalar loss to the average of that name, if it is finite."""
        if torch.isfinite(loss):
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + loss.detach(), count + 1)

    def averages(self) -> dict[str, float]:
        """Returns the averages so far, ``<name>_loss`` to float, sorted."""
        return {
            f"{name}_loss": float(total) / count
            for name, (total, count) in sorted(self.sums.items())
        }

    def skip(
        self, update: str, what: str, clips: Sequence[str], patience: int
    ) -> None:
        """Records a skipped update and its batch's clips.

        Raises a VAVLError with the clips of all skipped updates of the epoch if
        there are more than ``patience``.
        """
        entry = {"epoch": self.epoch, "update": update, "what": what}
        self.skipped.append({**entry, "clips": list(clips)})
        self.write_report()
        here = [s for s in self.skipped if s["epoch"] == self.epoch]
        if len(here) > patience:
            named = dict.fromkeys(clip for s in here for clip in s["clips"])
            raise VAVLError(
                f"{len(here)} updates of epoch {self.epoch} were not finite "
                f"(nonfinite_patience: {patience}), last {what} of the "
                f"{update} update; use a lower lr, or check these clips "
                f"(also in {self.report}): {', '.join(named)}"
            )
        logger.warning(
            "the %s update is skipped, %s is not finite: %s",
            *(update, what, ", ".join(clips)),
        )

    def skipped_in_epoch(self) -> int:
        """Returns the number of updates skipped in this epoch."""
        return sum(s["epoch"] == self.epoch for s in self.skipped)

    def write_report(self) -> None:
        """Writes skipped.json, or removes it if no update was skipped."""
        if not if_main_process():
            return
        if self.skipped:
            write_json(self.report, self.skipped)
        else:
            self.report.unlink(missing_ok=True)

    @mark_as_saver
    def save(self, path: str | Path) -> None:
        """Saves the state in a checkpoint."""
        sums = {name: [float(t), n] for name, (t, n) in self.sums.items()}
        state = {"sums": sums, "skipped": self.skipped}
        Path(path).write_text(json.dumps(state), encoding="utf-8")

    @mark_as_loader
    def load(self, path: str | Path, end_of_epoch: bool) -> None:
        """Loads the state; without ``end_of_epoch`` the epoch's losses are
        kept."""
        state = read_json(path)
        self.skipped = state["skipped"]
        self.sums = {name: tuple(sum) for name, sum in state["sums"].items()}
        self.resumes = not end_of_epoch


class EpochLog(FileTrainLogger):
    """SpeechBrain's FileTrainLogger for runs that are killed and resumed.

    A run killed between an epoch's line and its checkpoint repeats the epoch:
    the new line replaces the old one.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train_log.txt"
    >>> log = EpochLog(str(path))
    >>> for epoch, loss in ((1, 0.5), (2, 0.4), (2, 0.3)):
    ...     log.log_stats({"epoch": epoch}, train_stats={"loss": loss})
    >>> print(path.read_text().strip())
    epoch: 1 - train loss: 5.00e-01
    epoch: 2 - train loss: 3.00e-01
    """

    def log_stats(self, stats_meta: dict, *args, **kwargs) -> None:
        """Writes a line and removes old lines of the same ``epoch`` and later
        ones; see the base class."""
        path, epoch = Path(self.save_file), stats_meta.get("epoch")
        if if_main_process() and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(True)
            kept = [
                line
                for line in lines
                # A killed run may leave half a line.
                if line.endswith("\n") and not _is_from(line, epoch)
            ]
            if kept != lines:
                write_atomically(path, "".join(kept).encode())
        super().log_stats(stats_meta, *args, **kwargs)


def _is_from(line, epoch):
    """Returns whether a line belongs to an epoch or a later one."""
    match = re.match(r"epoch: (\d+)\b", line)
    return epoch is not None and match and int(match.group(1)) >= epoch
