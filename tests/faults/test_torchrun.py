"""Kill -9 of all processes of torchrun: the same command resumes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY
from small_clips import write_manifests

pytestmark = pytest.mark.faults

LEFT = ("metrics.json", "predictions_test.csv", "learning_curves.json")


def start(voices, out):
    """Two processes that train in a folder."""
    more = ("number_of_epochs=6", "batch_size=2")
    more += ("ckpt_interval_minutes=0", "ckpt_interval_steps=1")
    with open(f"{out}.log", "a") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run"),
                *("--standalone", "--nproc_per_node=2", "train.py"),
                "hparams/vavl_cls.yaml",
                *(*voices, f"--output_folder={out}"),
                *(f"--{option}" for option in more),
            ],
            cwd=REPOSITORY / "recipes" / "CREMA-D",
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def kill_all(out):
    """Kills every process that was told of a folder; gives how many."""
    killed = 0
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if f"--output_folder={out}\0".encode() in words:
            os.kill(int(entry.name), signal.SIGKILL)
            killed += 1
    return killed


def finish(process, out):
    """Waits for a run, which has to end well."""
    try:
        code = process.wait(300)
    finally:
        kill_all(out)
    assert code == 0, Path(f"{out}.log").read_text()[-4000:]


def test_killed_and_started_again(tmp_path):
    voices = write_manifests(tmp_path)
    whole, out = tmp_path / "whole", tmp_path / "out"
    finish(start(voices, whole), whole)
    process = start(voices, out)
    train_log = out / "train_log.txt"
    try:
        # In the middle of training, where a checkpoint is never far.
        while process.poll() is None:
            if (
                train_log.exists()
                and len(train_log.read_text().split("\n")) > 2
            ):
                break
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it was killed"
    finally:
        killed = kill_all(out)
    assert killed == 3  # torchrun and its two.
    assert process.wait(60) == -signal.SIGKILL
    assert not (out / "metrics.json").exists()
    finish(start(voices, out), out)
    for name in LEFT:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    epochs = [line.split(",")[0] for line in train_log.read_text().splitlines()]
    assert [x for x in epochs if x.startswith("epoch")] == [
        f"epoch: {number}" for number in range(1, 7)
    ]
