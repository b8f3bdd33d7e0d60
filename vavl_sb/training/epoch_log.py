"""The train log, with each epoch once.

Authors
 * The vavl_sb authors 2026
"""

import re
from pathlib import Path

from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.train_logger import FileTrainLogger

from vavl_sb.utils.files import write_atomically


class EpochLog(FileTrainLogger):
    """SpeechBrain's FileTrainLogger for runs that are stopped and go on.

    A run that is killed after an epoch's line and before its checkpoint trains
    the epoch again: the line of the second time replaces the first.

    Arguments
    ---------
    save_file : str
        The log.
    precision : int
        Digits.

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

    def log_stats(self, stats_meta, *args, **kwargs):
        """Writes a line; see the base class.

        Arguments
        ---------
        stats_meta : dict
            With ``epoch``, earlier lines of that epoch and of later ones go.
        *args, **kwargs
            As in SpeechBrain.
        """
        if if_main_process():
            self._drop(stats_meta.get("epoch"))
        super().log_stats(stats_meta, *args, **kwargs)

    def _drop(self, epoch):
        """Removes half a line, and the lines of epochs from this one on."""
        path = Path(self.save_file)
        try:
            lines = path.read_text(encoding="utf-8").splitlines(True)
        except FileNotFoundError:
            return
        kept = [
            line
            for line in lines
            if line.endswith("\n") and not _is_from(line, epoch)
        ]
        if kept != lines:
            write_atomically(path, "".join(kept).encode())


def _is_from(line, epoch):
    """Whether a line is of an epoch or a later one."""
    found = re.match(r"epoch: (\d+)\b", line)
    return epoch is not None and found and int(found.group(1)) >= epoch
