"""What test_distributed.py starts with torchrun: each process leaves results."""

import contextlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from unittest import mock

import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_barrier

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "unittests")]
import test_brain as light  # noqa: E402
from test_features import CountingEncoder  # noqa: E402

from vavl_sb.dataio.datasets import EmotionBatch  # noqa: E402
from vavl_sb.features.extraction import extract_features  # noqa: E402
from vavl_sb.training.distributed import join_processes  # noqa: E402
from vavl_sb.utils import (  # noqa: E402
    checkpoints,
    distributed as processes,
)
from vavl_sb.utils.errors import VAVLError, exit_on_error  # noqa: E402
from vavl_sb.utils.seeding import RandomState  # noqa: E402

# The rows of one batch; two processes take halves of it.
BATCHES = {
    "uneven": ["av", "a", "v", "a", "av", "av", "v"],
    "one process without faces": ["a", "a", "a", "v", "av", "v"],
    "no faces at all": ["a", "a", "a", "a"],
    "no pair at all": ["a", "a", "v", "v"],
}
CASES = [(name, "classification", "sequential") for name in BATCHES]
CASES += [(name, "regression", "joint") for name in BATCHES]
CLIPS = light.items(["av", "a", "v", "av", "a"] * 2 + ["v"])


def make_brain(folder, task="classification", **changes):
    """A brain without dropout, whose steps are as large as its gradients."""
    brain = light.make_brain(
        Path(folder),
        task,
        net=light.network(dropout=0.0, head_dropout=0.0),
        **changes,
    )
    brain.opt_class = partial(torch.optim.SGD, lr=0.05)
    return brain


def gradients(folder, name, task, schedule):
    """Loss of a batch, gradients of each update, and weights after it."""
    brain = light.ready(make_brain(folder, task, schedule=schedule))
    net, found = brain.modules.vavl, []
    step = brain.optimizers_step

    def record():
        grads = {
            name: None if p.grad is None else p.grad.clone()
            for name, p in net.named_parameters()
        }
        found.append(grads)
        step()

    brain.optimizers_step = record
    clips = list(light.items(BATCHES[name], task).values())
    first = len(clips) * processes.rank() // processes.count()
    last = len(clips) * (processes.rank() + 1) // processes.count()
    loss = brain.fit_batch(EmotionBatch(clips[first:last]))
    return float(loss), found, light.copy(net)


def fit(folder, batch_size):
    """Trains and tests; the weights after each, and the clips of each batch."""
    counter = light.EpochCounter(2)
    brain = make_brain(folder, epoch_counter=counter)
    batches, fit_batch = [], brain.fit_batch

    def record(batch):
        batches.append(list(batch.id))
        return fit_batch(batch)

    brain.fit_batch = record
    data = light.dataset(CLIPS)
    brain.fit(
        counter,
        data,
        data,
        train_loader_kwargs={"batch_size": batch_size, "shuffle": True},
        valid_loader_kwargs={"batch_size": batch_size},
    )
    fitted = light.copy(brain.modules.vavl)
    evaluate(folder, data, batch_size, brain)
    return fitted, light.copy(brain.modules.vavl), batches


def evaluate(folder, data, batch_size=2, brain=None):
    """Tests the best checkpoint of a folder."""
    brain = brain or make_brain(folder)
    brain.evaluate(
        data, min_key="criterion", test_loader_kwargs={"batch_size": batch_size}
    )
    ddp_barrier()  # The main process writes it.
    return json.loads((Path(folder) / "metrics.json").read_text())


def with_nan(folder):
    """A loss that only the last process's clip makes NaN, and what follows."""
    brain = light.ready(make_brain(folder))
    brain.nonfinite_patience = 1
    before = light.copy(brain.modules.vavl)
    clips = list(light.items(["a", "a"]).values())
    clips[1]["audio"][0, 0] = float("nan")
    batch = EmotionBatch([clips[processes.rank()]])
    brain.fit_batch(batch)
    moved = light.moved(brain.modules.vavl, before)
    with contextlib.suppress(VAVLError):
        brain.fit_batch(batch)
        return "no error"
    return moved, len(brain.meters.skipped)


def random_states(folder):
    """Numbers drawn after a save, and again after a load."""
    state, path = RandomState(), Path(folder) / "random.ckpt"
    torch.manual_seed(processes.rank())
    state.save(path)
    ddp_barrier()  # The main process writes it.
    first = torch.rand(3)
    state.load(path, end_of_epoch=True)
    return first, torch.rand(3)


def saved_checkpoints(folder):
    """What is there after saves that the main process is slow to finish."""
    kinds = {
        "epochs": [
            {"meta": {"score": score}, "max_keys": ["score"]}
            for score in (5, 1, 1, 9)
        ],
        # As SpeechBrain does within an epoch.
        "within": [
            {
                "meta": {"within": number},
                "end_of_epoch": False,
                "ckpt_predicate": lambda saved: "within" in saved.meta,
            }
            for number in range(3)
        ],
    }
    found, write = {}, checkpoints.write_json

    def slowly(*words):
        time.sleep(0.3)
        write(*words)

    with mock.patch.object(checkpoints, "write_json", slowly):
        for kind, saves in kinds.items():
            saver = checkpoints.CheckedCheckpointer(
                f"{folder}/{kind}", {"net": torch.nn.Linear(1, 1)}
            )
            for options in saves:
                saver.save_and_keep_only(**options)
            found[kind] = [
                saved.meta.get("score", saved.meta.get("within"))
                for saved in saver.find_checkpoints()
            ]
    return found


def extract(folder, clips, encoder):
    """Features of some clips, each process a share of them."""
    folder = Path(folder)
    extract_features(
        [clips],
        encoder,
        folder / "features",
        index=folder / "index.json",
        report=folder / "report.json",
    )
    return encoder.calls


def everything(folder):
    """All that test_distributed.py looks at, in one start."""
    sb.utils.seed.seed_everything(1)
    found = {
        "gradients": {
            case: gradients(f"{folder}/{'-'.join(case)}", *case)
            for case in CASES
        },
        "fit": fit(f"{folder}/fit", batch_size=2),
        "nan": with_nan(f"{folder}/nan"),
        "random": random_states(folder),
        "checkpoints": saved_checkpoints(f"{folder}/checkpoints"),
    }
    one = light.dataset({"clip0": CLIPS["clip0"]})
    found["one clip"] = evaluate(f"{folder}/fit/one", one)
    clips = json.loads(Path(folder, "clips.json").read_text())
    found["calls"] = extract(folder, clips, CountingEncoder())
    torch.save(found, f"{folder}/found-{processes.rank()}.pt")


class Failing(CountingEncoder):
    """Fails at its third clip in the last process."""

    def encode(self, **media):
        if processes.rank() == processes.count() - 1 and len(self.calls) == 2:
            raise VAVLError("the disk is full")
        return super().encode(**media)


def main(folder):
    """Does everything, and then fails in one process."""
    join_processes({"distributed_backend": "gloo"})
    everything(folder)
    clips = json.loads(Path(folder, "clips.json").read_text())
    extract(f"{folder}/last", clips, Failing())


if __name__ == "__main__":
    with exit_on_error():
        main(*sys.argv[1:])
