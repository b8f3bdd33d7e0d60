"""Initialization of a network: input statistics, fits, pretrained models."""

from pathlib import Path

import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from vavl_sb.dataio.manifest import refuse_overlap
from vavl_sb.features.cache import feature_statistics, read_index
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.lobes.vavl import MODALITIES, AudioVisualNetwork
from vavl_sb.nnet.attribute_scale import AttributeScale
from vavl_sb.nnet.masking import masked_statistics
from vavl_sb.training.model_file import MODEL, read_model
from vavl_sb.training.speakers import SpeakerSamples
from vavl_sb.utils.errors import EncoderError, VAVLError
from vavl_sb.utils.logger import get_logger
from vavl_sb.utils.weights import load_tensors

logger = get_logger(__name__)

# Modules of VAVL that depend on the task, and so are never transferred.
TASK_MODULES = ("prediction_head", "audiovisual_head")


def set_input_statistics(
    net: AudioVisualNetwork,
    train_set: DynamicItemDataset,
    index: str,
    folder: str,
    raw_audio: bool = False,
    pretrained_from: str | None = None,
) -> None:
    """Sets the mean and deviation of a network's input normalization, if it has
    one.

    The statistics are those of the training clips' features in ``folder``,
    listed by ``index``. Skips audio if its encoder is trained (``raw_audio``),
    and modalities that the model in ``pretrained_from`` was trained on: its
    statistics are kept. Called in the main process; the other processes
    receive the statistics with the weights.
    """
    features, carried = read_index(index), carried_modalities(pretrained_from)
    for modality in MODALITIES:
        if modality in carried or (raw_audio and modality == "audio"):
            continue
        paths = {features[clip][modality] for clip in train_set.data}
        mean, deviation = feature_statistics(sorted(paths - {None}), folder)
        if mean is not None:
            branch = getattr(net, f"{modality}_branch", {})
            if "normalize" in branch:
                branch["normalize"].set_statistics(mean, deviation)


def fit_to_features(
    net: AudioVisualNetwork,
    train_set: DynamicItemDataset,
    scale: AttributeScale,
    speaker_samples: SpeakerSamples | None = None,
) -> None:
    """Calls a network's ``fit_statistics``, if it has one, for each modality.

    ``scale`` converts attributes to the network's scale; ``speaker_samples``
    normalizes each clip by its speaker before. Called in the main process.
    """
    if not hasattr(net, "fit_statistics"):
        return
    columns = {modality: ([], [], []) for modality in MODALITIES}
    for item in train_set:
        label = item["label"]
        if label.is_floating_point():
            label = scale.to_network(label)
        else:
            label = label.squeeze(-1)
        for modality, values in columns.items():
            frames = item[modality]
            if len(frames) == 0:
                continue
            if frames.ndim == 1:
                raise VAVLError(
                    "freeze_audio_encoder: must be True for a network that is "
                    "fitted to features"
                )
            frames = frames.unsqueeze(0)
            if speaker_samples is not None:
                named = (modality, frames, [item["id"]])
                frames = speaker_samples.normalize(*named, epoch=0)
            padding = torch.zeros(frames.shape[:2], dtype=torch.bool)
            statistics = masked_statistics(frames, padding)
            speaker = train_set.data[item["id"]]["spk_id"]
            for column, value in zip(values, (statistics[0], label, speaker)):
                column.append(value)
    for modality, (statistics, labels, speakers) in columns.items():
        if statistics:
            tensors = torch.stack(statistics), torch.stack(labels)
            with torch.no_grad():
                net.fit_statistics(modality, *tensors, speakers)


def init_from_pretrained(
    source: str | None,
    net: AudioVisualNetwork,
    feature_extractor: FeatureExtractor,
    splits: dict[str, dict],
) -> None:
    """Loads the branches and shared layers of a model of either task from an
    ``inference/`` folder; no effect if ``source`` is None.

    Prediction heads, and modalities that the model was not trained on, keep
    their initial weights. Raises an EncoderError if the folder has no model, or
    its encoders, width or shared layers differ; a CorpusError if the model was
    trained on a speaker of this run's "valid" or "test" split.
    """
    if source is None:
        return
    metadata, carried = read_metadata(source), carried_modalities(source)
    for modality in carried:
        fingerprint = metadata["encoders"][modality]
        if feature_extractor.fingerprint(modality) != fingerprint:
            raise EncoderError(
                f"pretrained_from: {source} was trained on features of "
                f"another {modality} encoder, or of other settings; take the "
                "same ones (layers, averaging, face detector, frame rates), "
                f"or its own, such as {source}/audio_encoder"
            )
    scored = [clip for s in ("valid", "test") for clip in splits[s].values()]
    refuse_overlap(
        {
            "the model's training": metadata["train_speakers"],
            "this run's validation or test": {c["spk_id"] for c in scored},
        },
        "speaker",
        f"pretrained_from: {source}",
    )
    new = {f"{m}_branch" for m in MODALITIES if m not in carried}

    def kept(state):
        """Shapes of the tensors to transfer."""
        return {
            name: tensor.shape
            for name, tensor in state.items()
            if not {*new, *TASK_MODULES} & set(name.split("."))
        }

    own = net.state_dict()
    tensors = load_tensors(Path(source) / "vavl.safetensors")
    wanted, given = kept(own), kept(tensors)
    faults = [n for n in {*wanted, *given} if wanted.get(n) != given.get(n)]
    if faults:
        raise EncoderError(
            f"pretrained_from: {source} has other encoders, another width or "
            f"other shared layers ({len(faults)} tensors do not fit, first "
            f"{min(faults)})"
        )
    net.load_state_dict({**own, **{name: tensors[name] for name in wanted}})
    logger.info(
        "Started from %s: %d tensors; %d of the heads are new",
        source,
        len(wanted),
        len(own) - len(wanted),
    )


def train_speakers(
    train_set: DynamicItemDataset, source: str | None = None
) -> set[str]:
    """Returns the training speakers, including those of the pretrained model
    whose ``inference/`` folder is ``source``."""
    speakers = {clip["spk_id"] for clip in train_set.data.values()}
    return speakers | (
        read_metadata(source)["train_speakers"] if source else set()
    )


def read_metadata(source: str | Path) -> dict:
    """Reads the metadata of the model in an ``inference/`` folder.

    Includes ``encoders`` (modality to fingerprint), ``train_speakers`` and
    ``trained_heads``. Raises an EncoderError if it cannot be read.
    """
    folder = Path(source)
    if (folder / "inference" / MODEL).is_file():
        raise EncoderError(
            f"pretrained_from: {source} is a run's folder; give "
            f"{folder / 'inference'}"
        )
    try:
        model = read_model(folder)
        metadata = {
            **model["metadata"],
            "trained_heads": model["trained_heads"],
        }
        for modality in MODALITIES:
            metadata["encoders"][modality]
        metadata["train_speakers"] = set(metadata["train_speakers"])
    except EncoderError as error:
        raise EncoderError(
            f"pretrained_from: {error}; give a run's inference folder"
        ) from None
    except (KeyError, TypeError):
        raise EncoderError(
            f"pretrained_from: {folder / MODEL} does not name its encoders "
            "and speakers; give a run's inference folder"
        ) from None
    return metadata


def carried_modalities(source: str | None) -> list[str]:
    """Returns the modalities that the model in an ``inference/`` folder was
    trained on; none if ``source`` is None."""
    if source is None:
        return []
    heads = read_metadata(source)["trained_heads"]
    return [modality for modality in MODALITIES if modality in heads]
