"""Checkpoints that are whole or not there, and checked before they are used.

SpeechBrain's Checkpointer writes a checkpoint file by file into its final
folder, and loads the newest folder that has a meta file. A process that is
killed in between leaves a part of a checkpoint that looks like one.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import json
import logging
import os
import shutil
import zlib

import yaml
from speechbrain.utils.checkpoints import (
    CKPT_PREFIX,
    METAFNAME,
    Checkpoint,
    Checkpointer,
)
from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
    run_on_main,
)

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json, write_json
from vavl_sb.utils.lock import unwritable
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

CHECKSUMS = "checksums.json"
# In the meta file: that there are checksums beside it, however it looks now.
MARK = "has_checksums"
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

    def __init__(self, checkpoints_dir, *args, **kwargs):
        # While the hparams file loads, before the run has its folder.
        try:
            super().__init__(checkpoints_dir, *args, **kwargs)
        except OSError as error:
            raise unwritable(checkpoints_dir, error) from None

    def save_checkpoint(
        self, meta={}, end_of_epoch=True, name=None, verbosity=logging.INFO
    ):
        """Saves a checkpoint, whole or not at all.

        Arguments
        ---------
        meta : mapping
            Added to the meta file.
        end_of_epoch : bool
            Whether the checkpoint is at the end of an epoch.
        name : str
            Instead of a name made from the time.
        verbosity : int
            Logging level of the line that tells of it.

        Returns
        -------
        Checkpoint
            None in other processes than the main one.

        Raises
        ------
        VAVLError
            In one line: it cannot be written, as on a full disk.
        """
        with self._refused_in_one_line():
            checkpoint = super().save_checkpoint(
                {**meta, MARK: True}, end_of_epoch, name, logging.DEBUG
            )
            whole = None
            if checkpoint is not None:
                _write_checksums(checkpoint.path)
                whole = self._publish(checkpoint)
        # All must see the same checkpoints when they choose which to delete.
        ddp_barrier()
        if whole is None:
            return None
        logger.log(verbosity, "Saved a checkpoint in %s", whole.path)
        return whole

    def save_and_keep_only(
        self, *args, importance_keys=(), ckpt_predicate=None, **kwargs
    ):
        """Saves a checkpoint and deletes others, but not the one before it.

        Arguments
        ---------
        *args, **kwargs
            As in SpeechBrain.
        importance_keys : iterable of callable
            Each keeps its best checkpoints.
        ckpt_predicate : callable
            Which checkpoints may be deleted. Where it is given, the one before
            is not kept.
        """
        keys = list(importance_keys)
        if ckpt_predicate is None:
            before = self.find_checkpoint()
            ddp_barrier()  # The main process adds none before all have looked.

            def is_before(checkpoint):
                return before is not None and checkpoint.path == before.path

            keys.append(is_before)
        super().save_and_keep_only(
            *args,
            importance_keys=keys,
            ckpt_predicate=ckpt_predicate,
            **kwargs,
        )

    def recover_if_possible(self, *args, **kwargs):
        """Loads the checkpoint that is asked for, of those that are sound.

        Arguments
        ---------
        *args, **kwargs
            As in SpeechBrain: by default the newest.

        Returns
        -------
        Checkpoint
            None if there is none.
        """
        # A folder is set aside by one process, and looked at by all after.
        faults = {}
        run_on_main(lambda: faults.update(self._clear()))
        found = super().recover_if_possible(*args, **kwargs)
        used = "there is none before it" if found is None else found.path.name
        for path, fault in faults.items():
            logger.warning(
                "%s: %s; not used, kept as %s%s; in its place: %s",
                *(path, fault, DAMAGED, path.name, used),
            )
        return found

    def _clear(self):
        """Removes halves of checkpoints, and sets damaged ones aside.

        Returns
        -------
        dict
            Path of each damaged one to what is wrong with it.
        """
        faults = {}
        for path in sorted(self.checkpoints_dir.iterdir()):
            if not path.is_dir():
                continue
            if path.name.startswith(PARTIAL) or _is_half_deleted(path):
                shutil.rmtree(path)
                logger.warning(
                    "%s: half written or half deleted when a run was stopped; "
                    "removed, and not used",
                    path,
                )
            elif path.name.startswith(CKPT_PREFIX):
                fault = _fault(path)
                if fault:
                    self._set_aside(path)
                    faults[path] = fault
                elif not (path / CHECKSUMS).exists():
                    logger.warning(
                        "%s: has no %s, as from an older version; used "
                        "unchecked",
                        *(path, CHECKSUMS),
                    )
        return faults

    @staticmethod
    def _set_aside(path):
        """Gives a damaged checkpoint a name that nobody looks for."""
        aside = path.with_name(DAMAGED + path.name)
        if aside.exists():
            shutil.rmtree(aside)
        os.rename(path, aside)

    def _publish(self, checkpoint):
        """Gives a checkpoint that is whole its real name."""
        name = checkpoint.path.name[len(PARTIAL) :]
        final = checkpoint.path.with_name(name)
        if final.exists():
            shutil.rmtree(final)
        os.rename(checkpoint.path, final)
        files = {
            name: final / path.name
            for name, path in checkpoint.paramfiles.items()
        }
        return Checkpoint(final, checkpoint.meta, files)

    def _new_checkpoint_dirpath(self):
        """A folder that no one takes for a checkpoint yet."""
        path = super()._new_checkpoint_dirpath()
        return path.with_name(PARTIAL + path.name)

    def _custom_checkpoint_dirpath(self, name):
        """As :meth:`_new_checkpoint_dirpath`, for a given name."""
        path = super()._custom_checkpoint_dirpath(name)
        return path.with_name(PARTIAL + path.name)

    @contextlib.contextmanager
    def _refused_in_one_line(self):
        """Removes what a failed save leaves; a full disk is one line."""
        try:
            yield
        except BaseException as error:
            if if_main_process():
                for path in self.checkpoints_dir.glob(f"{PARTIAL}*"):
                    shutil.rmtree(path, ignore_errors=True)
            if not _cannot_write(error):
                raise
            raise VAVLError(
                f"{self.checkpoints_dir}: the checkpoint cannot be written "
                f"({_reason(error)}); free space there, then run the same "
                "command again: it goes on from the checkpoint before"
            ) from None


def _cannot_write(error):
    """Whether an error is of the disk; torch has no class for it."""
    if isinstance(error, RuntimeError):
        return any(
            word in str(error)
            for word in ("PytorchStreamWriter", "inline_container", "iostream")
        )
    # A VAVLError here comes from write_json, which speaks of one file only.
    return isinstance(error, OSError | VAVLError)


def _reason(error):
    """The cause of a failed write, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return " ".join(str(error).split())[:120]


def _checksum(path):
    """Size and CRC-32 of a file."""
    size, value = 0, 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            size, value = size + len(piece), zlib.crc32(piece, value)
    return [size, value]


def _write_checksums(folder):
    """Writes those of all files in a checkpoint's folder beside them."""
    files = {path.name: _checksum(path) for path in sorted(folder.iterdir())}
    write_json(folder / CHECKSUMS, {"files": files, "all": _digest(files)})


def _read_checksums(folder):
    """What was recorded; None where that is missing or damaged."""
    try:
        recorded = read_json(folder / CHECKSUMS)
        sound = recorded["all"] == _digest(recorded["files"])
        return recorded["files"] if sound else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(files):
    """The checksum of checksums."""
    return zlib.crc32(json.dumps(files, sort_keys=True).encode())


def _is_half_deleted(folder):
    """Whether a checkpoint's folder lacks files that it once had."""
    if not folder.name.startswith(CKPT_PREFIX):
        return False
    recorded = _read_checksums(folder) or {METAFNAME: None}
    if _read_meta(folder).get(MARK):
        recorded = {**recorded, CHECKSUMS: None}
    return not all((folder / name).is_file() for name in recorded)


def _read_meta(folder):
    """What the meta file tells; {} where that cannot be read."""
    try:
        found = yaml.safe_load((folder / METAFNAME).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        found = None
    return found if isinstance(found, dict) else {}


def _fault(folder):
    """What is wrong with a checkpoint; "" for nothing, or nothing known."""
    if not (folder / CHECKSUMS).exists():
        return "" if _read_meta(folder) else f"{METAFNAME} is damaged"
    recorded = _read_checksums(folder)
    if recorded is None:
        return f"{CHECKSUMS} is damaged"
    for name, expected in recorded.items():
        try:
            size, value = _checksum(folder / name)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if [size, value] != expected:
            short = f"has {size} bytes" if size != expected[0] else "is changed"
            return f"{name} {short}"
    return ""
