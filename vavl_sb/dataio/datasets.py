"""SpeechBrain datasets over a manifest and its cached features.

Authors
 * The vavl_sb authors 2026
"""

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.logger import get_logger

from vavl_sb.dataio.manifest import read_manifest
from vavl_sb.features.cache import FeatureCache
from vavl_sb.features.speed import (
    FIELD as SPEED,
    change_speed,
)
from vavl_sb.media.reader import read_audio
from vavl_sb.utils.errors import ManifestError, MediaError, VAVLError

logger = get_logger(__name__)

OUTPUT_KEYS = ["id", "audio", "has_audio", "visual", "has_visual", "label"]


def emotion_datasets(
    splits,
    features,
    task,
    labels,
    dims,
    cache,
    raw_audio=False,
):
    """Makes one dataset a split.

    An item has ``id``; ``audio`` (Ta, D) and ``visual`` (Tv, D), float32, one
    frame of zeros where the clip lacks the modality; ``has_audio`` and
    ``has_visual``; and ``label``: the class index, int64 (1,), or the
    attributes, float32 (n,).

    Arguments
    ---------
    splits : dict
        ``{"train": {clip id: entry}, ...}`` from :func:`read_entries`.
    features : dict
        From :func:`vavl_sb.features.extraction.extract_features`.
    task : str
        "classification" or "regression".
    labels : list
        Names of classes or attributes, in the order of the outputs.
    dims : dict
        ``{"audio": D, "visual": D}``.
    cache : str
        Folder of the feature cache.
    raw_audio : bool
        Give 16 kHz samples (n,) as ``audio``, for an encoder that learns.

    Returns
    -------
    dict
        A ``DynamicItemDataset`` for each split, None for an empty "valid".
        Clips without any modality are left out with a warning.

    Raises
    ------
    ManifestError
        Another split than "valid" has no clip.
    """
    feature_cache = FeatureCache(cache)
    speeds = None
    if raw_audio:
        speeds = {
            id: entry.get(SPEED, 100)
            for entries in splits.values()
            for id, entry in entries.items()
        }
    items = [
        _modality_item("audio", features, dims, feature_cache, speeds),
        _modality_item("visual", features, dims, feature_cache),
        _label_item(task, labels),
    ]
    datasets = {}
    for split, entries in splits.items():
        entries = _usable(entries, features, split)
        if entries:
            datasets[split] = DynamicItemDataset(
                entries, dynamic_items=items, output_keys=OUTPUT_KEYS
            )
        elif split == "valid":
            datasets[split] = None
        else:
            raise ManifestError(
                f"no {split} clip has sound or a face; prepare_report.json and "
                "feature_report.json say what was left out"
            )
    return datasets


def read_entries(path, data_folder, task, labels):
    """Reads a manifest with real paths, checked for a task's labels.

    Arguments
    ---------
    path : str
        The manifest.
    data_folder : str
        What ``{data_root}`` stands for.
    task : str
        "classification" or "regression".
    labels : list
        Names of classes or attributes.

    Returns
    -------
    dict
        Clip id to entry.
    """
    if task == "classification":
        return read_manifest(path, labels=labels, data_root=data_folder)
    return read_manifest(path, attributes=labels, data_root=data_folder)


def _usable(entries, features, split):
    """Entries that have at least one modality left after decoding."""
    usable = {id: e for id, e in entries.items() if any(features[id].values())}
    lost = sorted(
        id
        for id in set(entries) - set(usable)
        if SPEED not in entries[id]  # Its clip is named.
    )
    if lost:
        logger.warning(
            "%s: %d clips have neither sound nor a face and are left out: %s",
            split,
            len(lost),
            ", ".join(lost[:5]) + (", ..." if len(lost) > 5 else ""),
        )
    return usable


def _modality_item(modality, features, dims, cache, speeds=None):
    """Dynamic item that loads one modality's frames, or, by speed, sound."""
    raw = speeds is not None

    @takes("id")
    @provides(modality, f"has_{modality}")
    def load(id):
        path = features[id][modality]
        if path is None:
            yield torch.zeros(1) if raw else torch.zeros(1, dims[modality])
        else:
            try:
                yield _sound(path, speeds[id]) if raw else _cached(cache, path)
            except VAVLError as error:
                raise type(error)(f"{id}: {error}") from None
        yield path is not None

    return load


def _sound(path, speed):
    """Samples of a file that had sound when the run started."""
    samples = read_audio(path)
    if samples is None:
        raise MediaError(
            f"{path}: has no sound any more; run the same command again"
        )
    return change_speed(samples, speed)


def _cached(cache, path):
    """Frames of a cached feature, float32."""
    return torch.from_numpy(cache.read(path)).float()


def _label_item(task, labels):
    """Dynamic item that gives a clip's target."""
    if task == "classification":
        index = {label: i for i, label in enumerate(labels)}

        @takes("emotion")
        @provides("label")
        def target(emotion):
            return torch.tensor([index[emotion]])

    else:

        @takes(*labels)
        @provides("label")
        def target(*values):
            return torch.tensor(values, dtype=torch.float32)

    return target
