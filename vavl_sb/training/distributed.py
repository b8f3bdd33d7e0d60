"""Training in several processes, with the gradients of a single process.

Each process has a share of a batch's rows. It gathers the predictions of all
processes and computes the loss of the whole batch, but gradients flow through
its own rows only. The sum of all processes' gradients is therefore the gradient
of a single process, for any loss: also if the processes have different numbers
of rows with a modality, and for concordance, which is not a mean over rows. All
processes also agree on whether a loss is finite, and on whether an update has
any rows.

PyTorch's DistributedDataParallel is not used: it averages the losses of the
processes, and waits for gradients of parameters that an update does not use.
"""

from collections.abc import Iterable, Sequence

import torch
from speechbrain.utils.distributed import ddp_init_group
from speechbrain.utils.run_opts import RunOptions
from torch import distributed

from vavl_sb.utils import distributed as processes
from vavl_sb.utils.errors import VAVLError


def join_processes(run_opts: dict | RunOptions) -> None:
    """Joins the process group if torchrun started this process.

    Raises a VAVLError if there are more processes than GPUs, or the backend is
    unknown.
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
    """Selects rows (N, width) of a network's output (B, width) by a bool mask
    (B,); none if the output is None, since other processes may have rows.

    Example
    -------
    >>> select_rows(None, torch.tensor([False, False]), 3).shape
    torch.Size([0, 3])
    """
    if x is None:
        return torch.zeros(0, width, device=rows.device)
    return x[rows]


def gather_rows(tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Gathers the rows of all processes; only this process's have gradients.

    Takes tensors (N, ...) with the same N, which may be 0 and differ between
    processes. Returns tensors (sum of N, ...) in the order of the processes,
    with half precision converted to float32. A single process gets its tensors
    back.
    """
    if processes.count() == 1:
        return tensors
    own = tensors[0].new_tensor([len(tensors[0])], dtype=torch.int64)
    counts = [torch.empty_like(own) for _ in range(processes.count())]
    distributed.all_gather(counts, own)
    counts = [int(count) for count in counts]
    return [_gather(tensor, counts) for tensor in tensors]


def _gather(own, counts):
    """Gathers the rows of one tensor from all processes."""
    if own.is_floating_point():
        # With mixed precision, dtypes may differ between processes.
        own = own.to(torch.promote_types(own.dtype, torch.float32))
    padded = own.new_zeros(max(counts), *own.shape[1:])
    padded[: len(own)] = own.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded)
    parts = [part[:count] for part, count in zip(parts, counts)]
    parts[processes.rank()] = own
    return torch.cat(parts)


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Sums the gradients of all processes; no effect in a single process.

    The parameters must be the same in all. A parameter without a gradient in
    any process keeps None, so that the optimizer skips it.
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
    parameters = [p for p, has in zip(parameters, used.tolist()) if has]
    if not parameters:
        return
    flat = torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1)
            for p in parameters
        ]
    )
    distributed.all_reduce(flat)
    parts = flat.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts):
        parameter.grad = part.view_as(parameter)


def share_weights(modules: torch.nn.Module) -> None:
    """Broadcasts the main process's weights; gives each process its own dropout
    seed."""
    if processes.count() == 1:
        return
    with torch.no_grad():
        for tensor in [*modules.parameters(), *modules.buffers()]:
            distributed.broadcast(tensor, src=0)
    if processes.rank() > 0:
        torch.manual_seed(torch.initial_seed() + processes.rank())


def merge_scores(stats: dict, loss_sums: dict, loss: float) -> float:
    """Merges the metrics and losses of all processes, in place.

    ``stats`` maps heads to metrics, which afterwards contain every clip once,
    sorted by id; ``loss_sums`` maps names to sum and count of a loss. Returns
    the average of the processes' ``loss``, weighted by their clips.
    """
    if processes.count() == 1:
        return loss
    sums = {name: (float(total), n) for name, (total, n) in loss_sums.items()}
    clips = {id for collected in stats.values() for id in collected.ids}
    rows = {name: _rows_by_clip(collected) for name, collected in stats.items()}
    gathered = processes.gather((len(clips), float(loss), sums, rows))
    loss_sums.clear()
    for _, _, sums, _ in gathered:
        for name, (total, n) in sums.items():
            old_total, old_n = loss_sums.get(name, (0.0, 0))
            loss_sums[name] = (old_total + total, old_n + n)
    for name, collected in stats.items():
        rows = {}
        for *_, process_rows in gathered:
            rows.update(process_rows[name])
        collected.clear()
        if rows:
            ids = sorted(rows)
            collected.append(
                ids, *(torch.stack(x) for x in zip(*(rows[id] for id in ids)))
            )
    total = sum(clips for clips, *_ in gathered)
    return sum(clips * loss for clips, loss, *_ in gathered) / max(total, 1)


def _rows_by_clip(collected):
    """Maps each clip id to its prediction and target."""
    if len(collected) == 0:
        return {}
    predictions = torch.cat(collected.predictions)
    targets = torch.cat(collected.targets)
    return dict(zip(collected.ids, zip(predictions, targets)))
