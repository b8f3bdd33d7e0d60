"""Fixtures that all tests share."""

import csv
import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from child_runs import draw_nothing, run
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
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch.setattr)
        yield


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """Sound and pictures of which the tests of a recipe lay out a corpus."""
    from prepared_corpus import make_media

    return make_media(tmp_path_factory.mktemp("media"))


@pytest.fixture
def mount(tmp_path):
    """A function that mounts at tmp_path/NAME, and unmounts in the end."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mounted = []

    def mount(name, *arguments):
        point = tmp_path / name
        point.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", *arguments, str(point)], capture_output=True, text=True
        )
        if done.returncode != 0:
            pytest.skip(f"mount: {done.stderr.strip()}")
        if point not in mounted:
            mounted.append(point)
        return point

    yield mount
    for point in reversed(mounted):
        subprocess.run(["umount", str(point)], check=True)


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
        frame_rate=10,
        size=(240, 180),
        num_workers=1,
        progress=False,
    )
    split = json.dumps(SMALL_SPLIT)
    (folder / "partition.json").write_text(split, encoding="utf-8")
    return folder


def run_script(cwd, *words, check=True, draws=False):
    """Runs a Python script as a user does."""
    with tempfile.NamedTemporaryFile("r", errors="replace") as log:
        status = run(cwd, words, log.name, 900, draws=draws)
        output = log.read()
    assert status == 0 or not check, output[-6000:]
    return status, output


def run_recipe(recipe, *arguments, hparams="vavl_cls.yaml", **options):
    """Runs a recipe's train.py in the recipe's folder."""
    # An option that stands twice is an error: the later one is meant.
    given = dict(zip(arguments[::2], arguments[1::2]))
    return run_script(
        REPOSITORY / "recipes" / recipe,
        *("train.py", f"hparams/{hparams}"),
        *(word for option in given.items() for word in option),
        **options,
    )


def run_listed(row, data, folder, *more):
    """Runs a row of tests/recipes/ as SpeechBrain's own recipe tests do: from
    the repository's root, with the row's flags and an output folder; then the
    files that it lists must be there."""
    place = REPOSITORY / "tests" / "tmp" / row["Dataset"]
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(data)
    flags = [*row["test_debug_flags"].split(), f"--output_folder={folder}"]
    words = (row["Script_file"], row["Hparam_file"], *flags, *more)
    _, output = run_script(REPOSITORY, *words)
    names = row["test_debug_checks"].split("[")[1].rstrip("]").split(",")
    assert [name for name in names if not (folder / name).is_file()] == []
    return output


def listed_recipes(recipe):
    """The rows of a table in tests/recipes/."""
    path = REPOSITORY / "tests" / "recipes" / f"{recipe}.csv"
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Small and slow pictures: what is tested does not depend on their number.
FAST = {
    "clips_per_speaker": 4,
    "num_workers": 1,
    "frame_rate": 5,
    "size": (160, 120),
    "progress": False,
}

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


def small_run(corpus, folder, features):
    """Arguments of such a run on the small corpus."""
    return [
        *("--data_folder", corpus),
        *("--output_folder", folder),
        *("--feature_folder", features),
        *("--partition", corpus / "partition.json"),
        *SMALL,
    ]
