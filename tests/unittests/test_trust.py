"""A model's folder is refused before anything in it can run.

Each attack here would make a file; the file must not appear.

Authors
 * The vavl_sb authors 2026
"""

import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.inference import EmotionRecognizer
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.lobes.visual_encoder import VisualEncoder
from vavl_sb.training.export import export_model
from vavl_sb.utils.errors import EncoderError


class Bomb:
    """A pickle that makes a file when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A whole model, with the encoders that need no download."""
    folder = tmp_path_factory.mktemp("exported")
    net = VAVL(80, 1408, 2, d_model=16, encoder_layers=1, shared_layers=1)
    encoder = FeatureExtractor(
        AudioEncoder("logmel"), VisualEncoder(None), FaceTracker(None)
    )
    export_model(
        folder,
        net,
        encoder,
        task="classification",
        labels=["angry", "happy"],
        corpus="none",
        attribute_range=None,
        trained_heads=["audio"],
    )
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    """A copy to tamper with."""
    return shutil.copytree(exported, tmp_path / "model")


@pytest.fixture
def target(tmp_path, monkeypatch):
    """The file that an attack would make."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "boom"


def refused(folder, target, words=None):
    with pytest.raises(EncoderError, match=words) as error:
        EmotionRecognizer.from_hparams(folder)
    assert not target.exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def append(folder, text):
    with open(folder / "hyperparams.yaml", "a", encoding="utf-8") as file:
        file.write(text)


def replace(folder, old, new):
    path = folder / "hyperparams.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_file_that_was_left_behind_is_named(folder, target):
    (folder / "visual_encoder.safetensors").unlink()
    told = refused(folder, target, "visual_encoder.safetensors: is missing")
    assert "trust" not in told


def test_what_an_export_writes_is_let_through(folder):
    model = EmotionRecognizer.from_hparams(folder)
    assert model.trained_heads == ("audio",)
    append(folder, "layer: !new:torch.nn.Linear\n  in_features: 2\n")
    append(folder, "  out_features: 3\n")
    layer = EmotionRecognizer.from_hparams(folder).hparams.layer
    assert isinstance(layer, torch.nn.Linear)


ATTACKS = {
    "apply": "x: !apply:pathlib.Path.touch [!new:pathlib.Path [boom]]\n",
    "system": "x: !apply:os.system ['touch boom']\n",
    "nested": "x: {a: [1, {b: !apply:os.system ['touch boom']}]}\n",
    "argument": "x: !new:torch.nn.ReLU\n"
    "  inplace: !apply:os.system ['touch boom']\n",
    "key": "? !apply:os.system ['touch boom']\n: 1\n",
    "applyref": "x: !applyref:os.system ['touch boom']\n",
    "new": "x: !new:subprocess.Popen [[touch, boom]]\n",
    "speechbrain": "x: !apply:speechbrain.utils.superpowers.run_shell "
    "['touch boom']\n",
    "torch": "x: !apply:torch.load [boom.pt]\n",
    "python": "x: !!python/object/apply:os.system ['touch boom']\n",
    "directive": None,
    "tuple": "x: (!!python/object/apply:os.system ['touch boom'])\n",
    "quoted tuple": "x: \"(!!python/object/apply:os.system ['touch boom'])\"\n",
    "reference": "x: '(!!python/object/apply:os.system '\n"
    "y: !ref <x>[touch boom])\n",
    "anchor": "x: &a !apply:os.system ['touch boom']\ny: *a\n",
    "include": "x: !include:other.yaml\n",
    "module": "x: !module:os\n",
    "name": "x: !name:os.system\n",
    "attribute": "x: !ref <vavl.__class__>\n",
    "indirect": "e: ''\n"
    "evil: \"<e>(!!python/object/apply:os.system ['touch boom'])\"\n"
    "x: !ref <evil>\n",
    "alias": "x: &a [1]\ny: *a\n",
    "run option": "jit: True\n",
    "device": "device: cuda\n",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_yaml_that_could_run_code(folder, target, name):
    torch.save({"x": Bomb(target)}, target.with_name("boom.pt"))
    (folder / "other.yaml").write_text("y: !apply:os.system ['touch boom']\n")
    if name == "directive":
        text = (folder / "hyperparams.yaml").read_text()
        text = "%TAG !e! tag:yaml.org,2002:python/object/apply:\n---\n" + text
        (folder / "hyperparams.yaml").write_text(
            text + "x: !e!os.system ['touch boom']\n"
        )
    else:
        append(folder, ATTACKS[name])
    assert "trust" in refused(folder, target)


@pytest.mark.parametrize(
    "name", ["apply", "system", "nested", "python", "tuple"]
)
def test_the_attacks_are_real(folder, target, name):
    """With trust, the same file is made: the tests above can fail."""
    append(folder, ATTACKS[name])
    try:
        EmotionRecognizer.from_hparams(folder, trust=True)
    except Exception:
        pass
    assert target.exists()


@pytest.mark.parametrize("trust", [True, False])
def test_an_indirect_reference_in_a_process_of_its_own(folder, target, trust):
    """HyperPyYAML's first load of a process is the one that it works in."""
    append(folder, ATTACKS["indirect"])
    code = (
        "from vavl_sb.inference import EmotionRecognizer\n"
        f"EmotionRecognizer.from_hparams({str(folder)!r}, trust={trust})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert target.exists() == trust
    assert (b"EncoderError" in done.stderr) == (not trust)


def test_the_export_of_an_ordinary_extension_needs_trust(folder, target):
    append(folder, "x: !new:collections.Counter\n  a: 2\n")
    assert "collections.Counter" in refused(folder, target, "--trust")
    model = EmotionRecognizer.from_hparams(folder, trust=True)
    assert model.hparams.x == {"a": 2}


@pytest.mark.parametrize(
    "file", ["vavl.safetensors", "visual_encoder.safetensors"]
)
@pytest.mark.parametrize("save", [torch.save, None])
def test_weights_that_are_a_pickle(folder, target, file, save):
    (folder / file).unlink()
    if save is not None:
        save({"x": Bomb(target)}, folder / file)
    else:
        (folder / file).write_bytes(pickle.dumps(Bomb(target)))
    refused(folder, target)
    with pytest.raises(EncoderError):
        EmotionRecognizer.from_hparams(folder, trust=True)
    assert not target.exists()
    # The pickle is one: whoever reads it makes the file.
    if save is None:
        pickle.loads((folder / file).read_bytes()).close()
        assert target.exists()


def test_pickled_weights_by_another_hook_or_name(folder, target):
    torch.save({"x": Bomb(target)}, folder / "vavl.ckpt")
    original = (folder / "hyperparams.yaml").read_text()
    replace(folder, "/vavl.safetensors", "/vavl.ckpt")
    refused(folder, target, "vavl.ckpt")
    (folder / "hyperparams.yaml").write_text(original)
    replace(folder, "weights.load_weights", "weights.save_weights")
    refused(folder, target, "save_weights|hook")
    text = original[: original.index("  custom_hooks")]
    (folder / "hyperparams.yaml").write_text(text)
    refused(folder, target, "custom_hooks")
    (folder / "hyperparams.yaml").write_text(original)
    torch.save({"x": Bomb(target)}, folder / "audio_encoder/pytorch_model.bin")
    refused(folder, target, "pytorch_model.bin")


@pytest.mark.parametrize(
    "place",
    [
        "!ref <pretrained_path>/../elsewhere.safetensors",
        "/tmp/elsewhere.safetensors",
        "elsewhere.safetensors",
        "!ref <corpus>/elsewhere.safetensors",
        "imagenet",
    ],
)
def test_files_outside_of_the_folder(folder, target, place):
    old = "!ref '<pretrained_path>/visual_encoder.safetensors'"
    replace(folder, old, place)
    refused(folder, target, "trust")


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("num_outputs: 2", "num_outputs: 3", "2 labels, but 3"),
        ("d_model: 16", "d_model: 32", "do not fit"),
        ("d_model: 16", "d_model: 1000000000", "does not fit"),
        ("encoder_layers: 1", "encoder_layers: 1000000000", "does not fit"),
        ("nhead: 8", "nhead: 7", "no network"),
        ("nhead: 8", "nhead: [8]", "not a number"),
        ("audio_dim: 80", "audio_dim: 81", "do not fit"),
        ("- happy\n", "- happy\n- sad\n", "3 labels"),
    ],
)
def test_sizes_that_do_not_fit(folder, target, old, new, words):
    replace(folder, old, new)
    refused(folder, target, words)


def test_an_encoder_of_another_size(folder, target):
    tensors = load_file(folder / "vavl.safetensors")
    net = VAVL(90, 1408, 2, d_model=16, encoder_layers=1, shared_layers=1)
    assert set(net.state_dict()) == set(tensors)
    save_file(net.state_dict(), folder / "vavl.safetensors")
    replace(folder, "audio_dim: 80", "audio_dim: 90")
    refused(
        folder, target, "gives 80 numbers a frame, but its network reads 90"
    )


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "a: [", "a: 1\n---\nb: 2\n", "a: *b\n", "\x00"]
)
def test_a_yaml_that_is_none(folder, target, text):
    (folder / "hyperparams.yaml").write_text(text)
    refused(folder, target)


def test_a_real_speech_encoder_is_let_through(
    exported, whisper_folder, tmp_path
):
    encoder = AudioEncoder(whisper_folder, num_layers=1)
    net = VAVL(encoder.output_dim, 1408, 2, d_model=16, encoder_layers=1)
    folder = tmp_path / "model"
    export_model(
        folder,
        net,
        FeatureExtractor(encoder, VisualEncoder(None), FaceTracker(None)),
        task="classification",
        labels=["angry", "happy"],
        corpus="none",
        attribute_range=None,
    )
    model = EmotionRecognizer.from_hparams(folder)
    assert model.trained_heads == ("audio", "visual", "audiovisual")
