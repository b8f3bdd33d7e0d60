"""Export of a trained model to a folder for inference.

The folder has everything that inference requires, including frozen encoders.
:class:`vavl_sb.inference.emotion.EmotionRecognizer` reads model.json.
hyperparams.yaml has the same content for SpeechBrain's ``Pretrained``, and is
also required to load encoders that are not vavl_sb's.
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
#  * the user who trained it with the recipe of the corpus below
# ################################
"""


class _Tagged:
    """A YAML node with a HyperPyYAML tag."""

    def __init__(self, tag, value):
        self.tag, self.value = tag, value


class _Dumper(yaml.SafeDumper):
    """Writes :class:`_Tagged` nodes, and lists on one line."""

    def ignore_aliases(self, data):
        """Disables YAML aliases."""
        return True


def _represent(dumper, node):
    """Represents a tagged mapping or a tagged scalar."""
    if isinstance(node.value, dict):
        return dumper.represent_mapping(node.tag, node.value)
    return dumper.represent_scalar(node.tag, node.value)


_Dumper.add_representer(_Tagged, _represent)


def _ref(text):
    """Creates a node that refers to another."""
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
    """Writes model.json, hyperparams.yaml, the model card README.md, and the
    weights of the network and encoders.

    The network is then loaded again and must give the same outputs; else no
    folder is written.

    Arguments
    ---------
    folder : str or Path
        Output folder, usually ``<output_folder>/inference``.
    net : vavl_sb.lobes.vavl.AudioVisualNetwork
        The trained network. Loading a class that is not vavl_sb's requires
        trust.
    feature_extractor : vavl_sb.features.extractor.FeatureExtractor
        Feature extractor with the encoders that the network was trained on.
    speaker_normalization : SpeakerNormalization
        Speaker normalization used in training, or None.
    train_speakers : iterable of str
        Training speakers, for the metadata.
    record : dict
        Further metadata: settings and scores of the run.
    **metadata
        ``task``, ``labels``, ``corpus``, ``attribute_range`` (lowest and
        highest value of an attribute, or None), ``trained_heads`` (a subset of
        "audio", "visual" and "audiovisual"; default all), and ``temperatures``
        (head to temperature; default 1).

    Raises
    ------
    VAVLError
        If the folder cannot be written, or the network, or an encoder that is
        not vavl_sb's, differs when it is loaded again.
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
        # Loading applies the same checks.
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
    """Maps each part to its class and constructor arguments; files written for
    it are Path arguments."""
    tracker = extractor.face_tracker
    encoders = {
        f"{modality}_encoder": getattr(extractor, f"{modality}_encoder")
        for modality in MODALITIES
    }
    for modality in MODALITIES:
        encoder = encoders[f"{modality}_encoder"]
        # Omits the weights of an encoder that no trained head uses.
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
    """Returns the name of a class with its module."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _plain(kind, arguments, folder):
    """Returns a part's entry in model.json; a user's class with its module."""
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
    """Sets file modes by the umask, since some writers make files private."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)


def _export_encoder(encoder, folder):
    """Writes an encoder's files; returns its constructor arguments."""
    arguments = encoder.export(folder)
    name = _class_name(type(encoder))
    if not name.startswith("vavl_sb."):
        _refuse_other(encoder, name, arguments)
    return arguments


def _refuse_other(encoder, name, arguments):
    """Raises an error if a user's encoder differs when it is created again."""
    paths = {k: str(v) for k, v in arguments.items() if isinstance(v, Path)}
    # The user's class may raise any error.
    try:
        with torch.random.fork_rng(devices=[]):
            fingerprint = type(encoder)(**{**arguments, **paths}).fingerprint()
    except Exception as error:
        reason = _reason(error)
    else:
        if fingerprint == encoder.fingerprint():
            return
        reason = "its settings or weights differ"
    raise EncoderError(
        f"{name}: the arguments of export() do not recreate the encoder "
        f"({reason}); let export() write the weights and return all arguments, "
        "then run the same command again"
    )


def _refuse_settings(net):
    """Raises an error if a network's arguments are unknown or not plain
    values."""
    try:
        json.dumps(net.settings)
    except (AttributeError, TypeError, ValueError) as error:
        raise EncoderError(
            f"{_class_name(type(net))}: cannot be exported ({_reason(error)}); "
            "subclass AudioVisualNetwork, with numbers, texts and lists as "
            "arguments"
        ) from None


def _refuse_other_network(net, folder):
    """Raises an error if the network's outputs differ after loading it."""
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
        reason = "its outputs differ"
    # The user's class may raise any error.
    except Exception as error:
        same, reason = False, _reason(error)
    if not same:
        raise EncoderError(
            f"{name}: the network changes when it is exported and loaded "
            f"({reason}); keep its state in parameters and buffers, its "
            "settings in constructor arguments, and its class in a module on "
            "PYTHONPATH, then run the same command again"
        )


def _outputs(net):
    """Returns the three heads' predictions for two clips, in eval mode."""
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
    """Returns whether two outputs are equal up to rounding, or both None."""
    if first is None or second is None:
        return first is second
    return torch.allclose(first.cpu(), second.cpu(), rtol=1e-4, atol=1e-5)


def _reason(error):
    """Formats an error of any kind in at most half a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def _nodes(parts, metadata, folder):
    """Returns the keys and nodes of hyperparams.yaml, in order."""

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
    encoder_refs = {name: _ref(f"<{name}>") for name in encoders}
    loadables = {"vavl": ("network", WEIGHTS)}
    if "speaker_normalization" in parts:
        loadables["speaker_normalizer"] = ("speaker_normalization", SPEAKERS)
    modules = {name: _ref(f"<{name}>") for name in loadables}
    hook = "!name:vavl_sb.utils.weights.load_weights"
    return {
        "pretrained_path": ".",  # from_hparams puts the model's folder here.
        **metadata,
        **{name: new(name) for name in (*encoders, "face_tracker")},
        "feature_extractor": new(
            "feature_extractor",
            **encoder_refs,
            face_tracker=_ref("<face_tracker>"),
        ),
        **{name: new(part) for name, (part, _) in loadables.items()},
        "modules": {**modules, **encoder_refs},
        "pretrainer": _Tagged(
            "!new:speechbrain.utils.parameter_transfer.Pretrainer",
            {
                "loadables": modules,
                "paths": {
                    name: _ref(f"<pretrained_path>/{file}")
                    for name, (_, file) in loadables.items()
                },
                "custom_hooks": {name: _Tagged(hook, {}) for name in loadables},
            },
        ),
    }
