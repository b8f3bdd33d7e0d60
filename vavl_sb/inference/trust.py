"""What may be in a model's folder before anything of it is run.

A hyperparams.yaml can make any Python object and call any function, so that
whoever writes one can run code on the machine that loads it. Without trust,
only what :mod:`vavl_sb.training.export` writes is let through: these tags,
these arguments, files within the folder, tensors in safetensors.

Authors
 * The vavl_sb authors 2026
"""

import os
import re
from pathlib import Path

from hyperpyyaml import resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from speechbrain.utils.run_opts import RunOptions

from vavl_sb.utils.errors import EncoderError

CORE = "tag:yaml.org,2002:"
PLAIN = {
    CORE + kind for kind in "str int float bool null seq map".split()
}  # Not merge keys, timestamps, sets, nor binary: no export has them.

# Classes that an export makes, and the arguments that they may get.
CLASSES = {
    "vavl_sb.lobes.audio_encoder.AudioEncoder": {
        *(
            "source",
            "num_layers",
            "freeze",
            "hop_ms",
            "output_all_hiddens",
            "average",
        ),
        *("freeze_feature_extractor", "spec_augment"),
    },
    "vavl_sb.lobes.visual_encoder.VisualEncoder": {
        *("weights", "freeze", "batch_size"),
    },
    "vavl_sb.faces.tracker.FaceTracker": {
        *("detector", "size", "detection_rate", "max_gap", "lost_after"),
        *("device", "detection_batch"),
    },
    "vavl_sb.features.extractor.FeatureExtractor": {
        *("audio_encoder", "visual_encoder", "face_tracker", "frame_rate"),
        "batch_frames",
    },
    "vavl_sb.lobes.vavl.VAVL": None,  # Numbers and booleans, all of them.
    "speechbrain.utils.parameter_transfer.Pretrainer": {
        *("loadables", "paths", "custom_hooks"),
    },
}
# Layers and their like, which can do no more than compute.
LAYERS = re.compile(r"(torch\.nn|speechbrain\.nnet\.\w+)\.[A-Z]\w*")
HOOK = "!name:vavl_sb.utils.weights.load_weights"

# Keys that SpeechBrain takes for options of the run (device, jit, ...).
RUN_OPTIONS = {*RunOptions().as_dict()}

# Arguments that name files.
FILES = ("source", "weights")
REFERENCE = re.compile(r"<\w+>")
PLACE = re.compile(r"<pretrained_path>((/[\w-][\w.-]*)+)")

# All that a speech encoder's folder has; of these none is a pickle.
ENCODER_FILES = {
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
}


def read_safe(path, overrides=None):
    """The text of a model's YAML, refused if it asks for more than an export.

    The file is read once. It is checked as it stands and once more with its
    references resolved, since HyperPyYAML follows ``<...>`` in plain text
    too. Nothing is constructed.

    Arguments
    ---------
    path : Path
        The hyperparams.yaml, in the model's folder.
    overrides : dict
        Keys to change, with which the references are resolved.

    Returns
    -------
    str
        What was checked, to be loaded in place of the file.

    Raises
    ------
    EncoderError
        In one line that names what is not let through.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        # The parser that HyperPyYAML reads with, so that both see the same.
        root = YAML().compose(text)
        events = list(YAML().parse(text))
    except (OSError, ValueError, YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"{path}: cannot be read ({reason}); export the model again"
        ) from None
    try:
        if not isinstance(root, MappingNode):
            raise _Refused("no keys and values")
        if any(getattr(event, "anchor", None) for event in events):
            raise _Refused("an anchor or an alias")
        _check(root, path.parent)
        for key, _ in root.value:
            if key.value in RUN_OPTIONS:
                raise _Refused(f"the run option {key.value}")
        resolved = resolve_references(text, overrides).getvalue()
        _check_resolved(YAML().compose(resolved), set())
        return text
    except _Refused as refused:
        raise EncoderError(
            f"{path}: has {refused} in it, which no export of vavl_sb has and "
            "which could run any code; give trust=True (--trust) only if you "
            "trust whoever made the model"
        ) from None
    except (ValueError, KeyError, YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"{path}: has references that lead nowhere ({reason}); export the "
            "model again"
        ) from None
    except RecursionError:
        raise EncoderError(f"{path}: nested too deeply") from None


class _Refused(Exception):
    """What is not let through, in a few words."""


def _check(node, folder):
    """Walks through all nodes below a node."""
    tag = _tag(node)
    if tag not in PLAIN:
        _check_tag(tag, node, folder)
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or _tag(key) not in PLAIN:
                raise _Refused("a key that is no text")
            _check(key, folder)
            _check(value, folder)
    elif isinstance(node, SequenceNode):
        for value in node.value:
            _check(value, folder)
    elif node.value.lstrip().startswith("("):
        # HyperPyYAML hands what looks like a tuple to an unsafe loader.
        raise _Refused(f"the tuple {node.value[:40]!r}")
    elif "<" in node.value and tag != "!ref":
        raise _Refused(f"the reference {node.value[:40]!r} without !ref")


def _check_resolved(node, seen):
    """What references lead to: no tag that the text itself does not have."""
    if id(node) in seen:
        return
    seen.add(id(node))
    tag = _tag(node)
    name = tag.partition(":")[2]
    if not (
        tag in PLAIN or tag == HOOK or name in CLASSES or LAYERS.fullmatch(name)
    ):
        raise _Refused(f"the tag {tag[:80]}")
    if isinstance(node, ScalarNode):
        if node.value.lstrip().startswith("("):
            raise _Refused(f"the tuple {node.value[:40]!r}")
        return
    for value in node.value:
        for part in value if isinstance(value, tuple) else (value,):
            _check_resolved(part, seen)


def _tag(node):
    """A node's tag, as text."""
    return str(getattr(node.tag, "value", node.tag))


def _check_tag(tag, node, folder):
    """Lets through what an export writes."""
    if tag == "!ref" and isinstance(node, ScalarNode):
        place = PLACE.fullmatch(node.value)
        if place is None and not REFERENCE.fullmatch(node.value):
            raise _Refused(f"the reference {node.value[:60]!r}")
        return
    if tag == HOOK and isinstance(node, MappingNode) and not node.value:
        return
    kind, _, name = tag.partition(":")
    if kind == "!new" and name in CLASSES and isinstance(node, MappingNode):
        arguments = {key.value: value for key, value in node.value}
        allowed = CLASSES[name]
        for argument, value in arguments.items():
            if allowed is not None and argument not in allowed:
                raise _Refused(f"{argument} of {name}")
            if argument in FILES:
                _check_place(value, folder)
        if name.endswith(".Pretrainer"):
            _check_pretrainer(arguments, folder)
        return
    if kind == "!new" and LAYERS.fullmatch(name):
        return
    raise _Refused(f"the tag {tag[:80]}")


def _check_pretrainer(arguments, folder):
    """Each weight by our own hook: the other ones read pickles."""
    keys = {}
    for name in ("loadables", "paths", "custom_hooks"):
        node = arguments.get(name)
        if not isinstance(node, MappingNode):
            raise _Refused(f"a Pretrainer without {name}")
        keys[name] = {key.value for key, _ in node.value}
        for _, value in node.value:
            if name == "paths":
                _check_place(value, folder)
            elif name == "custom_hooks" and _tag(value) != HOOK:
                raise _Refused("a Pretrainer's hook that is not load_weights")
    if not keys["loadables"] == keys["paths"] == keys["custom_hooks"]:
        raise _Refused("a Pretrainer with weights that have no hook")


def _check_place(node, folder):
    """Files within the model's folder, none of them a pickle."""
    place = None
    if _tag(node) == "!ref" and isinstance(node, ScalarNode):
        place = PLACE.fullmatch(node.value)
    if place is None:
        raise _Refused("a file outside of the model's folder")
    path = folder / place.group(1)[1:]
    # As os.path has it: False also for a name that cannot be one.
    if not os.path.exists(path) and path.suffix in ("", ".safetensors"):
        raise EncoderError(
            f"{path}: is missing from the model; copy the whole folder, or "
            "export it again"
        )
    if path.is_dir():
        others = {p.name for p in path.iterdir()} - ENCODER_FILES
        if others:
            raise _Refused(f"{path.name}/{min(others)}")
    elif path.suffix != ".safetensors":
        raise _Refused(f"weights that are not safetensors ({path.name})")
