"""An untrusted model is data: nothing that its folder says is run.

Each attack would make a file named boom; the file must not appear.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_encoders import Bomb
from small_models import export_small, light_extractor

from vavl_sb.inference import EmotionRecognizer
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.utils.errors import EncoderError, VAVLError

NETWORK = {"d_model": 16, "encoder_layers": 1, "shared_layers": 1}
LABELS = ["angry", "happy"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A whole model, with the encoders that need no download."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    return export_small(folder, LABELS, trained_heads=["audio"])


@pytest.fixture
def folder(exported, tmp_path):
    """A copy to tamper with."""
    return shutil.copytree(exported, tmp_path / "model")


@pytest.fixture
def target(tmp_path, monkeypatch):
    """The file that an attack would make."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "boom"


def change(folder, *path, value):
    """Sets a value of model.json, by the keys that lead to it."""
    model = json.loads((folder / "model.json").read_text())
    holder = model
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    (folder / "model.json").write_text(json.dumps(model))


def refused(folder, words=None):
    with pytest.raises(EncoderError, match=words) as error:
        EmotionRecognizer.from_hparams(folder)
    assert "\n" not in error.value.text
    return error.value.text


def test_what_an_export_writes_is_let_through(folder):
    model = EmotionRecognizer.from_hparams(folder)
    assert model.trained_heads == ("audio",)
    changed = EmotionRecognizer.from_hparams(
        folder,
        overrides={"feature_extractor": {"arguments": {"frame_rate": 5.0}}},
    )
    assert changed.hparams.feature_extractor.frame_rate == 5.0


def test_untrusted_and_trusted_give_the_same(folder):
    torch.manual_seed(0)
    features = {"audio": torch.randn(1, 40, 80)}
    plain = EmotionRecognizer.from_hparams(folder)
    trusted = EmotionRecognizer.from_hparams(folder, trust=True)
    assert torch.equal(plain(**features).audio, trusted(**features).audio)
    encoders = [m.hparams.feature_extractor for m in (plain, trusted)]
    for modality in ("audio", "visual"):
        first, second = (e.fingerprint(modality) for e in encoders)
        assert first == second


ATTACKS = [
    "x: !apply:os.system ['touch boom0']\n",
    "e: ''\n"
    "evil: \"<e>(!!python/object/apply:os.system ['touch boom1'])\"\n"
    "x: !ref <evil>\n",
]


@pytest.mark.parametrize(
    "trust, numbers", [(True, [0]), (True, [1]), (False, [0, 1])]
)
def test_the_yaml_of_an_untrusted_model_is_not_read(
    exported, target, trust, numbers
):
    """With trust the same files are made: the test can fail. In a child: what
    HyperPyYAML does depends on what the process has loaded before."""
    code = "from vavl_sb.inference import EmotionRecognizer\n"
    for number in numbers:
        folder = shutil.copytree(exported, target.parent / f"model{number}")
        with open(folder / "hyperparams.yaml", "a", encoding="utf-8") as file:
            file.write(ATTACKS[number])
        load = f"EmotionRecognizer.from_hparams({str(folder)!r}, trust={trust})"
        code += f"try: {load}\nexcept Exception as e: print(repr(e))\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    made = [target.with_name(f"boom{number}").exists() for number in numbers]
    assert made == [trust] * len(numbers)
    assert trust or (done.returncode, done.stdout) == (0, ""), done.stderr


def test_hostile_variants_open_import_and_call_nothing(exported, tmp_path):
    """The audit hook's list for a good model, and no more for sixty bad
    ones."""
    child = Path(__file__).with_name("untrusted_child.py")
    done = subprocess.run(
        [sys.executable, child, exported, tmp_path, "7", "60"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    opened = {
        Path(path).relative_to(tmp_path / "model").as_posix()
        for event, path in found["good"]
        if event == "open"
    }
    # safetensors maps its files itself, out of Python's sight.
    assert opened == {"model.json", "audio_encoder/config.json"}
    assert not [e for e in found["good"] if e[0] not in ("open", "import")]
    assert found["faults"] == []
    assert found["loaded"] < 30


@pytest.mark.parametrize(
    "part, kind",
    [
        ("network", "torch.nn.Linear"),
        ("network", "AudioEncoder"),
        ("audio_encoder", "my_encoders.Mean"),
        ("face_tracker", "subprocess.Popen"),
    ],
)
def test_a_class_that_is_not_ours_needs_trust(folder, part, kind):
    change(folder, part, "class", value=kind)
    assert kind in refused(folder, "--trust")


@pytest.mark.parametrize(
    "path, value, words",
    [
        (("network", "d_model"), 10**9, "from 1 to 8192"),
        (("network", "d_model"), 32, "do not fit"),
        (("network", "nhead"), 7, "invalid settings"),
        (("network", "residual"), 1, "true or false"),
        (("network", "num_outputs"), 3, "2 labels, but 3"),
        (("network", "device"), "cuda", "unknown argument"),
        (("audio_encoder", "source"), "../elsewhere", "one of audio_enc"),
        (("visual_encoder", "weights"), "imagenet", "one of visual_enc"),
        (("face_tracker", "size"), 2**30, "from 8 to 512"),
        (("feature_extractor", "frame_rate"), 0, "a number from"),
    ],
)
def test_an_argument_out_of_bounds(folder, path, value, words):
    part, name = path
    change(folder, part, "arguments", name, value=value)
    refused(folder, words)


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("labels", ["happy", "happy"], "different names"),
        ("labels", ["a", "b", "c"], "3 labels, but 2"),
        ("task", "apply", "task must be"),
        ("trained_heads", [], "trained_heads must be"),
        ("attribute_range", [2, 1], "attribute_range must be"),
        ("temperatures", {"audio": 0}, "temperatures must be"),
        ("metadata", {"test": {"audio": 1}}, "metadata must be"),
        ("format", 2, "format must be"),
        ("jit", True, "unknown key 'jit'"),
    ],
)
def test_a_value_that_no_export_has(folder, key, value, words):
    change(folder, key, value=value)
    refused(folder, words)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[1, 2]", '{"task": NaN}', "[" * 10**6),
        *('{"format": 1, "format": 1}', '{"a": "\\ud800"}'),
    ],
    ids=str.__len__,
)
def test_a_model_file_that_is_no_plain_json(folder, text):
    (folder / "model.json").write_text(text)
    refused(folder, "model.json")


@pytest.mark.parametrize("file", ["vavl.safetensors", "model.json"])
def test_a_named_pipe_is_not_waited_for(folder, file):
    (folder / file).unlink()
    os.mkfifo(folder / file)
    refused(folder, "is not a file")


def test_a_file_that_was_left_behind_is_named(folder):
    change(
        folder,
        *("visual_encoder", "arguments", "weights"),
        value="visual_encoder.safetensors",
    )
    told = refused(folder, "visual_encoder.safetensors: is missing")
    assert "trust" not in told


@pytest.mark.parametrize("save", [torch.save, None])
def test_weights_that_are_a_pickle(folder, target, save):
    path = folder / "vavl.safetensors"
    if save is not None:
        save({"x": Bomb(target)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(target)))
    refused(folder)
    with pytest.raises(EncoderError):
        EmotionRecognizer.from_hparams(folder, trust=True)
    assert not target.exists()
    # The pickle is one: whoever reads it makes the file.
    if save is None:
        pickle.loads(path.read_bytes()).close()
        assert target.exists()


@pytest.mark.parametrize(
    "value, dtype",
    [
        (float("nan"), torch.float32),
        (float("-inf"), torch.float16),
        (1e300, torch.float64),  # No float32 holds it.
    ],
)
def test_weights_that_are_not_finite(folder, value, dtype):
    tensors = load_file(folder / "vavl.safetensors")
    name = sorted(n for n, t in tensors.items() if t.is_floating_point())[-1]
    tensors[name] = tensors[name].to(dtype)
    tensors[name].view(-1)[-1] = value
    save_file(tensors, folder / "vavl.safetensors")
    told = refused(folder, "has NaN or infinite values")
    assert "vavl.safetensors" in told and repr(name) in told


def test_a_pickle_beside_a_speech_encoder(folder, target):
    torch.save({"x": Bomb(target)}, folder / "audio_encoder/pytorch_model.bin")
    refused(folder, "pytorch_model.bin")
    assert not target.exists()


def test_an_encoder_of_another_size(folder):
    tensors = load_file(folder / "vavl.safetensors")
    visual_dim = tensors["visual_branch.normalize.mean"].numel()
    net = VAVL(90, visual_dim, 2, **NETWORK)
    save_file(net.state_dict(), folder / "vavl.safetensors")
    change(folder, "network", "arguments", "audio_dim", value=90)
    refused(folder, "gives 80 numbers a frame, but its network reads 90")


def test_options_of_a_trusted_load_need_trust(folder):
    with pytest.raises(VAVLError, match="pymodule_file: needs trust"):
        EmotionRecognizer.from_hparams(folder, pymodule_file="custom.py")
    with pytest.raises(VAVLError, match="'x' is not one of format"):
        EmotionRecognizer.from_hparams(folder, overrides={"x": 1})


def test_a_real_speech_encoder_is_let_through(whisper_folder, tmp_path):
    extractor = light_extractor(AudioEncoder(whisper_folder, num_layers=1))
    export_small(tmp_path / "model", LABELS, extractor)
    model = EmotionRecognizer.from_hparams(tmp_path / "model")
    assert model.trained_heads == ("audio", "visual", "audiovisual")
