"""Checkpoints that are saved atomically and verified before they are loaded.

SpeechBrain's Checkpointer writes a checkpoint file by file into its final
folder, and loads the newest folder that has a meta file. If the process is
killed meanwhile, an incomplete checkpoint looks like a complete one.
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

    A checkpoint and the checksums of its files are written into a temporary
    folder, which is renamed to ``CKPT+...`` when complete. Before a checkpoint
    is loaded, all are verified: a truncated or changed one is logged and
    renamed to ``damaged+CKPT+...``, and the next best is loaded. For this
    purpose the checkpoint before the newest is kept, too.

    Arguments
    ---------
    checkpoints_dir : str or Path
        Folder of the checkpoints, created if missing; a VAVLError is raised if
        that fails.
    *args, **kwargs
        Passed to ``speechbrain.utils.checkpoints.Checkpointer``.

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
        # Called while the hparams file loads, before the run has its folder.
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
        """Saves a checkpoint atomically; arguments as in SpeechBrain.

        Returns None except in the main process. Raises a VAVLError if it cannot
        be written, as on a full disk.
        """
        with self._refused_in_one_line():
            checkpoint = super().save_checkpoint(
                meta, end_of_epoch, name, logging.DEBUG
            )
            if checkpoint is not None:
                checkpoint = self._publish(checkpoint)
        # All processes must find the same checkpoints to delete.
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
        """Saves a checkpoint and deletes others, but not the one before it,
        unless ``ckpt_predicate`` is given; arguments as in SpeechBrain."""
        keys = list(importance_keys)
        if ckpt_predicate is None:
            before = self.find_checkpoint()
            ddp_barrier()  # All search before the main process saves.
            if before is not None:
                keys.append(lambda checkpoint: checkpoint.path == before.path)
        super().save_and_keep_only(
            *args,
            importance_keys=keys,
            ckpt_predicate=ckpt_predicate,
            **kwargs,
        )

    def recover_if_possible(self, *args, **kwargs) -> Checkpoint | None:
        """Loads a checkpoint, ignoring damaged ones; arguments as in
        SpeechBrain, by default the newest. Returns None if there is none."""
        # One process renames damaged folders before all search.
        faults: dict[Path, str] = {}
        run_on_main(lambda: faults.update(self._clear()))
        loaded = super().recover_if_possible(*args, **kwargs)
        used = "there is none before it" if loaded is None else loaded.path.name
        for path, fault in faults.items():
            logger.warning(
                "%s: %s; not used, kept as %s%s; in its place: %s",
                *(path, fault, DAMAGED, path.name, used),
            )
        return loaded

    def _clear(self) -> dict[Path, str]:
        """Removes unfinished checkpoints; renames damaged or partly deleted
        ones, and returns their faults."""
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
        """Writes the checksums of a complete checkpoint, and renames it."""
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
        """Returns the path of a temporary folder for a new checkpoint."""
        path = super()._new_checkpoint_dirpath()
        return path.with_name(PARTIAL + path.name)

    def _custom_checkpoint_dirpath(self, name):
        """As :meth:`_new_checkpoint_dirpath`, with a given name."""
        path = super()._custom_checkpoint_dirpath(name)
        return path.with_name(PARTIAL + path.name)

    @contextlib.contextmanager
    def _refused_in_one_line(self) -> Iterator[None]:
        """Removes the files of a failed save; converts disk errors to a
        VAVLError."""
        try:
            yield
        except BaseException as error:
            if if_main_process():
                for path in self.checkpoints_dir.glob(f"{PARTIAL}*"):
                    shutil.rmtree(path, ignore_errors=True)
            # torch has no class for disk errors.
            words = ("PytorchStreamWriter", "inline_container", "iostream")
            of_torch = isinstance(error, RuntimeError) and any(
                word in str(error) for word in words
            )
            # A VAVLError from write_json names one file only.
            if not (of_torch or isinstance(error, OSError | VAVLError)):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise VAVLError(
                f"{self.checkpoints_dir}: the checkpoint cannot be written "
                f"({' '.join(reason.split())[:120]}); free space there, then "
                "run the same command again: it resumes from the previous "
                "checkpoint"
            ) from None


def _checksum(path: Path) -> list[int]:
    """Computes size and CRC-32 of a file."""
    size, value = 0, 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            size, value = size + len(block), zlib.crc32(block, value)
    return [size, value]


def _fault(folder: Path) -> str:
    """Describes the fault of a checkpoint; "" if it is complete."""
    try:
        recorded = dict(read_json(folder / CHECKSUMS))
    except (OSError, ValueError, TypeError):
        return f"{CHECKSUMS} is missing or damaged"
    for name, expected in recorded.items():
        try:
            actual = _checksum(folder / name)
        except (OSError, ValueError) as error:
            return f"{name} cannot be read ({error})"
        if actual != expected:
            return f"{name} is not as {CHECKSUMS} has it"
    return ""
