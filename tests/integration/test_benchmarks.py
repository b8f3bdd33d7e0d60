"""The benchmarks run, on little of everything, and count what they say."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def run(name, capsys, *arguments):
    """What a benchmark prints with --json."""
    module = importlib.import_module(name)
    module.main(["--quick", "--json", "--repeats", "1", *arguments])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_train_step(capsys):
    found = run("train_step", capsys)
    assert found["ratio"] == pytest.approx(
        found["released_schedule_step_s"] / found["ours_step_s"]
    )
    floor = found["tflop"] / found["matrix_product_tflops"]
    assert found["floor_s"] == pytest.approx(floor)


def test_operations_of_a_step_are_those_of_its_layers(tmp_path):
    """Against the closed form of what makes up nearly all of them."""
    module = importlib.import_module("train_step")
    sizes = module.Sizes(batch=2, seconds=1.0, face_frames=30, d_model=128)
    step = module.Ours("sequential", tmp_path, "cpu", sizes)
    frames = sizes.batch * (sizes.speech_frames + sizes.face_frames)
    # Two feed-forwards, attention's four projections, the convolution's two.
    width = sizes.d_model
    layer = 2 * (16 * width**2 + 4 * width**2 + 3 * width**2)
    # Five layers; there and back (twice that), and there once more.
    least = 4 * 5 * layer * frames
    assert least < step.flop() < 1.5 * least


def test_predict_and_features(capsys, tmp_path):
    kept = ("--folder", str(tmp_path))
    found = run("predict", capsys, *kept)
    stages = ("decode", "faces", "audio_encoder", "visual_encoder", "heads")
    spent = sum(found[f"{stage}_s"] for stage in stages)
    assert 0.5 < spent / found["predict_file_s"] <= 1.0
    found = run("features", capsys, *kept, "--clips", "2", "--processes")
    assert found["one_process_times_real_time"] > 0
    assert found["faces_s_a_clip"] > 0


def test_memory(tmp_path):
    module = importlib.import_module("memory")
    module.make_corpus(tmp_path / "corpus", 8)
    module.prepare(tmp_path / "corpus")
    assert 50 < module.peak("train", tmp_path / "corpus") < 4000
    scores = tmp_path / "corpus" / "output" / "metrics.json"
    assert json.loads(scores.read_text())["n_test"]["audio"] == 8
