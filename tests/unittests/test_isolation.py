"""A prediction does not depend on the state of whoever asks for it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from light_model import make_model
from small_models import export_small
from test_inference import sweep
from test_media import grays, write

from vavl_sb.inference import EmotionRecognizer


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return write(path, grays(np.arange(50) * 4), sweep(2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An exported model, in a folder whose name YAML could take for its own."""
    folder = tmp_path_factory.mktemp("models") / "a <b> model"
    return export_small(folder, ["calm", "tense"])


def asked(model, clip, features):
    """The answers of each way to ask a model, and its timeline."""
    return [
        model.predict_file(clip),
        *model.timeline(clip, window=1.0),
        *model.predict_batch(sweep(2)[None]),
        model.predict_frames(np.zeros((4, 32, 32, 3), np.uint8) + 70),
        model.predict_features(features.audio, features.visual),
    ]


def test_autocast_around_a_call_changes_nothing(model, clip):
    features = model.hparams.feature_extractor.encode(str(clip), str(clip))
    expected = asked(model, clip, features)
    with torch.autocast("cpu", torch.bfloat16):
        found = asked(model, clip, features)
        assert torch.is_autocast_enabled("cpu")
    assert found == expected


def test_another_default_dtype_changes_nothing(folder, clip):
    expected = EmotionRecognizer.from_hparams(folder).predict_file(clip)
    torch.set_default_dtype(torch.float64)
    try:
        model = EmotionRecognizer.from_hparams(folder)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(model.predict_file, [clip] * 8))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == [expected] * 8


def test_angle_brackets_in_a_models_name(folder, clip):
    found = [
        EmotionRecognizer.from_hparams(folder, trust=trust).predict_file(clip)
        for trust in (False, True)
    ]
    assert found[0].probabilities == pytest.approx(found[1].probabilities)


FORKED = """
import os, sys, torch
sys.path[:0] = sys.argv[1:]
torch.set_num_threads(2)
from light_model import make_model
from vavl_sb.utils.errors import VAVLError
model = make_model()
sound = torch.rand(1, 16000) - 0.5
expected = model.predict_batch(sound)
torch.rand(2000, 2000).matmul(torch.rand(2000, 2000))  # starts the threads
child = os.fork()
if not child:
    try:
        model.predict_batch(sound)
        os._exit(7)
    except VAVLError as error:
        print(error, flush=True)
    torch.set_num_threads(1)
    os._exit(0 if model.predict_batch(sound) == expected else 8)
status = os.waitpid(child, 0)[1]
assert model.predict_batch(sound) == expected
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_instead_of_hanging():
    here = os.path.dirname(__file__)
    found = subprocess.run(
        [sys.executable, "-c", FORKED, here, os.path.dirname(here)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    (line,) = found.stdout.splitlines()
    assert "forked" in line and "forkserver" in line
