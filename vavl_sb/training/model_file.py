"""Format of an exported model: plain JSON and safetensors.

``model.json`` has classes from the table :data:`CLASSES` and their constructor
arguments, each with a type and bounds. An untrusted model can create nothing
else, and no file outside of its folder is read.
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
YAML = "hyperparams.yaml"  # For SpeechBrain's Pretrained; requires trust.
WEIGHTS = "vavl.safetensors"
SPEAKERS = "speaker_normalization.safetensors"
AUDIO_ENCODER = "audio_encoder"
VISUAL_ENCODER = "visual_encoder.safetensors"
# Files allowed in a speech encoder's folder; none is a pickle.
ENCODER_FILES = {
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
}
FORMAT = 1  # Increase when older versions of vavl_sb cannot read it.
TASKS = ("classification", "regression")

MAX_FILE = 16 * 2**20  # Bytes of model.json.
MAX_DEPTH = 20  # Nesting of objects and lists.
MAX_WEIGHTS = 2**34  # Bytes of a weight file.


def _integer(low: int, high: int):
    """Words and check for an integer within bounds."""
    return (
        f"an integer from {low} to {high}",
        lambda value: type(value) is int and low <= value <= high,
    )


def _number(low: float, high: float):
    """Words and check for a number within bounds."""
    return (
        f"a number from {low:g} to {high:g}",
        lambda value: type(value) in (int, float) and low <= value <= high,
    )


def _one_of(*values):
    """Words and check for one of the given values."""
    return (
        f"one of {', '.join(map(str, values))}",
        lambda value: any(
            type(value) is type(v) and value == v for v in values
        ),
    )


def _or_null(kind):
    """Words and check for a kind of value or null."""
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

# Arguments of networks. Attention scores take nhead x frames x frames memory.
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

# Module and allowed arguments of each class.
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
# Parts of a model, and the classes allowed for each.
PARTS = {
    "network": _NETWORKS,
    "audio_encoder": ("AudioEncoder", "Precomputed"),
    "visual_encoder": ("VisualEncoder", "Precomputed"),
    "face_tracker": ("FaceTracker",),
    "feature_extractor": ("FeatureExtractor",),
}
OPTIONAL_PARTS = {"speaker_normalization": ("SpeakerNormalization",)}

KEYS = (
    *("format", "task", "labels", "corpus", "attribute_range"),
    *("trained_heads", "temperatures", "metadata"),
)


def read_model(folder: str | Path) -> dict:
    """Reads and checks the ``model.json`` of an exported model; creates no
    objects.

    Returns ``task``, ``labels``, ``corpus``, ``attribute_range``,
    ``trained_heads``, ``temperatures``, ``metadata``, and ``class`` and
    ``arguments`` of each of :data:`PARTS` and of :data:`OPTIONAL_PARTS` that
    the model has. Raises an EncoderError if the file is missing or not strict
    JSON, or a key is missing, unknown or has an invalid value.
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
        # Half of a surrogate pair cannot be encoded or printed.
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
    """Checks the classes and arguments of a model.

    Raises an EncoderError with the ``path`` of the model if a class is not in
    :data:`CLASSES`, or an argument is unknown or out of bounds.
    """
    for part, allowed in {**PARTS, **OPTIONAL_PARTS}.items():
        if part not in model:
            continue
        name, arguments = model[part]["class"], model[part]["arguments"]
        if name not in allowed:
            raise EncoderError(
                f"{path}: {part} is a {name[:80]}, which is not vavl_sb's and "
                "could run any code; give trust=True (--trust) only if you "
                "trust the author of the model"
            )
        kinds = CLASSES[name][1]
        for key in {"source", "output_dim"} & {*kinds}:  # Required arguments.
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
    """Imports a class of :data:`CLASSES` by name."""
    return getattr(importlib.import_module(CLASSES[name][0]), name)


def check_file(path: str | Path, most: int = MAX_WEIGHTS) -> None:
    """Raises an EncoderError unless a path is a regular file of at most
    ``most`` bytes."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        raise EncoderError(
            f"{path}: is missing from the model; copy the whole folder, or "
            "export it again"
        ) from None
    # Reading a named pipe would block, reading a device might never end.
    if not stat.S_ISREG(status.st_mode):
        raise EncoderError(f"{path}: is not a file; export the model again")
    if status.st_size > most:
        raise EncoderError(
            f"{path}: has {status.st_size} bytes, more than the {most} that a "
            "model may have; export it again"
        )


def _refuse_constant(name):
    """Refuses NaN and infinities, which are not valid JSON."""
    raise ValueError(f"{name} in it")


def _finite(text):
    """Parses a float; refuses overflows such as 1e999."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} in it")
    return value


def _fits_a_float(text):
    """Parses an integer; refuses integers beyond the range of a float."""
    _finite(text)
    return int(text)


def _refuse_deep(value, left=MAX_DEPTH):
    """Refuses nesting that could exceed the recursion limit of other code."""
    if left < 0:
        raise ValueError("nested too deep")
    inner = value.values() if type(value) is dict else value
    for item in inner if type(value) in (dict, list) else ():
        _refuse_deep(item, left - 1)


def _no_key_twice(pairs):
    """Refuses repeated keys, which JSON readers treat differently."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key that stands twice")
    return content


def _are_labels(value):
    """Checks for a list of different names of classes or attributes."""
    return (
        type(value) is list
        and 1 <= len(value) <= 1000
        and all(type(name) is str and 0 < len(name) <= 200 for name in value)
        and len(set(value)) == len(value)
    )


def _is_range(value):
    """Checks for None or two increasing numbers."""
    return value is None or (
        type(value) is list
        and len(value) == 2
        and all(type(limit) in (int, float) for limit in value)
        and value[0] < value[1]
    )


def _are_heads(value):
    """Checks for a list of different heads."""
    return (
        type(value) is list
        and len(value) > 0
        and all(value.count(head) == 1 and head in HEADS for head in value)
    )


def _is_scaling(value):
    """Checks for a map of heads to temperatures."""
    _, check = _number(0.01, 100)
    return type(value) is dict and all(
        head in HEADS and check(number) for head, number in value.items()
    )


def _is_metadata(value):
    """Checks the metadata of the run that the package reads."""
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
    """Checks for a class's name and its arguments."""
    return (
        type(value) is dict
        and value.keys() == {"class", "arguments"}
        and type(value["class"]) is str
        and type(value["arguments"]) is dict
    )
