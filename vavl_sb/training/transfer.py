"""What a network starts from: statistics of its inputs, or another model.

Authors
 * The vavl_sb authors 2026
"""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from speechbrain.utils.logger import get_logger

from vavl_sb.dataio.features import feature_statistics
from vavl_sb.lobes.vavl import MODALITIES
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


def start_from(source, net):
    """Loads encoders, shared layers and reconstruction heads; heads stay new.

    Arguments
    ---------
    source : str
        An ``inference/`` folder, of either task.
    net : vavl_sb.lobes.vavl.VAVL
        Whose tensors are filled.

    Raises
    ------
    EncoderError
        There is no model, or it has other encoders or another width.
    """
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
