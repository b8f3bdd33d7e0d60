"""What a network starts from: statistics of its inputs, or another model.

Authors
 * The vavl_sb authors 2026
"""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from speechbrain.utils.logger import get_logger

from vavl_sb.dataio.features import feature_statistics
from vavl_sb.dataio.manifest import refuse_overlap
from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.training.export import ABOUT
from vavl_sb.utils.errors import EncoderError

logger = get_logger(__name__)

# Modules of VAVL that belong to a task, and so are never carried over.
TASK_MODULES = ("prediction_head", "audiovisual_head")


def standardize_features(net, features, clips, folder, raw_audio=False):
    """Sets the statistics of the network's inputs from the training clips.

    Arguments
    ---------
    net : vavl_sb.lobes.vavl.VAVL
        The network.
    features : dict
        From :func:`vavl_sb.dataio.features.read_index`.
    clips : iterable
        Ids of the training clips.
    folder : str
        The cache's folder.
    raw_audio : bool
        The audio encoder learns, so that its features have no statistics yet.
    """
    clips = sorted(clips)
    for modality in MODALITIES:
        if raw_audio and modality == "audio":
            continue
        paths = [features[id][modality] for id in clips]
        mean, deviation = feature_statistics(filter(None, paths), folder)
        if mean is not None:
            branch = net.get_submodule(f"{modality}_branch")
            branch["standardize"].set(mean, deviation)


def start_from(source, net, clip_encoder, splits):
    """Loads encoders, shared layers and reconstruction heads; heads stay new.

    Arguments
    ---------
    source : str
        An ``inference/`` folder, of either task.
    net : vavl_sb.lobes.vavl.VAVL
        Whose tensors are filled.
    clip_encoder : vavl_sb.dataio.clip.ClipEncoder
        Must have the encoders that the model was trained on.
    splits : dict
        "valid" and "test" of this run, clip id to entry: the model must not
        have been trained on their speakers.

    Raises
    ------
    EncoderError
        There is no model, or it has other encoders or another width.
    CorpusError
        The model has learned from a speaker that this run tests on.
    """
    _check_origin(source, clip_encoder, splits)
    path = Path(source) / "vavl.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EncoderError(
            f"pretrained_from: {path} cannot be read ({error}); give a run's "
            "inference folder"
        ) from None
    own = net.state_dict()
    wanted = {
        name
        for name in own
        if not any(part in TASK_MODULES for part in name.split("."))
    }
    faults = sorted(
        name
        for name in wanted
        if name not in tensors or tensors[name].shape != own[name].shape
    )
    if faults:
        raise EncoderError(
            f"pretrained_from: {source} has other encoders or another width "
            f"({len(faults)} tensors do not fit, first {faults[0]})"
        )
    net.load_state_dict({**own, **{name: tensors[name] for name in wanted}})
    logger.info(
        "Started from %s: %d tensors; %d of the heads are new",
        source,
        len(wanted),
        len(own) - len(wanted),
    )


def _check_origin(source, clip_encoder, splits):
    """Refuses other encoders of the same size, and speakers seen before."""
    path = Path(source) / ABOUT
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        digests, seen = about["encoders"], set(about["train_speakers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"pretrained_from: {path} cannot be read "
            f"({type(error).__name__}); give a run's inference folder"
        ) from None
    for modality in MODALITIES:
        encoder = getattr(clip_encoder, f"{modality}_encoder")
        if (
            encoder.freeze
            and clip_encoder.digest(modality) != digests[modality]
        ):
            raise EncoderError(
                f"pretrained_from: {source} was trained on features of "
                f"another {modality} encoder, or of other settings; take the "
                "same encoder, face detector and frame rates"
            )
    refuse_overlap(
        {
            "the model's training": seen,
            "this run's validation or test": {
                entry["spk_id"]
                for split in ("valid", "test")
                for entry in splits[split].values()
            },
        },
        "speaker",
        f"pretrained_from: {source}",
    )
