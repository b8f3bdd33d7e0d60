"""SpeechBrain datasets of manifests and cached features.

A missing modality has zero frames, which is relative length 0 in a batch.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.data_utils import batch_pad_right

from vavl_sb.dataio.manifest import (
    SPLITS,
    check_disjoint,
    check_entries,
    read_manifest,
    refuse_overlap,
)
from vavl_sb.dataio.preparation import recorded_folder
from vavl_sb.features.cache import FeatureCache
from vavl_sb.media.reader import read_audio
from vavl_sb.utils.errors import (
    CorpusError,
    ManifestError,
    MediaError,
    VAVLError,
)
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

# Clips whose pooled features stay in memory, per modality, whatever the size of
# the corpus: 200 MB for the statistics of 12 layers of 1,024.
MAX_KEPT = 4096


class EmotionBatch(PaddedBatch):
    """SpeechBrain's ``PaddedBatch``, with support for clips without frames.

    Example
    -------
    >>> clips = [{"visual": torch.zeros(0, 2)}, {"visual": torch.ones(4, 2)}]
    >>> EmotionBatch(clips).visual.lengths
    tensor([0., 1.])
    >>> EmotionBatch(clips[:1]).visual
    PaddedData(data=tensor([[[0., 0.]]]), lengths=tensor([0.]))
    """

    def __init__(self, examples: list[dict]):
        super().__init__(examples, padding_func=pad_frames)


def pad_frames(
    tensors: list[torch.Tensor], **options
) -> tuple[torch.Tensor, torch.Tensor]:
    """SpeechBrain's ``batch_pad_right``, with support for clips without frames.

    Pads tensors (T, ...) to (B, longest T, at least 1, ...), and returns them
    with relative lengths (B,).
    """
    if any(len(tensor) for tensor in tensors):
        return batch_pad_right(tensors, **options)
    frame = tensors[0].new_zeros(len(tensors), 1, *tensors[0].shape[1:])
    return frame, torch.zeros(len(tensors))


def read_splits(
    manifests: dict[str, str],
    data_folder: str,
    task: str,
    labels: Sequence[str],
    also_train: str | Sequence[str] | None = (),
    label_map: dict[str, str | None] | None = None,
    allow_overlap: bool = False,
) -> dict[str, dict]:
    """Reads the manifests of a run, and the training clips of other corpora.

    Arguments
    ---------
    manifests : dict
        ``{"train": path, "valid": path, "test": path}``.
    data_folder : str
        Replaces ``{data_root}`` in their paths.
    task : str
        "classification" or "regression".
    labels : list
        Names of classes or attributes.
    also_train : str or list of str
        Manifests of other corpora, or folders with a train.json, to add to the
        training clips. In a manifest not written by a recipe, ``{data_root}``
        is replaced by the manifest's folder.
    label_map : dict
        Maps classes of other corpora to this run's; None leaves clips out.
    allow_overlap : bool
        Whether the splits may share a speaker.

    Returns
    -------
    dict
        "train", "valid" and "test": clip id to entry, with real paths.

    Raises
    ------
    ManifestError
        A manifest is invalid, its labels are not those of this run, or an id is
        in two corpora.
    CorpusError
        A speaker is in two of train, valid and test.
    """
    splits = {
        split: read_entries(manifests[split], data_folder, task, labels)
        for split in SPLITS
    }
    try:
        check_disjoint(*(splits[split] for split in SPLITS))
    except CorpusError as error:
        # allow_overlap is for your own manifests, for example to test whether
        # a model can overfit a few clips.
        if not allow_overlap:
            raise CorpusError(
                f"{error.text}: scores would say nothing about new speakers; "
                "split the clips again, or set allow_overlap to True"
            ) from None
        logger.warning("%s: the scores say nothing about new speakers", error)
    for path in other_corpora(also_train):
        added = _read_other(path, task, labels, label_map or {})
        _refuse_shared(path, added, splits)
        splits["train"] = {**splits["train"], **added}
    return splits


def other_corpora(also_train: str | Sequence[str] | None) -> list[str]:
    """Returns the manifests of ``also_train``: a manifest, a folder with a
    train.json, a list of them, or None.

    Example
    -------
    >>> other_corpora("results/a"), other_corpora(["b/all.json"])
    (['results/a/train.json'], ['b/all.json'])
    """
    paths = [also_train] if isinstance(also_train, str) else also_train or []
    return [
        path
        if str(path).endswith(".json")
        else os.path.join(path, "train.json")
        for path in paths
        if path
    ]


def _read_other(path, task, labels, label_map):
    """Reads the clips of another corpus, with classes mapped to this run's."""
    folder = os.path.dirname(path) or "."
    with contextlib.suppress(ManifestError):
        folder = recorded_folder(folder)
    if task != "classification" or not label_map:
        return read_entries(path, folder, task, labels)
    entries = read_manifest(path, data_root=folder)
    for entry in entries.values():
        if "emotion" in entry:
            given = str(entry["emotion"])
            entry["emotion"] = label_map.get(given, given)
    entries = {
        clip: entry
        for clip, entry in entries.items()
        if entry.get("emotion", "") is not None
    }
    check_entries(entries, path, labels)
    return entries


def _refuse_shared(path, added, splits):
    """Raises if added training clips share an id, or a validation or test
    speaker, with the splits."""
    for split, entries in splits.items():
        shared = sorted(set(added) & set(entries))
        if shared:
            more = f" (and {len(shared) - 1} more)" * (len(shared) > 1)
            raise ManifestError(
                f"{path}: {shared[0]}{more} is already a {split} clip of "
                "this run; ids must be unique over all corpora"
            )
    speakers = {
        split: {entry["spk_id"] for entry in entries.values()}
        for split, entries in {**splits, "train": added}.items()
    }
    refuse_overlap(speakers, "speaker", path)


def read_entries(
    path: str | Path,
    data_folder: str | Path | None,
    task: str,
    labels: Sequence[str],
) -> dict[str, dict]:
    """Reads a manifest, clip id to entry, and checks the labels of a task.

    ``data_folder`` replaces ``{data_root}`` in paths, unless it is None.
    """
    if task == "classification":
        return read_manifest(path, labels=labels, data_root=data_folder)
    return read_manifest(path, attributes=labels, data_root=data_folder)


def emotion_datasets(
    splits: dict[str, dict],
    features: dict[str, dict],
    task: str,
    labels: Sequence[str],
    dims: dict[str, int],
    cache: str,
    raw_audio: bool = False,
) -> dict[str, DynamicItemDataset | None]:
    """Creates a dataset for each split.

    An item has ``id``; ``audio`` (Ta, D) and ``visual`` (Tv, D), float32, with
    zero frames for a missing modality; and ``label``: the class index, int64
    (1,), or the attributes, float32 (n,).

    Arguments
    ---------
    splits : dict
        ``{"train": {clip id: entry}, ...}`` from :func:`read_splits`.
    features : dict
        From :func:`vavl_sb.features.cache.read_index`.
    task : str
        "classification" or "regression".
    labels : list
        Names of classes or attributes, in the order of the outputs.
    dims : dict
        ``{"audio": D, "visual": D}``.
    cache : str
        Folder of the feature cache.
    raw_audio : bool
        Whether ``audio`` is 16 kHz samples (n,), for an encoder that is
        trained.

    Returns
    -------
    dict
        A ``DynamicItemDataset`` for each split, None for an empty "valid".
        Clips without any modality are left out with a warning.

    Raises
    ------
    ManifestError
        The training or the test set has no clip.
    """
    feature_cache = FeatureCache(cache)
    items = [
        _modality_item(modality, features, dims[modality], feature_cache, raw)
        for modality, raw in (("audio", raw_audio), ("visual", False))
    ]
    items.append(_label_item(task, labels))
    datasets = {}
    for split, entries in splits.items():
        entries = _usable(entries, features, split)
        if entries:
            datasets[split] = DynamicItemDataset(
                entries,
                dynamic_items=items,
                output_keys=["id", "audio", "visual", "label"],
            )
        elif split == "valid":
            datasets[split] = None
        else:
            raise ManifestError(
                f"no {split} clip has sound or a face; prepare_report.json and "
                "feature_report.json list what was left out"
            )
    return datasets


def _usable(entries, features, split):
    """Returns the entries that have features of at least one modality."""
    usable = {id: e for id, e in entries.items() if any(features[id].values())}
    lost = sorted(set(entries) - set(usable))
    if lost:
        logger.warning(
            "%s: %d clips have neither sound nor a face and are left out: %s",
            split,
            len(lost),
            ", ".join(lost[:5]) + (", ..." if len(lost) > 5 else ""),
        )
    return usable


def _modality_item(modality, features, dim, cache, raw):
    """Dynamic item that loads one modality's frames, or audio samples."""
    kept = {}  # Pooled features, one frame a clip, are read once.

    @takes("id")
    @provides(modality)
    def load(id):
        """Frames (T, D) or samples (n,) of a clip."""
        path = features[id][modality]
        if path is None:
            return torch.zeros(0) if raw else torch.zeros(0, dim)
        if path in kept:
            return kept[path].float()
        try:
            if not raw:
                frames = torch.from_numpy(cache.read(path))
                if len(frames) == 1 and len(kept) < MAX_KEPT:
                    kept[path] = frames
                return frames.float()
            samples = read_audio(path)
            if samples is None:  # It had audio when features were extracted.
                raise MediaError(
                    f"{path}: has no sound any more; run the same command again"
                )
            return samples
        except VAVLError as error:
            raise type(error)(f"{id}: {error.text}") from None

    return load


def _label_item(task, labels):
    """Dynamic item that returns a clip's target."""
    classes = {label: index for index, label in enumerate(labels)}
    keys = ["emotion"] if task == "classification" else labels

    @takes(*keys)
    @provides("label")
    def target(*values):
        """Class index (1,), or attributes (n,)."""
        if task == "classification":
            return torch.tensor([classes[values[0]]])
        return torch.tensor(values, dtype=torch.float32)

    return target
