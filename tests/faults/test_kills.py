"""Kill -9 at random moments: the same command ends with the same scores."""

import json
import os
import random

import child_runs
import pytest
from conftest import REPOSITORY, SMALL

pytestmark = pytest.mark.faults

RECIPE = REPOSITORY / "recipes" / "CREMA-D"
KILLS = 20
SPLIT = {
    "train": ["1001", "1002", "1003", "1004"],
    "valid": ["1005"],
    "test": ["1006"],
}
# What must be the same to the last digit, however often a run was killed.
LEFT = (
    "metrics.json",
    "predictions_test.csv",
    "scores.txt",
    "learning_curves.json",
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six actors, some clips without one file."""
    from synthetic import generate_corpus

    folder = tmp_path_factory.mktemp("corpus") / "CREMA-D"
    generate_corpus(
        folder,
        speakers=sum(SPLIT.values(), []),
        clips_per_speaker=4,
        seed=3,
        missing_audio=0.1,
        missing_video=0.1,
        frame_rate=10,
        size=(160, 120),
        progress=False,
    )
    (folder / "partition.json").write_text(json.dumps(SPLIT))
    return folder


class Runs:
    """Runs of one recipe that differ in nothing but their folders."""

    def __init__(self, corpus, features):
        self.corpus, self.features = corpus, features

    def words(self, out, features=None):
        options = {
            "data_folder": self.corpus,
            "partition": self.corpus / "partition.json",
            "output_folder": out,
            "feature_folder": features or self.features,
            **dict(zip((w.lstrip("-") for w in SMALL[::2]), SMALL[1::2])),
            "number_of_epochs": 3,
            "batch_size": 4,
            "ckpt_interval_minutes": 0,
            "ckpt_interval_steps": 2,
        }
        return [
            *("train.py", "hparams/vavl_cls.yaml"),
            *(word for k, v in options.items() for word in (f"--{k}", v)),
        ]

    def run(self, out, features=None, **killing):
        words = self.words(out, features)
        if killing:
            killing["watched"] = [str(out), str(features or self.features)]
        log = out.with_suffix(".log")
        return child_runs.run(RECIPE, words, log, **killing)


def results(out):
    """What a run leaves, in bytes."""
    return {name: (out / name).read_bytes() for name in LEFT}


def epochs(out):
    """The epochs in the train log."""
    lines = (out / "train_log.txt").read_text().splitlines()
    return [x.split(",")[0] for x in lines if x.startswith("epoch:")]


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory):
    return Runs(corpus, tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory):
    """A run that nobody stopped: its folder, and its steps."""
    folder = tmp_path_factory.mktemp("whole")
    out, trace = folder / "out", folder / "trace"
    assert runs.run(out, trace=str(trace)) == 0, log(out)
    return out, trace.read_text().splitlines()


def log(out):
    return out.with_suffix(".log").read_text()[-3000:]


def stages(steps, out):
    """The steps of each stage, as ranges."""

    def first(*words, after=0):
        return next(
            i
            for i, step in enumerate(steps)
            if i >= after and any(word in step for word in words)
        )

    # The first features are written by the extraction.
    features = first("/audio-", "/visual-")
    train = first("train batch")
    # Of all batches of evaluation the last are the test's.
    metrics = first("metrics.json")
    test = max(i for i in range(metrics) if steps[i] == "evaluate batch")
    while steps[test - 1] == "evaluate batch":
        test -= 1
    export = first(".inference.part")
    return {
        "preparation": range(0, features),
        "extraction": range(features, train),
        "training": range(train, test),
        "test": range(test, export),
        "export": range(export, len(steps)),
    }


@pytest.mark.parametrize("share", [0.2, 0.7])
@pytest.mark.parametrize(
    "stage", ["preparation", "extraction", "test", "export"]
)
def test_killed_in_a_stage(runs, whole, tmp_path, stage, share):
    done, steps = whole
    moments = stages(steps, done)[stage]
    kill_at = moments[int(share * len(moments))]
    out, cold = tmp_path / "out", tmp_path / "features"
    # With no features yet, as the run whose steps were counted.
    assert runs.run(out, cold, kill_at=kill_at) == -9, steps[kill_at]
    exported = out / "inference"
    # The exported model is there whole, or not there.
    assert not exported.exists() or files(exported) == files(done / "inference")
    assert runs.run(out, cold) == 0, log(out)
    assert results(out) == results(done), steps[kill_at]
    assert epochs(out) == epochs(done)
    assert files(exported) == files(done / "inference")
    assert sorted(os.listdir(out)) == sorted(os.listdir(done))


def files(folder):
    """Names and bytes, but of what names the run itself."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix == ".safetensors"
    }


def test_killed_twenty_times_in_training(runs, whole, tmp_path):
    done, steps = whole
    moments = stages(steps, done)["training"]
    chance = random.Random(6)
    kills, ends, damaged, seen = 0, 0, 0, set()
    while kills < KILLS or ends == 0:
        out = tmp_path / f"out{ends}"
        killed_here = 0
        while True:
            # A start that goes on has fewer steps left than a new one.
            kill_at = chance.randrange(10, 10 + len(moments) // 2)
            trace = tmp_path / "trace"
            killing = {"kill_at": kill_at, "trace": str(trace)}
            code = runs.run(out, **(killing if kills < KILLS else {}))
            if code == 0:
                break
            assert code == -9, log(out)
            kills, killed_here = kills + 1, killed_here + 1
            seen.add(trace.read_text().splitlines()[-1].split("/")[0])
            if kills % 6 == 0:
                damaged += damage_newest(out, chance)
        assert results(out) == results(done), f"{killed_here} kills in {out}"
        assert epochs(out) == epochs(done)
        ends += 1
    told = sum(
        path.read_text().count("; not used, kept as damaged+")
        for path in tmp_path.glob("out*.log")
    )
    # A checkpoint that a kill left half deleted is set aside too.
    assert told >= damaged > 0
    print(f"{kills} kills, {damaged} damaged checkpoints, {ends} runs; {seen}")


def damage_newest(out, chance):
    """Flips a bit of, or cuts, the newest checkpoint's network."""
    # By name, which begins with the time: a deletion changes a folder's own.
    found = sorted((out / "save").glob("CKPT*"))
    if not found:
        return 0
    path = found[-1] / "vavl.ckpt"
    content = bytearray(path.read_bytes())
    if chance.random() < 0.5:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    else:
        del content[chance.randrange(len(content)) :]
    path.write_bytes(content)
    return 1


def test_killed_while_a_checkpoint_is_half_written(runs, whole, tmp_path):
    done, steps = whole
    halves = [i for i, step in enumerate(steps) if step.startswith("half of")]
    out, cold = tmp_path / "out", tmp_path / "features"
    kill_at = random.Random(2).choice(halves)
    assert runs.run(out, cold, kill_at=kill_at) == -9
    assert runs.run(out, cold) == 0, log(out)
    assert (
        "half written when a run was stopped"
        in out.with_suffix(".log").read_text()
    )
    assert results(out) == results(done)


def test_a_disk_that_gets_full_in_a_checkpoint(runs, whole, mount, tmp_path):
    done, _ = whole
    small_disk = mount("disk", "-t", "tmpfs", "-o", "size=200m", "tmpfs")
    out = small_disk / "out"
    # Room for all before the first checkpoint, and for a part of it.
    room = 3 * checkpoint_size(done) // 2
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    with open(filler, "wb") as file:
        file.write(bytes(free - room))
    log_file = tmp_path / "disk.log"
    words = runs.words(out)
    assert child_runs.run(RECIPE, words, log_file) == 1
    text = log_file.read_text()
    (line,) = [x for x in text.splitlines() if "error: " in x]
    assert str(out / "save") in line and "free space" in line
    assert "Traceback" not in text
    assert not list((out / "save").glob("partial+*"))
    filler.unlink()
    assert child_runs.run(RECIPE, words, log_file) == 0
    assert results(out) == results(done)


def checkpoint_size(out):
    (folder, *_) = (out / "save").glob("CKPT*")
    return sum(path.stat().st_size for path in folder.iterdir())
