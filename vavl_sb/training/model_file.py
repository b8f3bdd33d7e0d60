"""The one shape of an exported model: plain data beside safetensors.

``model.json`` names classes out of a table of vavl_sb's own and the arguments
that make them; each argument has a type and bounds. Nothing else decides what
an untrusted model makes, and no file outside of its folder is read.
"""

import importlib
import json
import math
import os
import stat
from pathlib import Path

from vavl_sb.lobes.fusion import NETWORKS
from vavl_sb.lobes.vavl import HEADS
from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.files import parse_json

MODEL = "model.json"
YAML = "hyperparams.yaml"  # For SpeechBrain's Pretrained; read with trust.
WEIGHTS = "vavl.safetensors"
SPEAKERS = "speaker_normalization.safetensors"
AUDIO_ENCODER = "audio_encoder"
VISUAL_ENCODER = "visual_encoder.safetensors"
# All that a speech encoder's folder may hold; none of it is a pickle.
ENCODER_FILES = {
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
}
FORMAT = 1  # Counts up when an older vavl_sb could not read it.
TASKS = ("classification", "regression")

MAX_FILE = 16 * 2**20  # Bytes of a model.json.
MAX_DEPTH = 20  # An object or list in another, and so on.
MAX_WEIGHTS = 2**34  # Bytes of a file of weights.


def _integer(low: int, high: int):
    """An integer within bounds."""
    return (
        f"an integer from {low} to {high}",
        lambda value: type(value) is int and low <= value <= high,
    )


def _number(low: float, high: float):
    """A number within bounds."""
    return (
        f"a number from {low:g} to {high:g}",
        lambda value: type(value) in (int, float) and low <= value <= high,
    )


def _one_of(*values):
    """One of a few values."""
    return (
        f"one of {', '.join(map(str, values))}",
        lambda value: any(
            type(value) is type(v) and value == v for v in values
        ),
    )


def _or_null(kind):
    """A kind of value, or null."""
    words, check = kind
    return f"{words}, or null", lambda value: value is None or check(value)


_BOOLEAN = ("true or false", lambda value: type(value) is bool)
_WIDTH = _integer(1, 2**17)
_RATE = _number(0.001, 1000)
_SHARE = _number(0, 1)
_NAMES = (
    "a list of names",
    lambda value: (
        type(value) is list
        and all(type(name) is str and len(name) <= 200 for name in value)
    ),
)

# Arguments of networks. Each head of attention holds frames x frames scores.
_NETWORK = {
    "audio_dim": _WIDTH,
    "visual_dim": _WIDTH,
    "num_outputs": _integer(1, 1000),
    "d_model": _integer(1, 2**13),
    "projection_dim": _integer(1, 2**13),
    "encoder_layers": _integer(1, 100),
    "shared_layers": _integer(0, 100),
    "residual": _BOOLEAN,
    "nhead": _integer(1, 16),
    "d_ffn": _or_null(_integer(1, 2**15)),
    "kernel_size": _integer(1, 2**10),
    "dropout": _SHARE,
    "head_dropout": _SHARE,
    "modality_dropout": _SHARE,
    "feature_noise": _number(0, 1000),
    "strength": _or_null(_number(1e-12, 1e12)),
    "discriminant": _BOOLEAN,
    "fuse": _one_of("product", "head", "both"),
}
_NETWORKS = tuple(path.rpartition(".")[2] for path in NETWORKS.values())

# Class to its module and to the arguments that it may get.
CLASSES = {
    **{
        path.rpartition(".")[2]: (path.rpartition(".")[0], _NETWORK)
        for path in NETWORKS.values()
    },
    "SpeakerNormalization": (
        "vavl_sb.lobes.speaker_normalization",
        {
            "audio_dim": _WIDTH,
            "visual_dim": _WIDTH,
            "num_outputs": _integer(1, 1000),
            "iterative": _BOOLEAN,
        },
    ),
    "AudioEncoder": (
        "vavl_sb.lobes.audio_encoder",
        {
            "source": _one_of(AUDIO_ENCODER),
            "num_layers": _or_null(_integer(1, 1000)),
            "output_all_hiddens": _BOOLEAN,
            "average": _integer(1, 10**6),
            "whisper_window": _one_of("clip", "30s"),
        },
    ),
    "VisualEncoder": (
        "vavl_sb.lobes.visual_encoder",
        {"weights": _one_of(VISUAL_ENCODER)},
    ),
    "Precomputed": (
        "vavl_sb.lobes.precomputed",
        {
            "output_dim": _WIDTH,
            "frame_rate": _or_null(_RATE),
            "columns": _or_null(_NAMES),
        },
    ),
    "FaceTracker": (
        "vavl_sb.faces.tracker",
        {
            "detector": _one_of("mtcnn", None),
            "size": _integer(8, 512),
            "detection_rate": _or_null(_RATE),
            "max_gap": _number(0, 3600),
            "lost_after": _number(0, 3600),
            "detection_batch": _integer(1, 256),
        },
    ),
    "FeatureExtractor": (
        "vavl_sb.features.extractor",
        {
            "frame_rate": _or_null(_RATE),
            "batch_frames": _integer(1, 256),
            "audio_pooling": _one_of(None, "mean", "statistics"),
            "visual_pooling": _one_of(None, "mean", "statistics"),
        },
    ),
}
# What a model is made of, and the classes that may stand there.
PARTS = {
    "network": _NETWORKS,
    "audio_encoder": ("AudioEncoder", "Precomputed"),
    "visual_encoder": ("VisualEncoder", "Precomputed"),
    "face_tracker": ("FaceTracker",),
    "feature_extractor": ("FeatureExtractor",),
}
# What it may have beside these.
OPTIONAL_PARTS = {"speaker_normalization": ("SpeakerNormalization",)}


KEYS = (
    *("format", "task", "labels", "corpus", "attribute_range"),
    *("trained_heads", "temperatures", "metadata"),
)


def read_model(folder: str | Path) -> dict:
    """The content of an exported model's ``model.json``; nothing is made.

    ``task``, ``labels``, ``corpus``, ``attribute_range``, ``trained_heads``,
    ``temperatures``, the parts of :data:`PARTS` and perhaps
    :data:`OPTIONAL_PARTS` (``class`` and ``arguments`` each), and ``metadata``. EncoderError, in one line: the file is missing, is
    not strict JSON, or lacks a key or has a value of another kind.
    """
    path = Path(folder) / MODEL
    check_file(path, MAX_FILE)
    try:
        model = parse_json(
            path.read_text(encoding="utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_fits_a_float,
            object_pairs_hook=_no_key_twice,
        )
        _refuse_deep(model)
        # Half of a surrogate pair is no text and cannot be printed.
        json.dumps(model, ensure_ascii=False).encode("utf-8")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"{path}: is not plain JSON ({reason}); export the model again"
        ) from None
    for key, words, check in (
        ("format", *_one_of(FORMAT)),
        ("task", *_one_of(*TASKS)),
        ("labels", "a list of different names", _are_labels),
        ("corpus", "text", lambda value: type(value) is str),
        ("attribute_range", "null, or lowest and highest value", _is_range),
        ("trained_heads", f"some of {', '.join(HEADS)}", _are_heads),
        ("temperatures", "heads and numbers from 0.01 to 100", _is_scaling),
        ("metadata", "what an export records", _is_metadata),
        *((part, "class and arguments", _is_part) for part in PARTS),
        *(
            (part, "class and arguments", _is_part)
            for part in OPTIONAL_PARTS
            if type(model) is dict and part in model
        ),
    ):
        value = model.get(key, ...) if type(model) is dict else ...
        if not check(value):
            shown = "missing" if value is ... else repr(value)[:60]
            raise EncoderError(
                f"{path}: {key} must be {words}, not {shown}; export the "
                "model again"
            )
    unknown = model.keys() - {*KEYS, *PARTS, *OPTIONAL_PARTS}
    if unknown:
        raise EncoderError(
            f"{path}: has an unknown key {min(unknown)[:80]!r}; export the "
            "model again"
        )
    return model


def check_parts(model: dict, path: str | Path) -> None:
    """Refuses classes and arguments that no export of vavl_sb has.

    EncoderError, in one line with the ``path`` of the model: a class is not one
    of :data:`CLASSES`, or an argument is unknown, of another type, or out of
    bounds.
    """
    for part, allowed in {**PARTS, **OPTIONAL_PARTS}.items():
        if part not in model:
            continue
        name, arguments = model[part]["class"], model[part]["arguments"]
        if name not in allowed:
            raise EncoderError(
                f"{path}: {part} is a {name[:80]}, which is not vavl_sb's and "
                "could run any code; give trust=True (--trust) only if you "
                "trust whoever made the model"
            )
        kinds = CLASSES[name][1]
        for key in {"source", "output_dim"} & {*kinds}:  # Without a default.
            arguments = {key: None, **arguments}
        for key, value in arguments.items():
            if key not in kinds:
                raise EncoderError(
                    f"{path}: {part} has an unknown argument {key[:80]!r}; "
                    "export the model again"
                )
            words, check = kinds[key]
            if not check(value):
                raise EncoderError(
                    f"{path}: {key} of {part} must be {words}, not "
                    f"{repr(value)[:60]}; export the model again"
                )
    labels = model["labels"]
    for part in ("network", *(p for p in OPTIONAL_PARTS if p in model)):
        outputs = model[part]["arguments"].get("num_outputs")
        if len(labels) != outputs:
            raise EncoderError(
                f"{path}: {len(labels)} labels, but {outputs} outputs; export "
                "the model again"
            )


def find_class(name: str) -> type:
    """A class of :data:`CLASSES`, by name, imported."""
    return getattr(importlib.import_module(CLASSES[name][0]), name)


def check_file(path: str | Path, most: int = MAX_WEIGHTS) -> None:
    """Refuses, by an EncoderError in one line, what is no regular file of at
    most so many bytes."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        raise EncoderError(
            f"{path}: is missing from the model; copy the whole folder, or "
            "export it again"
        ) from None
    # A named pipe would be waited for, a device read without an end.
    if not stat.S_ISREG(found.st_mode):
        raise EncoderError(f"{path}: is not a file; export the model again")
    if found.st_size > most:
        raise EncoderError(
            f"{path}: has {found.st_size} bytes, more than the {most} that a "
            "model may have; export it again"
        )


def _refuse_constant(name):
    """NaN and infinities, which JSON does not know."""
    raise ValueError(f"{name} in it")


def _finite(text):
    """A float that is one: 1e999 would be infinity."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} in it")
    return value


def _fits_a_float(text):
    """An integer that can be scored, scaled and printed as a float can."""
    _finite(text)
    return int(text)


def _refuse_deep(value, left=MAX_DEPTH):
    """Refuses what whoever prints it or walks through it cannot follow."""
    if left < 0:
        raise ValueError("nested too deep")
    inner = value.values() if type(value) is dict else value
    for item in inner if type(value) in (dict, list) else ():
        _refuse_deep(item, left - 1)


def _no_key_twice(pairs):
    """A JSON object, of which every reader sees the same."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that stands twice")
    return found


def _are_labels(value):
    """Names of classes or attributes, none twice."""
    return (
        type(value) is list
        and 1 <= len(value) <= 1000
        and all(type(name) is str and 0 < len(name) <= 200 for name in value)
        and len(set(value)) == len(value)
    )


def _is_range(value):
    """None, or two numbers in order."""
    return value is None or (
        type(value) is list
        and len(value) == 2
        and all(type(limit) in (int, float) for limit in value)
        and value[0] < value[1]
    )


def _are_heads(value):
    """Heads that were trained, none twice."""
    return (
        type(value) is list
        and len(value) > 0
        and all(value.count(head) == 1 and head in HEADS for head in value)
    )


def _is_scaling(value):
    """Heads, each with its temperature."""
    _, check = _number(0.01, 100)
    return type(value) is dict and all(
        head in HEADS and check(number) for head, number in value.items()
    )


def _is_metadata(value):
    """What is recorded of a run, as far as the package reads it."""
    if type(value) is not dict:
        return False
    objects = ("encoders", "encoder_names", "run", "test", "n_test", "licences")
    test = value.get("test") or {}
    speakers = value.get("train_speakers", [])
    return (
        all(type(value.get(key, {})) is dict for key in objects)
        and all(type(value.get(k, "")) is str for k in ("target", "ceiling"))
        and all(
            type(scores) is dict and type(scores.get("ccc", {})) is dict
            for scores in test.values()
        )
        and type(value.get("train_clips", 0)) is int
        and type(speakers) is list
        and all(type(name) is str for name in speakers)
    )


def _is_part(value):
    """A class's name and its arguments."""
    return (
        type(value) is dict
        and value.keys() == {"class", "arguments"}
        and type(value["class"]) is str
        and type(value["arguments"]) is dict
    )
