"""The processes that torchrun starts for one run, seen from each of them.

Within SpeechBrain's ``run_on_main`` and in a program of one process all of
this is that of a single process.
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
    """How many processes work together; 1 for a program of one process."""
    return 1 if ddp_prevent_block() else torch.distributed.get_world_size()


def rank() -> int:
    """Which of the processes this one is, from 0, the main process, on."""
    return 0 if ddp_prevent_block() else torch.distributed.get_rank()


def gather(value: Any) -> list:
    """What every process has, by rank; all processes must call it.

    A value can be pickled; tensors should be on the CPU.
    """
    if count() == 1:
        return [value]
    values = [None] * count()
    torch.distributed.all_gather_object(values, value)
    return values


def first_to_fail() -> bool:
    """Whether this process is the first of the run that fails.

    When one process ends, the others fail in what they wait for. So that a user
    reads one line and not one from each, only the first speaks.
    """
    if "RANK" not in os.environ and not is_distributed_initialized():
        return True
    try:
        # torchrun itself keeps the store: it is there before the processes
        # have joined, and outlives them.
        store, *_ = next(torch.distributed.rendezvous("env://", timeout=WAIT))
        return store.add(FAILURES, 1) == 1
    except (RuntimeError, ValueError):
        return True  # A line too many is better than none.


def is_lost_peer(error: BaseException) -> bool:
    """Whether a collective operation's error says that a process is gone."""
    if not is_distributed_initialized():
        return False
    # NCCL has a class of its own, gloo only the name of its source file.
    return isinstance(error, torch.distributed.DistError) or (
        "gloo" in str(error)
    )
