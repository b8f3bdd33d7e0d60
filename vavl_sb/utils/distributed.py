"""Helpers for several processes of one run, started by torchrun.

Within SpeechBrain's ``run_on_main`` they behave as in a single process.
"""

import datetime
import os
from typing import Any

import torch
from speechbrain.utils.distributed import (
    ddp_prevent_block,
    is_distributed_initialized,
)

FAILURES = "vavl_sb failures"
WAIT = datetime.timedelta(seconds=5)


def count() -> int:
    """Returns the number of processes; 1 without torchrun."""
    return 1 if ddp_prevent_block() else torch.distributed.get_world_size()


def rank() -> int:
    """Returns the rank of this process; 0 for the main process."""
    return 0 if ddp_prevent_block() else torch.distributed.get_rank()


def gather(value: Any) -> list:
    """Gathers a value from every process, by rank; all processes must call it.

    The value is pickled; tensors should be on the CPU.
    """
    if count() == 1:
        return [value]
    values = [None] * count()
    torch.distributed.all_gather_object(values, value)
    return values


def first_to_fail() -> bool:
    """Returns whether this process is the first of the run to fail.

    When one process ends, the others fail while they wait for it. Only the
    first logs its error.
    """
    if "RANK" not in os.environ and not is_distributed_initialized():
        return True
    try:
        # The store belongs to torchrun: it exists before the processes join,
        # and after they have ended.
        store, *_ = next(torch.distributed.rendezvous("env://", timeout=WAIT))
        return store.add(FAILURES, 1) == 1
    except (RuntimeError, ValueError):
        return True  # Several messages are better than none.


def is_lost_peer(error: BaseException) -> bool:
    """Returns whether an error of a collective operation means that another
    process has ended."""
    if not is_distributed_initialized():
        return False
    # NCCL has an error class; gloo's errors contain its source file's name.
    return isinstance(error, torch.distributed.DistError) or (
        "gloo" in str(error)
    )
