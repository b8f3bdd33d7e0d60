"""Several processes, started by torchrun with gloo, against a single one."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import several_processes as program
import torch
from conftest import REPOSITORY
from small_clips import write_manifests
from test_features import CountingEncoder

from vavl_sb.dataio.samplers import SharedBatches
from vavl_sb.features.cache import read_index
from vavl_sb.utils.errors import VAVLError

WORLD = 2


def torchrun(*words, cwd=REPOSITORY, timeout=600):
    """Starts two processes; what they wrote stands in ``stdout``."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc_per_node={WORLD}", *map(str, words)),
        ],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=timeout,
    )


def write_clips(folder):
    """Clips for CountingEncoder: some broken, silent, or without a file."""
    special = {("c3", "video"): b"broken", ("c4", "wav"): b"nothing"}
    # Two clips of equal bytes, whose shares are those of two processes.
    special["c5", "wav"] = special["c8", "wav"] = b"the same"
    clips = {}
    for id in (f"c{i}" for i in range(9)):
        clips[id] = {}
        for field in ("wav", "video"):
            path = folder / f"{id}.{field}"
            path.write_bytes(special.get((id, field), f"{id} {field}".encode()))
            clips[id][field] = str(path)
    clips["c2"]["video"] = None
    (folder / "clips.json").write_text(json.dumps(clips))
    return clips


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The folder of two processes that did everything, and what they found.

    In the end one fails, which test_an_error_ends_all_with_one_line looks at.
    """
    folder = tmp_path_factory.mktemp("shared")
    write_clips(folder)
    done = torchrun(program.__file__, folder)
    assert "error: the disk is full" in done.stdout, done.stdout[-4000:]
    assert done.returncode != 0
    found = [torch.load(folder / f"found-{r}.pt") for r in range(WORLD)]
    return folder, found, done.stdout


@pytest.mark.parametrize("case", program.CASES, ids="-".join)
def test_gradients_are_those_of_one_process(shared, tmp_path, case):
    loss, expected, weights = program.gradients(tmp_path, *case)
    for found in shared[1]:
        other_loss, updates, other_weights = found["gradients"][case]
        assert other_loss == pytest.approx(loss, abs=1e-5)
        assert len(updates) == len(expected) > 0
        for update, truth in zip(updates, expected):
            for name, gradient in truth.items():
                if gradient is None:
                    assert update[name] is None, name
                    continue
                gap = (update[name] - gradient).abs().max()
                assert gap < 1e-5, (name, float(gap))
        for name, value in weights.items():
            assert torch.allclose(other_weights[name], value, atol=1e-5), name


def test_an_epoch_has_the_batches_of_one_process(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("SB_GLOBAL_SEED", "1")  # As in the processes.
    fitted, _, batches = program.fit(tmp_path, batch_size=2 * WORLD)
    assert len(batches) == 2 * 3  # Two epochs of 4 + 4 + 3 clips.
    shares = [found["fit"][2] for found in shared[1]]
    assert [sum(parts, []) for parts in zip(*shares)] == batches
    # So that the weights are the same in the end.
    for found in shared[1]:
        for name, value in fitted.items():
            assert torch.allclose(found["fit"][0][name], value, atol=1e-4)


def test_processes_end_with_identical_weights(shared):
    _, (first, second), _ = shared
    for one, other in zip(first["fit"][:2], second["fit"][:2]):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_each_clip_is_scored_once(shared, tmp_path):
    folder, _, _ = shared
    shutil.copytree(folder / "fit" / "save", tmp_path / "save")
    data = program.light.dataset(program.CLIPS)
    expected = program.evaluate(tmp_path, data, batch_size=4)
    metrics = json.loads((folder / "fit" / "metrics.json").read_text())
    assert metrics["n_test"] == expected["n_test"]
    assert metrics["n_test"] == {"audio": 8, "visual": 7, "audiovisual": 4}
    for head, scores in expected["test"].items():
        found = metrics["test"][head]
        assert found.pop("confusion") == scores.pop("confusion")
        assert found == pytest.approx(scores)
    rows = [
        (path / "predictions_test.csv").read_text().splitlines()
        for path in (folder / "fit", tmp_path)
    ]
    assert len(rows[0]) == len(rows[1]) == 1 + 8 + 7 + 4
    for one, other in zip(rows[0][1:], rows[1][1:]):
        one, other = one.split(","), other.split(",")
        assert one[:4] == other[:4]  # Clip, head, label and prediction.
        numbers = list(map(float, other[4:]))
        assert list(map(float, one[4:])) == pytest.approx(numbers, abs=1e-5)
    curves = json.loads((folder / "fit" / "learning_curves.json").read_text())
    assert [epoch["epoch"] for epoch in curves] == [1, 2]


def test_a_process_may_have_nothing_to_score(shared):
    assert [found["one clip"]["n_test"] for found in shared[1]] == [
        {"audio": 1, "visual": 1, "audiovisual": 1}
    ] * WORLD


def test_all_skip_an_update_that_is_not_finite(shared):
    assert [found["nan"] for found in shared[1]] == [(set(), 2)] * WORLD
    # Main tells of the clip that is another process's.
    line = next(x for x in shared[2].splitlines() if "is skipped" in x)
    assert line.endswith("clip0, clip1")


def test_each_process_has_its_own_random_state(shared):
    (first, again), (other, other_again) = (
        found["random"] for found in shared[1]
    )
    assert torch.equal(first, again) and torch.equal(other, other_again)
    assert not torch.equal(first, other)


def test_all_keep_the_same_checkpoints(shared):
    for found in shared[1]:
        # The best and newest, and the one before.
        assert sorted(found["checkpoints"]["epochs"]) == [1, 9]
        assert found["checkpoints"]["within"] == [2]


def files(folder):
    """Cached features: path below the folder, and bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "features").rglob("*.npz"))
    }


def test_extraction_is_shared_and_as_that_of_one_process(shared, tmp_path):
    folder, found, _ = shared
    clips = json.loads((folder / "clips.json").read_text())
    single = program.extract(tmp_path, clips, CountingEncoder())
    # Of the two equal clips a single process computes one.
    twin = {clips["c5"]["wav"], clips["c8"]["wav"]}
    calls = found[0]["calls"] + found[1]["calls"]
    assert sorted(set(calls) - twin) == sorted(set(single) - twin)
    assert len(calls) == len(set(calls))
    assert all(abs(len(f["calls"]) - len(calls) / 2) <= 2 for f in found)
    assert files(folder) == files(tmp_path)
    report = (folder / "report.json").read_bytes()
    assert report == (tmp_path / "report.json").read_bytes()
    index = read_index(tmp_path / "index.json")
    text = json.dumps(read_index(folder / "index.json"))
    assert json.loads(text.replace(str(folder), str(tmp_path))) == index
    contents = [
        json.loads((path / "features" / "content.json").read_text())
        for path in (folder, tmp_path)
    ]
    assert contents[0] == contents[1]


def test_an_error_of_one_ends_all_with_one_line(shared):
    folder, _, output = shared
    clips = json.loads((folder / "clips.json").read_text())
    folder = folder / "last"
    lines = [x for x in output.splitlines() if "error: " in x]
    assert len(lines) == 1, output
    assert lines[0].endswith("error: the disk is full")
    # What was computed is there for the next start.
    kept = len(files(folder))
    assert kept >= 2
    rest = program.extract(folder, clips, CountingEncoder())
    assert len(files(folder)) == 15
    broken = clips["c3"]["video"]
    assert len(set(rest) - {broken}) == 15 - kept


def test_a_recipe_trains_with_torchrun(tmp_path):
    voices = write_manifests(tmp_path)
    done = torchrun(
        *("train.py", "hparams/vavl_cls.yaml", *voices),
        *(f"--output_folder={tmp_path / 'out'}", "--batch_size=4"),
        "--number_of_epochs=1",
        cwd=REPOSITORY / "recipes" / "CREMA-D",
    )
    out = tmp_path / "out"
    assert done.returncode == 0, done.stdout[-4000:]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["n_test"]["audio"] == 3
    assert (out / "inference" / "vavl.safetensors").exists()
    assert json.loads((out / "save" / "run.json").read_text())["processes"] == 2
    report = json.loads((out / "feature_report.json").read_text())
    assert report["clips"] == 15
    assert report["computed"]["audio"] == 15
    # Normalized by the training clips, in every process.
    from safetensors.torch import load_file

    weights = load_file(out / "inference" / "vavl.safetensors")
    assert weights["audio_branch.normalize.mean"].abs().max() > 0


@pytest.mark.parametrize("rows", [3, 13, 24])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_shares_are_the_batches_of_one_process(rows, count, drop_last):
    order = [(7 * i + 3) % rows for i in range(rows)]
    shares = [
        list(SharedBatches(order, 4, rank, count, drop_last))
        for rank in range(count)
    ]
    assert len({len(share) for share in shares}) == 1
    batches = [sum(parts, []) for parts in zip(*shares)]
    assert all(len(part) > 0 for share in shares for part in share)
    whole = 4 * count
    if drop_last:
        assert batches == [
            order[i * whole : (i + 1) * whole] for i in range(rows // whole)
        ]
    else:
        assert sum(batches, []) == order
        assert [len(b) for b in batches[:-1]] == [whole] * (len(batches) - 1)
        assert len(batches[-1]) < whole + count
    for parts in zip(*shares):
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_too_few_clips_for_the_processes():
    with pytest.raises(VAVLError, match="3 processes cannot share 2 training"):
        SharedBatches(range(2), 4, 0, 3)
