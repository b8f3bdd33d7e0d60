"""What a network starts from: statistics of its inputs, or another model.

Authors
 * The vavl_sb authors 2026
"""

import copy
from pathlib import Path

import torch

from vavl_sb.dataio.manifest import refuse_overlap
from vavl_sb.features.cache import clip_means, feature_statistics
from vavl_sb.features.speed import check_speeds
from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.training.model_file import MODEL, read_model
from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.logger import get_logger
from vavl_sb.utils.weights import load_tensors

logger = get_logger(__name__)

# Modules of VAVL that belong to a task, and so are never carried over.
TASK_MODULES = ("prediction_head", "audiovisual_head")


def standardize_features(
    net, features, targets, folder, raw_audio=False, carried=()
):
    """Sets the statistics of the network's inputs from the training clips.

    Arguments
    ---------
    net : vavl_sb.lobes.vavl.VAVL
        The network.
    features : dict
        From :func:`vavl_sb.features.cache.read_index`.
    targets : dict
        Training clip's id to its target: class index (1,), int64, or
        attributes (n,).
    folder : str
        The cache's folder.
    raw_audio : bool
        The audio encoder learns, so that its features have no statistics yet.
    carried : iterable of str
        Modalities whose statistics are another model's and stay.
    """
    for modality in MODALITIES:
        if modality in carried or (raw_audio and modality == "audio"):
            continue
        # Each once, though a clip's copies may share its picture.
        found = {
            features[id][modality]: target for id, target in targets.items()
        }
        paths = sorted(found.keys() - {None})
        mean, deviation = feature_statistics(paths, folder)
        if mean is None:
            continue
        standardize = net.get_submodule(f"{modality}_branch")["standardize"]
        standardize.set(mean, deviation)
        if standardize.shrinkage is not None:
            logger.info("Whitening %s features", modality)
            standardize.set_whitening(
                clip_means(paths, folder),
                torch.stack([found[path] for path in paths]),
            )


def start_from(source, net, feature_extractor, splits):
    """Loads branches and shared layers of a model; prediction heads stay new.

    A modality that the model was never trained on stays new as well.

    Arguments
    ---------
    source : str
        An ``inference/`` folder, of either task.
    net : vavl_sb.lobes.vavl.VAVL
        Whose tensors are filled.
    feature_extractor : vavl_sb.features.extractor.FeatureExtractor
        Must have the encoders that the model was trained on.
    splits : dict
        "valid" and "test" of this run, clip id to entry: the model must not
        have been trained on their speakers.

    Raises
    ------
    EncoderError
        There is no model, or it has other encoders, another width or other
        shared layers.
    CorpusError
        The model has learned from a speaker that this run tests on.
    """
    about = read_about(source)
    carried = carried_modalities(source)
    _check_origin(source, about, carried, feature_extractor, splits)
    _check_whitening(source, about, net)
    path = Path(source) / "vavl.safetensors"
    tensors = load_tensors(path)
    new = (
        *TASK_MODULES,
        *(f"{m}_branch" for m in MODALITIES if m not in carried),
    )
    own = net.state_dict()
    wanted = {
        name
        for name in {*own, *tensors}
        if not any(part in new for part in name.split("."))
    }
    faults = sorted(
        name
        for name in wanted
        if name not in tensors
        or name not in own
        or tensors[name].shape != own[name].shape
    )
    if faults:
        raise EncoderError(
            f"pretrained_from: {source} has other encoders, another width or "
            f"other shared layers ({len(faults)} tensors do not fit, first "
            f"{faults[0]})"
        )
    net.load_state_dict({**own, **{name: tensors[name] for name in wanted}})
    logger.info(
        "Started from %s: %d tensors; %d of the heads are new",
        source,
        len(wanted),
        len(own) - len(wanted),
    )


def read_about(source):
    """What a model to start from says of itself.

    Arguments
    ---------
    source : str
        An ``inference/`` folder.

    Returns
    -------
    dict
        Its metadata, with ``encoders`` (modality to fingerprint),
        ``train_speakers`` and ``trained_heads``. EncoderError, in one line,
        where it cannot be read.
    """
    folder = Path(source)
    if (folder / "inference" / MODEL).is_file():
        raise EncoderError(
            f"pretrained_from: {source} is a run's folder; give "
            f"{folder / 'inference'}"
        )
    try:
        model = read_model(folder)
        about = {**model["metadata"], "trained_heads": model["trained_heads"]}
        for modality in MODALITIES:
            about["encoders"][modality]
        about["train_speakers"] = set(about["train_speakers"])
    except EncoderError as error:
        raise EncoderError(
            f"pretrained_from: {error}; give a run's inference folder"
        ) from None
    except (KeyError, TypeError):
        raise EncoderError(
            f"pretrained_from: {folder / MODEL} does not name its encoders "
            "and speakers; give a run's inference folder"
        ) from None
    return about


def carried_modalities(source):
    """The modalities that a model was trained on.

    Arguments
    ---------
    source : str
        An ``inference/`` folder; None for no model.

    Returns
    -------
    list of str
        Of "audio" and "visual".
    """
    if source is None:
        return []
    heads = read_about(source)["trained_heads"]
    return [modality for modality in MODALITIES if modality in heads]


def _check_whitening(source, about, net):
    """Refuses a model whose features were whitened in another way."""
    theirs = (about.get("run") or {}).get("feature_whitening")
    own = net.settings["feature_whitening"]
    if theirs != own:
        raise EncoderError(
            f"pretrained_from: {source} was trained with feature_whitening "
            f"{'null' if theirs is None else theirs}, and this run has "
            f"{'null' if own is None else own}; give it the same"
        )


def _as_theirs(source, about, feature_extractor):
    """The feature extractor with the speeds of a model, for its fingerprint.

    Frozen, it must have them. A speech encoder that learns hears a clip once,
    and goes on from features that were means.
    """
    theirs = (about.get("run") or {}).get("audio_speeds") or []
    theirs = sorted(check_speeds(theirs, "audio_speeds"))
    own = feature_extractor.audio_speeds
    if feature_extractor.audio_encoder.freeze and theirs != own:
        raise EncoderError(
            f"pretrained_from: {source} was trained with audio_speeds "
            f"{theirs}, and this run has {own}; give it the same"
        )
    other = copy.copy(feature_extractor)
    other.audio_speeds = theirs
    return other


def _check_origin(source, about, carried, feature_extractor, splits):
    """Refuses other encoders of the same size, and speakers seen before."""
    if "audio" in carried:
        feature_extractor = _as_theirs(source, about, feature_extractor)
    for modality in carried:
        if (
            feature_extractor.fingerprint(modality)
            != about["encoders"][modality]
        ):
            raise EncoderError(
                f"pretrained_from: {source} was trained on features of "
                f"another {modality} encoder, or of other settings; take the "
                "same ones (layers, averaging, face detector, frame rates), "
                f"or its own, such as {source}/audio_encoder"
            )
    refuse_overlap(
        {
            "the model's training": about["train_speakers"],
            "this run's validation or test": {
                entry["spk_id"]
                for split in ("valid", "test")
                for entry in splits[split].values()
            },
        },
        "speaker",
        f"pretrained_from: {source}",
    )
