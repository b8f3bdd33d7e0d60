"""Scores a model on the clips of a manifest, as they are and corrupted.

Each clip is decoded once and its face is encoded once; its sound is encoded
once for each condition and level that changes it. Of a clip only the heads'
outputs are kept.

Authors
 * The vavl_sb authors 2026
"""

import os
from dataclasses import replace

from tqdm import tqdm

from vavl_sb.dataio.datasets import read_entries
from vavl_sb.dataio.preparation import recorded_folder
from vavl_sb.evaluation.corruption import lose_modality
from vavl_sb.evaluation.predictions import HEADS, Answers
from vavl_sb.features.cache import MEDIA_FIELD
from vavl_sb.features.extractor import ClipFeatures
from vavl_sb.utils.errors import ManifestError, MediaError
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

OTHER = {"audio": "visual", "visual": "audio"}
NO_PAIRS = "no clip has both sound and a face"


def read_clips(manifest, hparams, data_root=None):
    """Reads a manifest for a model.

    Arguments
    ---------
    manifest : str or Path
        Of any corpus.
    hparams : SimpleNamespace
        The model's, with ``task`` and ``labels``: the clips' labels must be
        among them.
    data_root : str or Path
        What ``{data_root}`` stands for; None for what the report of the
        prepare script beside the manifest says.

    Returns
    -------
    dict
        Clip id to entry, with real paths.

    Raises
    ------
    ManifestError
        In one line: the manifest cannot be used, or a label is not one of
        the model's.
    """
    task = (hparams.task, hparams.labels)
    entries = read_entries(manifest, data_root, *task)
    if not entries:
        raise ManifestError(f"{manifest}: no clip in it")
    paths = [e[f] for e in entries.values() for f in ("wav", "video")]
    if data_root is None and any("{data_root}" in p for p in paths if p):
        folder = os.path.dirname(os.path.abspath(manifest))
        try:
            data_root = recorded_folder(folder)
        except ManifestError as error:
            raise ManifestError(f"{error.text}; or give --data_root") from None
        entries = read_entries(manifest, data_root, *task)
    return entries


class RobustnessTest:
    """One pass over clips, and the scores that come out of it.

    Arguments
    ---------
    model : vavl_sb.inference.emotion.EmotionRecognizer
        The model.
    conditions : list of vavl_sb.evaluation.conditions.Condition
        What to score it under, besides the clips as they are.
    seed : int
        Chooses clips, frames and noise.
    noise : callable
        ``(clip, length)`` to samples; see
        :class:`vavl_sb.evaluation.corruption.WhiteNoise`.
    """

    def __init__(self, model, conditions, seed, noise):
        self.model, self.encoder = model, model.hparams.feature_extractor
        self.conditions = conditions
        self.seed, self.noise = seed, noise
        task = (model.hparams.task, list(model.hparams.labels))
        self.clean = Answers(*task)
        self.corrupted = {
            (condition.name, level): Answers(*task)
            for condition in conditions
            for level in condition.levels[1:]
            if condition.modality is not None
        }
        self.count, self.has_pairs = 0, False
        self.failed = {}
        self.absent = {"audio": [], "visual": []}

    def run(self, entries):
        """Decodes all clips, and collects what the heads say.

        Arguments
        ---------
        entries : dict
            From :func:`read_clips`.

        Raises
        ------
        MediaError
            No clip at all can be used.
        """
        self.count = len(entries)
        # Where the corpus has clips with both, all is scored on those.
        self.has_pairs = any(e["wav"] and e["video"] for e in entries.values())
        for clip in tqdm(sorted(entries), desc="clips", dynamic_ncols=True):
            self._one_clip(clip, entries[clip])
        if not self.clean.ids():
            reason = next(iter(self.failed.values()), "all are silent")
            raise MediaError(
                f"none of the {len(entries)} clips can be used ({reason}); "
                "check --data_root"
            )

    def _one_clip(self, clip, entry):
        """Clean and corrupted answers for one clip."""
        samples, visual = self._read(clip, entry)
        features = ClipFeatures(self._encode(samples, clip, "audio"), visual)
        has = {m: getattr(features, m) is not None for m in OTHER}
        for modality, field in MEDIA_FIELD.items():
            lacks = entry[field] is not None and not has[modality]
            if lacks and f"{clip} ({modality})" not in self.failed:
                self.absent[modality].append(clip)
        if not any(has.values()):
            return
        target = self.clean.target(entry)
        outputs = self.model.outputs(features)
        if not outputs:  # It has only what the model never learned from.
            return
        self.clean.add(clip, outputs, target)
        if self.has_pairs and not all(has.values()):
            return
        for condition in self.conditions:
            known = condition.modality in self.model.trained_heads
            if known and has[condition.modality]:
                self._corrupt(condition, clip, samples, features, target)

    def _corrupt(self, condition, clip, samples, features, target):
        """Answers for one clip at all levels of a condition but the clean."""
        sound = condition.modality == "audio"
        given = samples if sound else features.visual
        for level in condition.levels[1:]:
            changed = condition.corrupt(
                given, level, clip, self.seed, self.noise
            )
            if sound:
                where = f"{condition.name} {level}"
                changed = self._encode(changed, clip, where)
            part = replace(features, **{condition.modality: changed})
            # What is left of the sound may be silence.
            if part.audio is not None or part.visual is not None:
                outputs = self.model.outputs(part)
                if outputs:
                    answers = self.corrupted[condition.name, level]
                    answers.add(clip, outputs, target)

    def _read(self, clip, entry):
        """Samples and visual features; what cannot be decoded is None."""
        wav, video = entry["wav"], entry["video"]
        if wav == video:
            try:
                return self.encoder.read(wav, video)
            except MediaError:
                pass  # Perhaps one of the two can be decoded alone.
        samples = visual = None
        try:
            samples, _ = self.encoder.read(wav=wav)
        except MediaError as error:
            self._leave_out(clip, "audio", error)
        try:
            _, visual = self.encoder.read(video=video)
        except MediaError as error:
            self._leave_out(clip, "visual", error)
        return samples, visual

    def _encode(self, samples, clip, where):
        """Audio features; None without samples, or without sound in them."""
        if samples is None:
            return None
        try:
            return self.encoder.encode_audio(samples, clip)
        except MediaError as error:
            self._leave_out(clip, where, error)
            return None

    def _leave_out(self, clip, where, error):
        """Notes a part of a clip that cannot be used."""
        self.failed[f"{clip} ({where})"] = error.text
        logger.warning("%s: %s left out: %s", clip, where, error)

    def summary(self):
        """What robustness.json says about clips and scores.

        Returns
        -------
        dict
            ``clips`` (counts, and ids of what was left out), ``clean``
            (scores of each head on the clips that it can answer for, and of
            "auto": the head that fits each clip), ``conditions`` and
            ``skipped`` (name to reason).
        """
        conditions, skipped = {}, {}
        for condition in self.conditions:
            levels = self._levels(condition)
            if isinstance(levels, str):
                skipped[condition.name] = levels
                continue
            conditions[condition.name] = {
                "title": condition.title,
                "unit": condition.unit,
                "levels": [
                    {"level": level, "scores": scores}
                    for level, scores in zip(condition.levels, levels)
                ],
            }
        return {
            "clips": {
                "in_manifest": self.count,
                "used": len(self.clean.ids()),
                "with_both": len(self.clean.ids("audiovisual")),
                "no_sound": self.absent["audio"],
                "no_face": self.absent["visual"],
                "failed": self.failed,
            },
            "clean": self.clean.scores((*HEADS, "auto")),
            "conditions": conditions,
            "skipped": skipped,
        }

    def _levels(self, condition):
        """Scores at each level of a condition, or why there are none."""
        pairs = self.clean.ids("audiovisual")
        trained = self.model.trained_heads
        if condition.modality and condition.modality not in trained:
            return f"the {condition.modality} head was never trained"
        if condition.modality is None and not pairs:
            return NO_PAIRS
        if condition.name == "modalities":
            scores = self.clean.scores(HEADS, pairs)
            return [{**scores, **self.clean.scores(["auto"])}]
        if condition.name == "missing":
            return [self._missing(pairs, level) for level in condition.levels]
        if self.has_pairs and not pairs:
            return NO_PAIRS
        heads = [condition.modality]
        if self.has_pairs:
            heads.append("audiovisual")
        clips = pairs if self.has_pairs else self.clean.ids(condition.modality)
        if not clips:
            return f"no clip has {_need(condition.modality)}"
        return [
            (self.corrupted.get((condition.name, level)) or self.clean).scores(
                heads, clips
            )
            for level in condition.levels
        ]

    def _missing(self, pairs, percent):
        """Scores where a part of the clips has lost a modality."""
        lost = lose_modality(pairs, percent, self.seed)
        heads = {
            clip: OTHER[lost[clip]] if clip in lost else "audiovisual"
            for clip in pairs
        }
        return {"auto": self.clean.score_of(heads)}


def _need(modality):
    """A modality in words."""
    return {"audio": "sound", "visual": "a face"}[modality]
