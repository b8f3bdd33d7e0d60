"""The folder that a run leaves for others: weights, and how to use them.

The folder holds everything that inference needs, the frozen encoders
included: it is loaded by
:class:`vavl_sb.inference.emotion.EmotionRecognizer` on a machine that has
neither the corpus nor the training run.

Authors
 * The vavl_sb authors 2026
"""

import os
from pathlib import Path

import torch
import yaml
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger

from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.training.model_card import write_card
from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.files import write_atomically, write_folder, write_json
from vavl_sb.utils.weights import save_weights

logger = get_logger(__name__)

# What no inference needs, but whoever trains on from the model.
ABOUT = "about.json"
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


def _new(name, **arguments):
    """A node that makes an object."""
    return _Tagged(f"!new:{name}", arguments)


def _ref(text):
    """A node that refers to another."""
    return _Tagged("!ref", text)


def export_model(
    folder, net, feature_extractor, train_speakers=(), record=None, **about
):
    """Writes ``hyperparams.yaml``, about.json, the card README.md, and the
    weights of network and encoders.

    Arguments
    ---------
    folder : str or Path
        Where to write, usually ``<output_folder>/inference``.
    net : vavl_sb.lobes.vavl.VAVL
        The trained network.
    feature_extractor : vavl_sb.features.extractor.FeatureExtractor
        With the encoders that the network was trained on.
    train_speakers : iterable of str
        Whom the network was trained on, for about.json.
    record : dict
        More for about.json alone: what the run was and how well it scored.
    **about
        ``task``, ``labels``, ``corpus``, ``attribute_range`` (lowest and
        highest value of an attribute, or None), and ``trained_heads`` (those
        of "audio", "visual" and "audiovisual" that have learned; left out,
        all have): they stand in the YAML.

    Raises
    ------
    VAVLError
        In one line: it cannot be written, or an encoder that is not vavl_sb's
        would not come back the same.
    """
    if not if_main_process():
        return
    with write_folder(folder) as part:
        _write_model(
            part, net, feature_extractor, train_speakers, record, about
        )
    logger.info("Exported the model to %s", folder)


def _write_model(folder, net, feature_extractor, train_speakers, record, about):
    """Writes all files of an export."""
    save_weights(net, folder / "vavl.safetensors")
    encoders = {
        f"{m}_encoder": _encoder(
            getattr(feature_extractor, f"{m}_encoder"), folder
        )
        for m in MODALITIES
    }
    text = HEADER + "".join(
        yaml.dump({key: node}, Dumper=_Dumper, sort_keys=False)
        for key, node in _nodes(net, feature_extractor, encoders, about).items()
    )
    write_atomically(folder / "hyperparams.yaml", text.encode())
    write_json(
        folder / ABOUT,
        {
            **about,
            "encoders": {
                m: feature_extractor.fingerprint(m) for m in MODALITIES
            },
            "train_speakers": sorted(train_speakers),
            **(record or {}),
        },
    )
    write_card(folder)
    _let_others_read(folder)


def _let_others_read(folder):
    """Modes as the umask has them; some writers leave files to their owner."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)


def _encoder(encoder, folder):
    """Writes an encoder's files; gives the node that makes it anew."""
    kind, given = type(encoder), encoder.export(folder)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if not name.startswith("vavl_sb."):
        _refuse_other(encoder, name, given)
    arguments = {
        key: _ref(f"<pretrained_path>/{value.relative_to(folder).as_posix()}")
        if isinstance(value, Path)
        else value
        for key, value in given.items()
    }
    return _Tagged(f"!new:{name}", arguments)


def _refuse_other(encoder, name, arguments):
    """Refuses a user's encoder that would not come back the same."""
    paths = {k: str(v) for k, v in arguments.items() if isinstance(v, Path)}
    # Whatever is wrong in the user's class, the user needs the one line.
    try:
        with torch.random.fork_rng(devices=[]):
            fingerprint = type(encoder)(**{**arguments, **paths}).fingerprint()
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    else:
        if fingerprint == encoder.fingerprint():
            return
        reason = "its settings or weights are others"
    raise EncoderError(
        f"{name}: what export() gives does not make the same encoder "
        f"({reason}); let export() write the weights and give all arguments, "
        "then run the same command again"
    )


def _nodes(net, feature_extractor, encoders, about):
    """The keys of hyperparams.yaml, in order."""
    return {
        "pretrained_path": ".",  # from_hparams puts the model's folder here.
        **about,
        **encoders,
        "face_tracker": _new(
            "vavl_sb.faces.tracker.FaceTracker",
            **feature_extractor.face_tracker.arguments,
        ),
        "feature_extractor": _new(
            "vavl_sb.features.extractor.FeatureExtractor",
            audio_encoder=_ref("<audio_encoder>"),
            visual_encoder=_ref("<visual_encoder>"),
            face_tracker=_ref("<face_tracker>"),
            frame_rate=feature_extractor.frame_rate,
            batch_frames=feature_extractor.batch_frames,
        ),
        "vavl": _new("vavl_sb.lobes.vavl.VAVL", **net.settings),
        "modules": {
            "vavl": _ref("<vavl>"),
            "audio_encoder": _ref("<audio_encoder>"),
            "visual_encoder": _ref("<visual_encoder>"),
        },
        "pretrainer": _new(
            "speechbrain.utils.parameter_transfer.Pretrainer",
            loadables={"vavl": _ref("<vavl>")},
            paths={"vavl": _ref("<pretrained_path>/vavl.safetensors")},
            custom_hooks={
                "vavl": _Tagged("!name:vavl_sb.utils.weights.load_weights", {})
            },
        ),
    }
