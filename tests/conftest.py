"""Fixtures that all tests share.

Authors
 * The vavl_sb authors 2026
"""

import os
from pathlib import Path

import pytest

# No test may reach a hub; this must stand before transformers is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data():
    """Folder with real clips and labels, or a skip that says why.

    It is the environment variable VAVL_REAL_DATA, or ``../shared/data`` beside
    the checkout; pretrained models stand beside it in ``../models``.
    """
    folder = Path(
        os.environ.get("VAVL_REAL_DATA", REPOSITORY.parent / "shared" / "data")
    )
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set VAVL_REAL_DATA to it")
    return folder


@pytest.fixture(scope="session")
def whisper_folder(real_data):
    """Folder of the pretrained whisper-tiny-en encoder, or a skip."""
    folder = real_data.parent / "models" / "whisper-tiny-en"
    if not folder.is_dir():
        pytest.skip(f"no pretrained speech encoder at {folder}")
    return folder
