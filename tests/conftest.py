"""Fixtures that all tests share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from speechbrain.utils.importutils import LazyModule

# Hypothesis looks at every loaded module for its file; SpeechBrain's lazy
# ones would import what is not installed, and end the whole test session.
LazyModule.__file__ = None

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


@pytest.fixture(scope="module")
def without_pictures():
    """A small run draws none, which takes most of its time."""
    from vavl_sb.training import plots

    with pytest.MonkeyPatch.context() as patch:
        for name in ("confusion", "learning_curves", "reliability_diagram"):
            patch.setattr(plots, name, lambda *args: None)
        yield


SMALL_SPLIT = {
    "train": ["1001", "1002", "1003", "1005"],
    "valid": ["1006", "1007"],
    "test": ["1004", "1008"],
}


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory):
    """A small synthetic CREMA-D: 8 actors, some clips without one file."""
    from synthetic import generate_corpus

    folder = tmp_path_factory.mktemp("corpus") / "CREMA-D"
    generate_corpus(
        folder,
        speakers=sum(SMALL_SPLIT.values(), []),
        seed=7,
        missing_audio=0.1,
        missing_video=0.1,
    )
    split = json.dumps(SMALL_SPLIT)
    (folder / "partition.json").write_text(split, encoding="utf-8")
    return folder


def run_recipe(recipe, *arguments, hparams="vavl_cls.yaml", check=True):
    """Runs a recipe's train.py as a user does, in the recipe's folder.

    Arguments
    ---------
    recipe : str
        Folder below recipes/.
    *arguments : str
        Options and values, after the hparams file.
    hparams : str
        File in the recipe's hparams folder.
    check : bool
        Whether a failed run fails the test.

    Returns
    -------
    subprocess.CompletedProcess
    """
    # An option that stands twice is an error: the later one is meant.
    options = dict(zip(arguments[::2], arguments[1::2]))
    done = subprocess.run(
        [
            sys.executable,
            "train.py",
            f"hparams/{hparams}",
            *(str(word) for option in options.items() for word in option),
        ],
        cwd=REPOSITORY / "recipes" / recipe,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        timeout=900,
    )
    if check:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


# What makes a run small: no pretrained encoder, little of everything.
SMALL = [
    *("--audio_encoder_source", "logmel"),
    *("--visual_encoder_weights", "null"),
    *("--face_detector", "null"),
    *("--frame_rate", "2"),
    *("--d_model", "16"),
    *("--number_of_epochs", "2"),
    *("--batch_size", "8"),
]
