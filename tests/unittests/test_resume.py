"""A run that is stopped anywhere in an epoch ends as one that was not."""

import json

import pytest
import torch
from speechbrain import Stage
from speechbrain.utils.epoch_loop import EpochCounter
from test_brain import dataset, items, make_brain

from vavl_sb.training.logs import EpochLog

pytestmark = pytest.mark.usefixtures("without_pictures")
LEFT = (
    "metrics.json",
    "predictions_test.csv",
    "learning_curves.json",
    "train_log.txt",
)
EPOCHS, BATCHES = 2, 3


class Stopped(BaseException):
    """As kill -9: nothing is done after it."""


def fit(folder, stop=None, workers=0, **changes):
    """Trains and tests, or stops at a moment: what happens, and how often."""
    torch.manual_seed(5)
    clips = items(["av", "a", "v", "av"] * 6, signal=1.0)
    counter = EpochCounter(EPOCHS)
    changes["run_opts"] = {"ckpt_interval_steps": 1}
    brain = make_brain(folder, epoch_counter=counter, **changes)
    if stop:
        name, count = stop
        stop_at(brain, name, count)
    train = {"batch_size": 8, "shuffle": True, "num_workers": workers}
    test = {"batch_size": 8}
    brain.fit(
        counter,
        dataset(clips),
        dataset(clips),
        train_loader_kwargs=train,
        valid_loader_kwargs=dict(test),
    )
    brain.evaluate(dataset(clips), min_key="criterion", test_loader_kwargs=test)


def stop_at(brain, name, count):
    """Stops a brain when one of its methods is called for the n-th time."""
    method = getattr(brain, name)
    calls = []

    def call(*args, **kwargs):
        calls.append(args)
        if len(calls) > count:
            raise Stopped
        return method(*args, **kwargs)

    setattr(brain, name, call)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    fit(folder)
    return {name: (folder / name).read_bytes() for name in LEFT}


# After each batch there is a checkpoint.
BEFORE_BATCH = [("fit_batch", 1)]
BEFORE_CHECKPOINT = [("_save_intra_epoch_ckpt", 0)]
# Between train and validation, within it, before the epoch's log and after it.
AROUND_VALIDATION = [
    ("_fit_valid", 0),
    ("evaluate_batch", 1),
    ("evaluate_batch", 2 * BATCHES + 1),
    ("end_epoch", 1),
    ("_after_log", 1),
]


@pytest.mark.parametrize(
    "stop", BEFORE_BATCH + BEFORE_CHECKPOINT + AROUND_VALIDATION, ids=str
)
def test_stopped_at_any_moment(tmp_path, whole, stop, monkeypatch):
    with pytest.raises(Stopped), monkeypatch.context() as patch:
        if stop[0] == "_after_log":
            # The line is written, the checkpoint is not.
            stop = None
            patch.setattr(EpochLog, "log_stats", then_stop(EpochLog.log_stats))
        fit(tmp_path, stop)
    torch.rand(7)  # Whatever else happened to the random state.
    fit(tmp_path)
    for name in LEFT:
        assert (tmp_path / name).read_bytes() == whole[name], name


def then_stop(method):
    def call(*args, **kwargs):
        method(*args, **kwargs)
        raise Stopped

    return call


def test_stopped_before_every_batch_in_turn(tmp_path, whole):
    # Of each start one batch is left: the state goes through many hands.
    for _ in range(EPOCHS * BATCHES - 1):
        with pytest.raises(Stopped):
            fit(tmp_path, ("fit_batch", 1))
    fit(tmp_path)
    for name in LEFT:
        assert (tmp_path / name).read_bytes() == whole[name], name


def test_mixup_goes_on_within_an_epoch(tmp_path):
    fit(tmp_path / "whole", mixup=0.4)
    folder = tmp_path / "parts"
    with pytest.raises(Stopped):
        fit(folder, ("fit_batch", 1), mixup=0.4)
    torch.rand(7)  # Whatever else happened to the random state.
    fit(folder, mixup=0.4)
    for left in LEFT:
        whole = (tmp_path / "whole" / left).read_bytes()
        assert (folder / left).read_bytes() == whole, left


def test_workers_make_no_difference(tmp_path, whole):
    with pytest.raises(Stopped):
        fit(tmp_path, ("fit_batch", 4), workers=2)
    fit(tmp_path, workers=2)
    for name in LEFT:
        assert (tmp_path / name).read_bytes() == whole[name], name


def test_skipped_updates_are_counted_once(tmp_path):
    clips = items(["av", "a", "v", "av"] * 6, signal=1.0)
    clips["clip1"]["audio"][0, 0] = float("nan")
    good = items(["av"] * 6)

    def train(stop=None):
        counter = EpochCounter(EPOCHS)
        opts = {"ckpt_interval_steps": 1}
        brain = make_brain(tmp_path, epoch_counter=counter, run_opts=opts)
        if stop:
            stop_at(brain, *stop)
        options = {"train_loader_kwargs": {"batch_size": 8}}
        brain.fit(counter, dataset(clips), dataset(good), **options)

    with pytest.raises(Stopped):
        train(("_save_intra_epoch_ckpt", 3))  # Skipped, and not yet saved.
    train()
    entries = json.loads((tmp_path / "skipped.json").read_text())
    assert [entry["epoch"] for entry in entries] == [1, 2]
    log = (tmp_path / "train_log.txt").read_text()
    assert log.count("skipped updates: 1") == 2


def test_without_validation_the_next_epoch_starts_at_its_start(tmp_path):
    brain = make_brain(tmp_path, limit=1)
    clips = items(["av"] * 6)
    brain.fit(brain.hparams.epoch_counter, dataset(clips))
    again = make_brain(tmp_path, limit=2)
    again.on_fit_start()
    assert again.step == 0 and again.avg_train_loss == 0.0
    again.on_stage_start(Stage.TRAIN, 2)
    assert again.meters.averages() == {}
