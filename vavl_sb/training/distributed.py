"""Several processes that train one network as one process would.

Of each batch every process has a share of the rows. A loss is that of all rows
together: each process gathers the others' predictions and computes the same
number from the same rows, but gradients flow to its own rows alone. The sum of
all processes' gradients is therefore the gradient of one process with the
whole batch, for any loss: also where the processes hold different numbers of
rows that have a modality, and for a concordance, which is no mean over rows.
It also follows that all agree on whether a loss is finite, and on whether an
update has rows at all.

So networks are not wrapped in PyTorch's DistributedDataParallel, which takes
the mean of losses that each process has for itself, and waits for gradients
that an update does not have.
"""

from collections.abc import Iterable, Sequence

import torch
from speechbrain.utils.distributed import ddp_init_group
from speechbrain.utils.run_opts import RunOptions
from torch import distributed

from vavl_sb.utils import distributed as processes
from vavl_sb.utils.errors import VAVLError


def join_processes(run_opts: dict | RunOptions) -> None:
    """Joins the processes that torchrun has started; else does nothing.

    VAVLError: there are more processes than GPUs, or the backend is unknown.
    """
    try:
        ddp_init_group(run_opts)
    except ValueError as error:
        raise VAVLError(
            f"torchrun: {str(error).splitlines()[-1]} Start one process for "
            "each GPU, or add --device=cpu --distributed_backend=gloo"
        ) from None


def select_rows(
    x: torch.Tensor | None, rows: torch.Tensor, width: int
) -> torch.Tensor:
    """Rows (N, width) of a network's output (B, width), by a bool mask (B,).

    N may be 0, as where there is no output: another process may have some.

    Example
    -------
    >>> select_rows(None, torch.tensor([False, False]), 3).shape
    torch.Size([0, 3])
    """
    if x is None:
        return torch.zeros(0, width, device=rows.device)
    return x[rows]


def gather_rows(tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Rows of all processes, of which only the own ones have gradients.

    Of some tensors (N, ...) with one number of rows N, which may be 0 and
    differ between processes: (sum of N, ...) each, in the order of the
    processes; floats are float32, or float64 where they were. A single process
    gets its tensors as they are.
    """
    if processes.count() == 1:
        return tensors
    own = tensors[0].new_tensor([len(tensors[0])], dtype=torch.int64)
    counts = [torch.empty_like(own) for _ in range(processes.count())]
    distributed.all_gather(counts, own)
    counts = [int(count) for count in counts]
    return [_gather(tensor, counts) for tensor in tensors]


def _gather(own, counts):
    """One tensor's rows of all processes."""
    if own.is_floating_point():
        # Mixed precision may differ from one process to another.
        own = own.to(torch.promote_types(own.dtype, torch.float32))
    padded = own.new_zeros(max(counts), *own.shape[1:])
    padded[: len(own)] = own.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded)
    parts = [part[:count] for part, count in zip(parts, counts)]
    parts[processes.rank()] = own
    return torch.cat(parts)


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Adds up the gradients of all processes; for one it does nothing.

    The parameters are the same in all. What has a gradient in no process keeps
    None, which an optimizer skips.
    """
    if processes.count() == 1:
        return
    parameters = [p for p in parameters if p.requires_grad]
    used = torch.tensor(
        [p.grad is not None for p in parameters],
        dtype=torch.int32,
        device=parameters[0].device,
    )
    distributed.all_reduce(used, op=distributed.ReduceOp.MAX)
    moved = [p for p, found in zip(parameters, used.tolist()) if found]
    if not moved:
        return
    flat = torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1)
            for p in moved
        ]
    )
    distributed.all_reduce(flat)
    parts = flat.split([p.numel() for p in moved])
    for parameter, part in zip(moved, parts):
        parameter.grad = part.view_as(parameter)


def share_weights(modules: torch.nn.Module) -> None:
    """All processes start from the main one's weights, with own dropout."""
    if processes.count() == 1:
        return
    with torch.no_grad():
        for tensor in [*modules.parameters(), *modules.buffers()]:
            distributed.broadcast(tensor, src=0)
    if processes.rank() > 0:
        torch.manual_seed(torch.initial_seed() + processes.rank())


def merge_scores(stats: dict, loss_sums: dict, loss: float) -> float:
    """What one process would have collected over a whole set, in place.

    ``stats`` has by head what this process collected, and afterwards every clip
    of all processes once, in the order of ids; ``loss_sums`` has name to sum
    and count of losses. Gives the average loss of all, by their clips, from
    this process's.
    """
    if processes.count() == 1:
        return loss
    sums = {name: (float(total), n) for name, (total, n) in loss_sums.items()}
    clips = {id for collected in stats.values() for id in collected.ids}
    rows = {name: _rows_by_clip(collected) for name, collected in stats.items()}
    found = processes.gather((len(clips), float(loss), sums, rows))
    loss_sums.clear()
    for _, _, sums, _ in found:
        for name, (total, n) in sums.items():
            old_total, old_n = loss_sums.get(name, (0.0, 0))
            loss_sums[name] = (old_total + total, old_n + n)
    for name, collected in stats.items():
        rows = {}
        for *_, others in found:
            rows.update(others[name])
        collected.clear()
        if rows:
            ids = sorted(rows)
            collected.append(
                ids, *(torch.stack(x) for x in zip(*(rows[id] for id in ids)))
            )
    scored = sum(clips for clips, *_ in found)
    return sum(clips * loss for clips, loss, *_ in found) / max(scored, 1)


def _rows_by_clip(collected):
    """Clip id to its prediction and its target."""
    if len(collected) == 0:
        return {}
    predictions = torch.cat(collected.predictions)
    targets = torch.cat(collected.targets)
    return dict(zip(collected.ids, zip(predictions, targets)))
