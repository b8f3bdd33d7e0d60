"""500 broken media files: no crash, bounded time and memory, one line each."""

import concurrent.futures
import os
from pathlib import Path

import pytest
from conftest import REPOSITORY
from mutation import make_broken, read_bounded, summary

COUNT = 500

pytestmark = pytest.mark.faults


def real_clips():
    """The folder of real clips, or None: they are broken where present."""
    folder = os.environ.get("VAVL_REAL_DATA")
    folder = Path(folder or REPOSITORY.parent / "shared" / "data")
    return folder if folder.is_dir() else None


def test_broken_files_are_read_or_refused(tmp_path):
    pytest.importorskip("facenet_pytorch")
    broken = make_broken(tmp_path, COUNT, real_clips())
    # Every fifth, and so all ways and clips in turn, through the detector.
    jobs = [
        (p, "faces" if i % 5 == 4 else "frames") for i, p in enumerate(broken)
    ]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        parts = pool.map(read_bounded, [jobs[::2], jobs[1::2]])
        results = [result for part in parts for result in part]
    assert len(results) == COUNT
    print(summary(results))
    bad = [r for r in results if r["outcome"] not in ("decoded", "refused")]
    assert not bad, "\n".join(map(str, bad))
