"""Checkpoints that are whole or not there, and checked before they are used.

SpeechBrain's Checkpointer writes a checkpoint file by file into its final
folder, and loads the newest folder that has a meta file. A process that is
killed in between leaves a part of a checkpoint that looks like one.
"""

import contextlib
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from speechbrain.utils.checkpoints import CKPT_PREFIX, Checkpoint, Checkpointer
from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
    run_on_main,
)

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json, unwritable, write_json
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

CHECKSUMS = "checksums.json"
PARTIAL = "partial+"
DAMAGED = "damaged+"


class CheckedCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, safe against kills and damaged files.

    A checkpoint is written into a folder of another name, which becomes
    ``CKPT+...`` in one step when all is in it, with the checksums of its files
    beside them. Before a checkpoint is loaded all are checked: one that was
    cut short or changed is told of in one line and set aside as
    ``damaged+CKPT+...``, and the next best takes its place. So that there is
    one, the checkpoint before the newest is kept too.

    Arguments
    ---------
    checkpoints_dir : str or Path
        Made if missing; VAVLError, in one line, if it cannot be.
    *args, **kwargs
        As for ``speechbrain.utils.checkpoints.Checkpointer``.

    Example
    -------
    >>> import torch
    >>> net = torch.nn.Linear(1, 1)
    >>> saver = CheckedCheckpointer(getfixture("tmp_path"), {"net": net})
    >>> first = saver.save_checkpoint(meta={"epoch": 1})
    >>> second = saver.save_checkpoint(meta={"epoch": 2})
    >>> _ = second.paramfiles["net"].write_bytes(b"cut short")
    >>> saver.recover_if_possible().meta["epoch"]
    1
    """

    def __init__(self, checkpoints_dir: str | Path, *args, **kwargs):
        # While the hparams file loads, before the run has its folder.
        try:
            super().__init__(checkpoints_dir, *args, **kwargs)
        except OSError as error:
            raise unwritable(checkpoints_dir, error.strerror) from None

    def save_checkpoint(
        self,
        meta: dict = {},
        end_of_epoch: bool = True,
        name: str | None = None,
        verbosity: int = logging.INFO,
    ) -> Checkpoint | None:
        """Saves a checkpoint, whole or not at all; arguments as in SpeechBrain.

        None in other processes than the main one. VAVLError, in one line: it cannot
        be written, as on a full disk.
        """
        with self._refused_in_one_line():
            checkpoint = super().save_checkpoint(
                meta, end_of_epoch, name, logging.DEBUG
            )
            if checkpoint is not None:
                checkpoint = self._publish(checkpoint)
        # All must see the same checkpoints when they choose which to delete.
        ddp_barrier()
        if checkpoint is not None:
            logger.log(verbosity, "Saved a checkpoint in %s", checkpoint.path)
        return checkpoint

    def save_and_keep_only(
        self,
        *args,
        importance_keys: Iterable[Callable] = (),
        ckpt_predicate: Callable | None = None,
        **kwargs,
    ) -> None:
        """Saves a checkpoint and deletes others, but not the one before it.

        Arguments as in SpeechBrain. Where ``ckpt_predicate`` is given, the one
        before is not kept.
        """
        keys = list(importance_keys)
        if ckpt_predicate is None:
            before = self.find_checkpoint()
            ddp_barrier()  # The main process adds none before all have looked.
            if before is not None:
                keys.append(lambda checkpoint: checkpoint.path == before.path)
        super().save_and_keep_only(
            *args,
            importance_keys=keys,
            ckpt_predicate=ckpt_predicate,
            **kwargs,
        )

    def recover_if_possible(self, *args, **kwargs) -> Checkpoint | None:
        """Loads the checkpoint that is asked for, of those that are sound.

        Arguments as in SpeechBrain: by default the newest. None if there is none.
        """
        # A folder is set aside by one process, and looked at by all after.
        faults: dict[Path, str] = {}
        run_on_main(lambda: faults.update(self._clear()))
        found = super().recover_if_possible(*args, **kwargs)
        used = "there is none before it" if found is None else found.path.name
        for path, fault in faults.items():
            logger.warning(
                "%s: %s; not used, kept as %s%s; in its place: %s",
                *(path, fault, DAMAGED, path.name, used),
            )
        return found

    def _clear(self) -> dict[Path, str]:
        """Removes parts of checkpoints, and sets those aside that are damaged
        or half deleted; gives what is wrong with each of these."""
        faults = {}
        for path in sorted(self.checkpoints_dir.iterdir()):
            if path.name.startswith(PARTIAL):
                shutil.rmtree(path)
                logger.warning(
                    "%s: half written when a run was stopped; removed", path
                )
            elif path.name.startswith(CKPT_PREFIX) and _fault(path):
                faults[path] = _fault(path)
                aside = path.with_name(DAMAGED + path.name)
                shutil.rmtree(aside, ignore_errors=True)
                os.rename(path, aside)
        return faults

    def _publish(self, checkpoint: Checkpoint) -> Checkpoint:
        """Gives a checkpoint that is whole its checksums and its real name."""
        files = sorted(checkpoint.path.iterdir())
        write_json(
            checkpoint.path / CHECKSUMS,
            {path.name: _checksum(path) for path in files},
        )
        name = checkpoint.path.name.removeprefix(PARTIAL)
        final = checkpoint.path.with_name(name)
        if final.exists():
            shutil.rmtree(final)
        os.rename(checkpoint.path, final)
        paramfiles = {
            name: final / path.name
            for name, path in checkpoint.paramfiles.items()
        }
        return Checkpoint(final, checkpoint.meta, paramfiles)

    def _new_checkpoint_dirpath(self):
        """A folder that no one takes for a checkpoint yet."""
        path = super()._new_checkpoint_dirpath()
        return path.with_name(PARTIAL + path.name)

    def _custom_checkpoint_dirpath(self, name):
        """As :meth:`_new_checkpoint_dirpath`, for a given name."""
        path = super()._custom_checkpoint_dirpath(name)
        return path.with_name(PARTIAL + path.name)

    @contextlib.contextmanager
    def _refused_in_one_line(self) -> Iterator[None]:
        """Removes what a failed save leaves; a full disk is one line."""
        try:
            yield
        except BaseException as error:
            if if_main_process():
                for path in self.checkpoints_dir.glob(f"{PARTIAL}*"):
                    shutil.rmtree(path, ignore_errors=True)
            # torch has no class of its own for errors of the disk.
            words = ("PytorchStreamWriter", "inline_container", "iostream")
            of_torch = isinstance(error, RuntimeError) and any(
                word in str(error) for word in words
            )
            # A VAVLError here comes from write_json: of one file only.
            if not (of_torch or isinstance(error, OSError | VAVLError)):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise VAVLError(
                f"{self.checkpoints_dir}: the checkpoint cannot be written "
                f"({' '.join(reason.split())[:120]}); free space there, then "
                "run the same command again: it goes on from the checkpoint "
                "before"
            ) from None


def _checksum(path: Path) -> list[int]:
    """Size and CRC-32 of a file."""
    size, value = 0, 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            size, value = size + len(piece), zlib.crc32(piece, value)
    return [size, value]


def _fault(folder: Path) -> str:
    """What is wrong with a checkpoint; "" for nothing."""
    try:
        recorded = dict(read_json(folder / CHECKSUMS))
    except (OSError, ValueError, TypeError):
        return f"{CHECKSUMS} is missing or damaged"
    for name, expected in recorded.items():
        try:
            found = _checksum(folder / name)
        except (OSError, ValueError) as error:
            return f"{name} cannot be read ({error})"
        if found != expected:
            return f"{name} is not as {CHECKSUMS} has it"
    return ""
