"""Extracts the features of manifests into the cache."""

import contextlib
import functools
from pathlib import Path

import numpy as np
from speechbrain.utils.distributed import ddp_barrier
from tqdm import tqdm

from vavl_sb.features.cache import (
    FEATURE_FIELD,
    MEDIA_FIELD,
    ContentIndex,
    FeatureCache,
    find_source,
)
from vavl_sb.features.extractor import (
    ClipFeatures,
    FeatureExtractor,
    needs_features,
)
from vavl_sb.media.reader import read_audio
from vavl_sb.utils import distributed as processes
from vavl_sb.utils.errors import MediaError, VAVLError
from vavl_sb.utils.files import write_json
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)


def extract_features(
    manifests: list[dict],
    feature_extractor: FeatureExtractor,
    folder: str | Path,
    index: str | Path,
    report: str | Path,
    raw_audio: bool = False,
) -> None:
    """Extracts the features that are not cached yet.

    Clips that cannot be decoded are listed in the report and left out. Under
    torchrun every process calls this and takes every n-th clip; the files
    written are the same as those of a single process.

    Arguments
    ---------
    manifests : list of dict
        ``{id: {"wav": path, "video": path, ...}}``, with real paths. Features
        in an entry are used instead of a file.
    feature_extractor : FeatureExtractor
        The encoders and the face tracker.
    folder : str or Path
        Folder of the cache.
    index : str or Path
        JSON file to write: the path of each clip's features, null for a missing
        modality; see :func:`vavl_sb.features.cache.read_index`.
    report : str or Path
        JSON file to write: counts, and the clips left out with the reason.
    raw_audio : bool
        For a speech encoder that is trained: only checks whether each clip has
        audio, instead of extracting features.
    """
    cache = FeatureCache(folder)
    contents = ContentIndex(cache.folder / "content.json")
    run = _Extraction(cache, contents, feature_extractor, raw_audio)
    clips = {id: clip for part in manifests for id, clip in part.items()}
    own = sorted(clips)[processes.rank() :: processes.count()]
    progress = tqdm(
        own, desc="features", dynamic_ncols=True, disable=processes.rank() > 0
    )
    try:
        for id in progress:
            run.one_clip(id, clips[id])
    except BaseException:
        # On a full disk, do not hide the first error by a second one.
        with contextlib.suppress(VAVLError):
            contents.save()
        raise
    run.merge()
    if processes.rank() == 0:
        contents.save()
        write_json(report, run.summary())
        write_json(index, dict(sorted(run.paths.items())))
        run.log(report)
    # Processes read the index after this; wait until it is written.
    ddp_barrier()


class _Extraction:
    """State of one pass over the clips: paths of features, and failures."""

    def __init__(self, cache, contents, feature_extractor, raw_audio):
        self.cache, self.contents = cache, contents
        self.encoder = feature_extractor
        self.raw_audio = raw_audio
        # Cached, since a fingerprint reads all weights of an encoder.
        self.fingerprint = functools.cache(feature_extractor.fingerprint)
        self.paths, self.failed = {}, {}
        self.computed = {modality: set() for modality in MEDIA_FIELD}
        self.absent = {modality: set() for modality in MEDIA_FIELD}

    def one_clip(self, id, clip):
        """Reads or computes the features of both modalities of a clip."""
        self.paths[id] = {"audio": None, "visual": None}
        for modality in MEDIA_FIELD:
            if find_source(clip, modality) is None:
                continue
            try:
                path = self._one_modality(modality, clip)
                self.paths[id][modality] = path
                if path is None:
                    self.absent[modality].add(id)
            except MediaError as error:
                self.failed[id, modality] = error.text
                logger.warning(
                    "%s: left out, %s: %s",
                    *(id, modality, error),
                    main_process_only=False,
                )

    def merge(self):
        """Adds the results of the other processes."""
        own = self.paths, self.failed, self.computed, self.absent
        for results in processes.gather((own, self.contents.fresh)):
            (paths, failed, computed, absent), fresh = results
            self.paths.update(paths)
            self.failed.update(failed)
            for modality in MEDIA_FIELD:
                self.computed[modality] |= computed[modality]
                self.absent[modality] |= absent[modality]
            self.contents.fresh.update(fresh)

    def _one_modality(self, modality, clip):
        """Path of one feature; None if the clip lacks the modality."""
        media = find_source(clip, modality)
        precomputed = clip.get(FEATURE_FIELD[modality]) is not None
        if precomputed and not self.encoder.takes_features(modality):
            raise MediaError(
                f"{media}: the {modality} encoder takes raw clips, not "
                f"features; give --{modality}_features"
            )
        if not precomputed and self.encoder.takes_features(modality):
            raise MediaError(f"{media}: {needs_features(modality)}")
        if self.raw_audio and modality == "audio":
            return media if read_audio(media) is not None else None
        contents = self.contents
        get_hash = contents.of_features if precomputed else contents.content
        path = self.cache.path(
            modality, self.fingerprint(modality), get_hash(media)
        )
        features = self.cache.find(path)
        if features is not None and not np.isfinite(features).all():
            logger.warning("recomputing a feature file with NaN: %s", path)
            features = None
        if features is None:
            encoded = self._encode(modality, media, precomputed)
            features = getattr(self.encoder.pool(encoded), modality)
            if features is None:
                dim = self.encoder.dim(modality)
                features = np.zeros((0, dim), np.float16)
            if not np.isfinite(features).all():
                # One such clip would make the input normalization NaN.
                raise MediaError(
                    f"{media}: its {modality} features are not finite; check "
                    "the file, or use another encoder"
                )
            self.cache.write(path, features)
            self.computed[modality].add(str(path))
        return str(path) if len(features) else None

    def _encode(self, modality, media, precomputed):
        """Encodes a media file, or reads precomputed features."""
        if precomputed:
            frames = self.encoder.read_features(modality, media)
            return ClipFeatures(**{modality: frames})
        return self.encoder.encode(**{MEDIA_FIELD[modality]: media})

    def summary(self):
        """Returns the content of the report."""
        return {
            "clips": len(self.paths),
            "computed": {m: len(paths) for m, paths in self.computed.items()},
            "no_sound": sorted(self.absent["audio"]),
            "no_face": sorted(self.absent["visual"]),
            "failed": {
                f"{id} ({modality})": self.failed[id, modality]
                for id, modality in sorted(self.failed)
            },
        }

    def log(self, report):
        """Logs the counts."""
        logger.info(
            "features of %d clips: %s computed, the others read from the "
            "cache; %d silent, %d without a face, %d failed (see %s)",
            len(self.paths),
            " and ".join(f"{len(p)} {m}" for m, p in self.computed.items()),
            len(self.absent["audio"]),
            len(self.absent["visual"]),
            len(self.failed),
            report,
        )
