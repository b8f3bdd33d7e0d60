"""The folder that a run leaves for others: weights, and how to use them.

It holds everything that inference needs, the frozen encoders included.
model.json is what :class:`vavl_sb.inference.emotion.EmotionRecognizer` reads;
hyperparams.yaml says the same for SpeechBrain's ``Pretrained``, and alone can
make an encoder of a user's own.
"""

import json
import os
import pydoc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import yaml
from speechbrain.utils.distributed import if_main_process

from vavl_sb.lobes.precomputed import Precomputed
from vavl_sb.lobes.speaker_normalization import SpeakerNormalization
from vavl_sb.lobes.vavl import HEADS, MODALITIES
from vavl_sb.training.model_card import write_card
from vavl_sb.training.model_file import (
    CLASSES,
    MODEL,
    PARTS,
    SPEAKERS,
    WEIGHTS,
    YAML,
    check_parts,
    find_class,
)
from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.files import (
    read_json,
    write_atomically,
    write_folder,
    write_json,
)
from vavl_sb.utils.logger import get_logger
from vavl_sb.utils.weights import load_weights, save_weights

logger = get_logger(__name__)

HEADER = """\
# ################################
# VAVL, exported by vavl_sb for vavl_sb.inference.EmotionRecognizer
# https://arxiv.org/abs/2305.07216
#
# Authors:
#  * whoever trained it with the recipe of the corpus named below
# ################################
"""


class _Tagged:
    """A YAML node with a HyperPyYAML tag."""

    def __init__(self, tag, value):
        self.tag, self.value = tag, value


class _Dumper(yaml.SafeDumper):
    """Writes :class:`_Tagged` nodes, and lists on one line."""

    def ignore_aliases(self, data):
        """Every node is written out where it stands."""
        return True


def _represent(dumper, node):
    """A tagged mapping, or a tagged scalar."""
    if isinstance(node.value, dict):
        return dumper.represent_mapping(node.tag, node.value)
    return dumper.represent_scalar(node.tag, node.value)


_Dumper.add_representer(_Tagged, _represent)


def _ref(text):
    """A node that refers to another."""
    return _Tagged("!ref", text)


def export_model(
    folder: str | Path,
    net: Any,
    feature_extractor: Any,
    speaker_normalization: SpeakerNormalization | None = None,
    train_speakers: Iterable[str] = (),
    record: dict | None = None,
    **metadata,
) -> None:
    """Writes model.json, hyperparams.yaml, the card README.md, and the weights
    of network and encoders. Before the folder gets its name, the network is
    made anew from it and must give the same outputs.

    Arguments
    ---------
    folder : str or Path
        Where to write, usually ``<output_folder>/inference``.
    net : vavl_sb.lobes.vavl.AudioVisualNetwork
        The trained network, of whatever class; one that is not vavl_sb's needs
        trust to be loaded.
    feature_extractor : vavl_sb.features.extractor.FeatureExtractor
        With the encoders that the network was trained on.
    speaker_normalization : SpeakerNormalization
        That it was trained with; None for none.
    train_speakers : iterable of str
        Whom the network was trained on, for the metadata.
    record : dict
        More metadata: what the run was and how well it scored.
    **about
        ``task``, ``labels``, ``corpus``, ``attribute_range`` (lowest and
        highest value of an attribute, or None), ``trained_heads`` (those of
        "audio", "visual" and "audiovisual" that have learned; left out, all
        have), and ``temperatures`` (head to what its logits are divided by;
        1 for heads that are left out).

    Raises
    ------
    VAVLError
        In one line: it cannot be written, or the network, or an encoder that
        is not vavl_sb's, would not come back the same.
    """
    if not if_main_process():
        return
    with write_folder(folder) as part:
        _write_model(
            part,
            *(net, feature_extractor, speaker_normalization),
            *(train_speakers, record, metadata),
        )
    logger.info("Exported the model to %s", folder)


def _write_model(
    folder, net, extractor, normalization, train_speakers, record, metadata
):
    """Writes all files of an export."""
    _refuse_settings(net)
    save_weights(net, folder / WEIGHTS)
    metadata = {"trained_heads": list(HEADS), "temperatures": {}, **metadata}
    parts = _parts(net, extractor, folder, metadata["trained_heads"])
    if normalization is not None:
        save_weights(normalization, folder / SPEAKERS)
        made = type(normalization), normalization.settings
        parts["speaker_normalization"] = made
    model = {
        "format": 1,
        **metadata,
        **{part: _plain(*made, folder) for part, made in parts.items()},
        "metadata": {
            "encoders": {m: extractor.fingerprint(m) for m in MODALITIES},
            "train_speakers": sorted(train_speakers),
            "parameters": sum(p.numel() for p in net.parameters()),
            **(record or {}),
        },
    }
    if all(model[part]["class"] in CLASSES for part in PARTS):
        # What is written here must be let through wherever it is loaded.
        check_parts(model, folder / MODEL)
    write_json(folder / MODEL, model)
    _refuse_other_network(net, folder)
    text = HEADER + "".join(
        yaml.dump({key: node}, Dumper=_Dumper, sort_keys=False)
        for key, node in _nodes(parts, metadata, folder).items()
    )
    write_atomically(folder / YAML, text.encode())
    write_card(folder)
    _let_others_read(folder)


def _parts(net, extractor, folder, heads):
    """Part to its class and the arguments that make it anew, with a Path for
    each file that was written for it."""
    tracker = extractor.face_tracker
    encoders = {
        f"{modality}_encoder": getattr(extractor, f"{modality}_encoder")
        for modality in MODALITIES
    }
    for modality in MODALITIES:
        encoder = encoders[f"{modality}_encoder"]
        # Weights that no head has learned to read are left out.
        if not {modality, "audiovisual"} & set(heads) and any(
            True for _ in encoder.parameters()
        ):
            encoders[f"{modality}_encoder"] = Precomputed(encoder.output_dim)
    return {
        "network": (type(net), net.settings),
        **{
            k: (type(e), _export_encoder(e, folder))
            for k, e in encoders.items()
        },
        "face_tracker": (type(tracker), tracker.arguments),
        "feature_extractor": (type(extractor), extractor.arguments),
    }


def _class_name(kind):
    """A class with its module."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _plain(kind, arguments, folder):
    """A part as model.json has it; an own class with its module."""
    known = CLASSES.get(kind.__name__, (None,))[0] == kind.__module__
    return {
        "class": kind.__name__ if known else _class_name(kind),
        "arguments": {
            key: value.relative_to(folder).as_posix()
            if isinstance(value, Path)
            else value
            for key, value in arguments.items()
        },
    }


def _let_others_read(folder):
    """Modes as the umask has them; some writers leave files to their owner."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)


def _export_encoder(encoder, folder):
    """Writes an encoder's files; gives the arguments that make it anew."""
    arguments = encoder.export(folder)
    name = _class_name(type(encoder))
    if not name.startswith("vavl_sb."):
        _refuse_other(encoder, name, arguments)
    return arguments


def _refuse_other(encoder, name, arguments):
    """Refuses a user's encoder that would not come back the same."""
    paths = {k: str(v) for k, v in arguments.items() if isinstance(v, Path)}
    # Whatever is wrong in the user's class, the user needs the one line.
    try:
        with torch.random.fork_rng(devices=[]):
            fingerprint = type(encoder)(**{**arguments, **paths}).fingerprint()
    except Exception as error:
        reason = _reason(error)
    else:
        if fingerprint == encoder.fingerprint():
            return
        reason = "its settings or weights are others"
    raise EncoderError(
        f"{name}: what export() gives does not make the same encoder "
        f"({reason}); let export() write the weights and give all arguments, "
        "then run the same command again"
    )


def _refuse_settings(net):
    """Refuses a network whose arguments are not known, or no plain values."""
    try:
        json.dumps(net.settings)
    except (AttributeError, TypeError, ValueError) as error:
        raise EncoderError(
            f"{_class_name(type(net))}: cannot be exported ({_reason(error)}); "
            "subclass AudioVisualNetwork, with numbers, texts and lists as "
            "arguments"
        ) from None


def _refuse_other_network(net, folder):
    """Refuses a network that its files do not bring back as it is."""
    name = _class_name(type(net))
    try:
        made = read_json(folder / MODEL)["network"]
        if made["class"] in CLASSES:
            kind = find_class(made["class"])
        elif name.startswith("__main__."):
            raise ImportError("its class is in the script that runs")
        elif (kind := pydoc.locate(name)) is None:
            raise ImportError("its class cannot be imported")
        with torch.random.fork_rng(devices=[]):
            again = kind(**made["arguments"])
        load_weights(again, folder / WEIGHTS)
        same = all(map(_close, _outputs(net), _outputs(again)))
        reason = "its outputs are others"
    # Whatever is wrong in the user's class, the user needs the one line.
    except Exception as error:
        same, reason = False, _reason(error)
    if not same:
        raise EncoderError(
            f"{name}: what was exported does not make the same network "
            f"({reason}); keep what it learns in parameters and buffers, what "
            "it is made with in its arguments, and its class in a module on "
            "PYTHONPATH, then run the same command again"
        )


def _outputs(net):
    """What the three heads say about two clips, in eval mode."""
    random = torch.Generator().manual_seed(0)
    settings, device = net.settings, next(net.parameters()).device
    inputs = {
        modality: torch.randn(
            2, frames, settings[f"{modality}_dim"], generator=random
        ).to(device)
        for modality, frames in zip(MODALITIES, (6, 5))
    }
    lens = {f"{m}_lens": torch.tensor([1.0, 0.6]).to(device) for m in inputs}
    modes = {module: module.training for module in net.modules()}
    net.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        out = net(**inputs, **lens)
    for module, mode in modes.items():
        module.training = mode
    return [getattr(out, head) for head in HEADS]


def _close(first, second):
    """Whether two outputs, either of which may be None, are the same."""
    if first is None or second is None:
        return first is second
    return torch.allclose(first.cpu(), second.cpu(), rtol=1e-4, atol=1e-5)


def _reason(error):
    """An error of any kind, in half a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def _nodes(parts, metadata, folder):
    """The keys of hyperparams.yaml, in order."""

    def new(part, **more):
        kind, arguments = parts[part]
        arguments = {
            key: _ref(f"<pretrained_path>/{value.relative_to(folder)}")
            if isinstance(value, Path)
            else value
            for key, value in arguments.items()
        }
        return _Tagged(f"!new:{_class_name(kind)}", {**more, **arguments})

    encoders = ("audio_encoder", "visual_encoder")
    made = {name: _ref(f"<{name}>") for name in encoders}
    weighed = {"vavl": ("network", WEIGHTS)}
    if "speaker_normalization" in parts:
        weighed["speaker_normalizer"] = ("speaker_normalization", SPEAKERS)
    modules = {name: _ref(f"<{name}>") for name in weighed}
    hook = "!name:vavl_sb.utils.weights.load_weights"
    return {
        "pretrained_path": ".",  # from_hparams puts the model's folder here.
        **metadata,
        **{name: new(name) for name in (*encoders, "face_tracker")},
        "feature_extractor": new(
            "feature_extractor", **made, face_tracker=_ref("<face_tracker>")
        ),
        **{name: new(part) for name, (part, _) in weighed.items()},
        "modules": {**modules, **made},
        "pretrainer": _Tagged(
            "!new:speechbrain.utils.parameter_transfer.Pretrainer",
            {
                "loadables": modules,
                "paths": {
                    name: _ref(f"<pretrained_path>/{file}")
                    for name, (_, file) in weighed.items()
                },
                "custom_hooks": {name: _Tagged(hook, {}) for name in weighed},
            },
        ),
    }
