"""What a run tells of itself while it trains: losses, skipped updates, a log.

All of it goes on where a killed run goes on, so that its files end up the same.
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

    In the run's folder ``skipped.json`` lists ``epoch``, ``update``, ``what``
    is not finite, and the batch's ``clips``, for each skipped update. No update
    skipped, no file.

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
        """Forgets the losses, unless the epoch (None for a stage that is
        none's) goes on from a checkpoint."""
        if not self.resumes:
            self.sums = {}
        self.epoch, self.resumes = epoch, False

    def add(self, name: str, loss: torch.Tensor) -> None:
        """Adds a scalar loss to the average of its name, if it is finite."""
        if torch.isfinite(loss):
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + loss.detach(), count + 1)

    def averages(self) -> dict[str, float]:
        """Averages so far: ``<name>_loss`` to float, sorted by name."""
        return {
            f"{name}_loss": float(total) / count
            for name, (total, count) in sorted(self.sums.items())
        }

    def skip(
        self, update: str, what: str, clips: Sequence[str], patience: int
    ) -> None:
        """Records an update that was skipped, with its batch's clips.

        More than ``patience`` in an epoch are refused: VAVLError, in one line,
        with the clips of all that were skipped in it.
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
                f"{update} update; take a lower lr, or look at these clips "
                f"(also in {self.report}): {', '.join(named)}"
            )
        logger.warning(
            "the %s update is skipped, %s is not finite: %s",
            *(update, what, ", ".join(clips)),
        )

    def skipped_in_epoch(self) -> int:
        """How many updates this epoch has lost."""
        return sum(s["epoch"] == self.epoch for s in self.skipped)

    def write_report(self) -> None:
        """Writes skipped.json as this run has it; removes another's."""
        if not if_main_process():
            return
        if self.skipped:
            write_json(self.report, self.skipped)
        else:
            self.report.unlink(missing_ok=True)

    @mark_as_saver
    def save(self, path: str | Path) -> None:
        """Writes the state to a checkpoint's file."""
        sums = {name: [float(t), n] for name, (t, n) in self.sums.items()}
        state = {"sums": sums, "skipped": self.skipped}
        Path(path).write_text(json.dumps(state), encoding="utf-8")

    @mark_as_loader
    def load(self, path: str | Path, end_of_epoch: bool) -> None:
        """Reads the state; not ``end_of_epoch`` where the epoch goes on."""
        state = read_json(path)
        self.skipped = state["skipped"]
        self.sums = {name: tuple(sum) for name, sum in state["sums"].items()}
        self.resumes = not end_of_epoch


class EpochLog(FileTrainLogger):
    """SpeechBrain's FileTrainLogger for runs that are stopped and go on.

    A run that is killed after an epoch's line and before its checkpoint trains
    the epoch again: the line of the second time replaces the first.

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
        """Writes a line; earlier lines of its ``epoch`` and of later ones go;
        see the base class."""
        path, epoch = Path(self.save_file), stats_meta.get("epoch")
        if if_main_process() and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(True)
            kept = [
                line
                for line in lines
                # Half a line is what a kill has left.
                if line.endswith("\n") and not _is_from(line, epoch)
            ]
            if kept != lines:
                write_atomically(path, "".join(kept).encode())
        super().log_stats(stats_meta, *args, **kwargs)


def _is_from(line, epoch):
    """Whether a line is of an epoch or a later one."""
    found = re.match(r"epoch: (\d+)\b", line)
    return epoch is not None and found and int(found.group(1)) >= epoch
