"""A corpus that cannot be written, and a disk that fills up.

Both need root, to mount: `chmod` does not stop root, and a quota stops
nobody here.
"""

import json

import pytest
from conftest import run_recipe, small_run

pytestmark = pytest.mark.faults


def test_a_corpus_on_a_read_only_disk(small_corpus, tmp_path, mount):
    corpus = mount("corpus", "--bind", str(small_corpus))
    mount("corpus", "-o", "remount,bind,ro")
    with pytest.raises(OSError, match="Read-only"):
        (corpus / "new").touch()
    run_recipe(
        "CREMA-D", *small_run(corpus, tmp_path / "out", tmp_path / "features")
    )
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["n_test"]["audio"] > 0


def test_a_disk_that_fills_up_with_features(small_corpus, tmp_path, mount):
    options = ["-o", "size=300k", "-t", "tmpfs", "tmpfs"]
    features = mount("features", *options)
    words = small_run(small_corpus, tmp_path / "out", features)
    status, output = run_recipe("CREMA-D", *words, check=False)
    assert status == 1 and "Traceback" not in output, output
    (line,) = [x for x in output.splitlines() if "error: " in x]
    assert "No space left" in line and "MB free" in line and ".npz" in line
    kept = {p: p.stat().st_mtime_ns for p in features.rglob("*.npz")}
    assert kept and not list(features.rglob("*.tmp"))

    mount("features", "-o", "remount,size=64m")
    _, output = run_recipe("CREMA-D", *words)
    assert (tmp_path / "out" / "metrics.json").is_file()
    # It went on: what was whole was not computed again.
    assert "damaged" not in output
    assert all(p.stat().st_mtime_ns == time for p, time in kept.items())
    assert len(list(features.rglob("*.npz"))) > len(kept)
