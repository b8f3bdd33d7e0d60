"""Scores a model on the clips of a manifest, clean and corrupted.

Each clip is decoded once and its face is encoded once; its audio is encoded
again for each level of an audio corruption. Only outputs are kept in memory.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from vavl_sb.dataio.datasets import read_entries
from vavl_sb.dataio.preparation import recorded_folder
from vavl_sb.evaluation.corruption import lose_modality
from vavl_sb.evaluation.predictions import Predictions
from vavl_sb.features.cache import FEATURE_FIELD, MEDIA_FIELD, find_source
from vavl_sb.features.extractor import ClipFeatures
from vavl_sb.lobes.vavl import HEADS
from vavl_sb.training.plots import (
    HEAD_COLOURS,
    INTERVAL,
    SCORE_NAMES,
    add_legend,
    make_figure,
    remove_figure,
    save_figure,
    set_title,
)
from vavl_sb.training.report import STATS, predictions_csv, score_table, table
from vavl_sb.utils.errors import ManifestError, MediaError
from vavl_sb.utils.files import write_atomically, write_json, write_lines
from vavl_sb.utils.logger import get_logger

if TYPE_CHECKING:
    from vavl_sb.inference.emotion import EmotionRecognizer

logger = get_logger(__name__)

OTHER = {"audio": "visual", "visual": "audio"}
NEEDS = {"audio": "sound", "visual": "a face", None: "both sound and a face"}


def read_clips(
    manifest: str | Path,
    task: str,
    labels: list,
    data_root: str | Path | None = None,
) -> dict:
    """Reads a test manifest: clip id to entry, with absolute paths.

    ``data_root`` replaces ``{data_root}``; by default it is read from
    prepare_report.json beside the manifest. Raises ManifestError if the
    manifest cannot be used, or the model lacks a label.
    """
    entries = read_entries(manifest, data_root, task, labels)
    if not entries:
        raise ManifestError(f"{manifest}: contains no clip")
    paths = [find_source(e, m) for e in entries.values() for m in MEDIA_FIELD]
    if data_root is None and any("{data_root}" in p for p in paths if p):
        folder = os.path.dirname(os.path.abspath(manifest))
        try:
            data_root = recorded_folder(folder)
        except ManifestError as error:
            raise ManifestError(f"{error.text}; or give --data_root") from None
        entries = read_entries(manifest, data_root, task, labels)
    return entries


class RobustnessTest:
    """Scores a model on clean clips and under ``conditions``, in one pass.

    ``seed`` determines clips and frames; ``noise`` comes from
    :func:`vavl_sb.evaluation.corruption.make_noise`. Set ``features`` to ``{}``
    before :meth:`run` to keep the features of each scored clip.
    """

    def __init__(
        self,
        model: "EmotionRecognizer",
        conditions: list,
        seed: int,
        noise: Callable,
    ):
        self.model, self.encoder = model, model.hparams.feature_extractor
        self.conditions, self.seed, self.noise = conditions, seed, noise
        task = (model.hparams.task, model.hparams.labels)
        self.clean = Predictions(*task)
        self.corrupted = {
            (condition.name, level): Predictions(*task)
            for condition in conditions
            for level in condition.levels[1:]
            if condition.modality is not None
        }
        self.count, self.has_pairs = 0, False
        self.features: dict[str, ClipFeatures] | None = None
        self.failed = {}
        self.absent = {"audio": [], "visual": []}

    def run(self, entries: dict) -> None:
        """Runs the model on all clips of :func:`read_clips`.

        Raises MediaError if no clip can be used.
        """
        self.count = len(entries)
        # If any clip has both modalities, conditions use only those clips.
        self.has_pairs = any(
            all(find_source(entry, modality) for modality in MEDIA_FIELD)
            for entry in entries.values()
        )
        for clip in tqdm(sorted(entries), desc="clips", disable=None):
            self._run_clip(clip, entries[clip])
        if not self.clean.clips():
            reason = next(iter(self.failed.values()), "all are silent")
            raise MediaError(
                f"none of the {len(entries)} clips can be used ({reason}); "
                "check --data_root"
            )

    def _run_clip(self, clip, entry):
        """Runs the model on one clip, clean and corrupted."""
        samples, visual = self._read(clip, entry)
        features = ClipFeatures(self._encode(samples, clip, "audio"), visual)
        for modality in MEDIA_FIELD:
            self._read_features(clip, entry, modality, features)
        present = {m: getattr(features, m) is not None for m in OTHER}
        for modality in MEDIA_FIELD:
            source = find_source(entry, modality)
            missing = source is not None and not present[modality]
            if missing and f"{clip} ({modality})" not in self.failed:
                self.absent[modality].append(clip)
        outputs = (
            self.model.outputs(features) if any(present.values()) else None
        )
        if not outputs:  # Empty, or only a modality without a trained head.
            return
        self.clean.add(clip, outputs, entry)
        if self.features is not None:
            self.features[clip] = features
        if self.has_pairs and not all(present.values()):
            return
        for condition in self.conditions:
            trained = condition.modality in self.model.trained_heads
            if condition.modality == "audio" and samples is None:
                continue  # Given as features, to which no noise can be added.
            if trained and present[condition.modality]:
                self._corrupt(condition, clip, entry, samples, features)

    def _corrupt(self, condition, clip, entry, samples, features):
        """Runs the model on one clip at all levels but the clean one."""
        is_audio = condition.modality == "audio"
        clean = samples if is_audio else features.visual
        for level in condition.levels[1:]:
            corrupted = condition.corrupt(
                clean, level, clip, self.seed, self.noise
            )
            if is_audio:
                where = f"{condition.name} {level}"
                corrupted = self._encode(corrupted, clip, where)
            part = replace(features, **{condition.modality: corrupted})
            # The remaining audio may be silence, encoded as None.
            if part.audio is not None or part.visual is not None:
                outputs = self.model.outputs(part)
                if outputs:
                    predictions = self.corrupted[condition.name, level]
                    predictions.add(clip, outputs, entry)

    def _read(self, clip, entry):
        """Reads samples and visual features; None if they fail to decode."""
        wav, video = entry["wav"], entry["video"]
        if wav == video:
            try:
                return self.encoder.read(wav, video)
            except MediaError:
                pass  # Try audio and video separately.
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

    def _read_features(self, clip, entry, modality, features):
        """Reads precomputed features of an entry into ``features``."""
        reference = entry.get(FEATURE_FIELD[modality])
        if reference is not None:
            try:
                frames = self.encoder.read_features(modality, reference)
                setattr(features, modality, frames)
            except MediaError as error:
                self._leave_out(clip, modality, error)

    def _encode(self, samples, clip, where):
        """Encodes audio; None without samples or for silence."""
        if samples is None:
            return None
        try:
            return self.encoder.encode_audio(samples, clip)
        except MediaError as error:
            self._leave_out(clip, where, error)
            return None

    def _leave_out(self, clip, where, error):
        """Records and logs a part of a clip that cannot be used."""
        self.failed[f"{clip} ({where})"] = error.text
        logger.warning("%s: %s left out: %s", clip, where, error)

    def summary(self) -> dict:
        """Returns the clips and scores for robustness.json.

        ``clips`` (counts, and ids of clips left out), ``clean`` (scores of each
        head on clips with its inputs, and of "auto", the head for the inputs
        of each clip), ``chance`` (chance level on the clips of the
        conditions), ``conditions`` and ``skipped`` (name to reason).
        """
        conditions, skipped = {}, {}
        for condition in self.conditions:
            levels = self._score_levels(condition)
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
                "used": len(self.clean.clips()),
                "with_both": len(self.clean.clips("audiovisual")),
                "no_sound": self.absent["audio"],
                "no_face": self.absent["visual"],
                "failed": self.failed,
            },
            "clean": self.clean.scores((*HEADS, "auto")),
            "chance": self.clean.chance(
                self.clean.clips("audiovisual" if self.has_pairs else "auto")
            ),
            "conditions": conditions,
            "skipped": skipped,
        }

    def _score_levels(self, condition):
        """Returns scores at each level, or the reason why there are none."""
        modality, pairs = condition.modality, self.clean.clips("audiovisual")
        if modality and modality not in self.model.trained_heads:
            return f"the {modality} head was never trained"
        if modality == "audio" and self.encoder.takes_features(modality):
            return "the model takes features of the sound, not sound"
        single = modality and not self.has_pairs
        clips = self.clean.clips(modality) if single else pairs
        if not clips:
            return f"no clip has {NEEDS[modality if single else None]}"
        if condition.name == "modalities":
            scores = self.clean.scores(HEADS, pairs)
            return [{**scores, **self.clean.scores(["auto"])}]
        if condition.name == "missing":
            return [self._score_missing(pairs, p) for p in condition.levels]
        # The head of the other modality is unchanged, for comparison.
        heads = [modality] if single else HEADS
        return [
            self.corrupted.get((condition.name, level), self.clean).scores(
                heads, clips
            )
            for level in condition.levels
        ]

    def _score_missing(self, pairs, percent):
        """Scores with a percentage of clips that lost one modality."""
        lost = lose_modality(pairs, percent, self.seed)
        heads = {
            clip: OTHER[lost[clip]] if clip in lost else "audiovisual"
            for clip in pairs
        }
        return {"auto": self.clean.score_of(heads)}


def write_report(
    folder: str | Path, result: dict, predictions: Predictions
) -> list:
    """Writes ``robustness.json`` and ``.txt``, the figure, and the predictions
    on clean clips, in the format of predictions_test.csv.

    ``result`` has ``task``, ``labels``, ``title`` (model and corpus) and the
    result of :meth:`RobustnessTest.summary`. Returns :func:`report_lines`.
    """
    folder, lines = Path(folder), report_lines(result)
    stats = {
        head: predictions.stats(dict.fromkeys(predictions.clips(head), head))
        for head in HEADS
    }
    rows = predictions_csv(predictions.task, predictions.labels, stats)
    write_json(folder / "robustness.json", result)
    write_lines(folder / "robustness.txt", lines)
    write_atomically(folder / "predictions_clean.csv", rows)
    remove_figure(folder / "robustness")  # Of an earlier evaluation
    if result["conditions"]:
        _draw(result, folder / "robustness")
    return lines


def report_lines(result: dict) -> list:
    """Formats robustness.json as lines: clean scores, then macro F1 or mean CCC
    for each condition."""
    counts, clean = result["clips"], result["clean"]
    metrics = {
        "task": result["task"],
        "labels": result["labels"],
        "target": result.get("target"),
        "test": clean,
        "n_test": {head: s["n"] for head, s in clean.items()},
    }
    lines = [
        f"{counts['used']} of {counts['in_manifest']} clips used, "
        f"{counts['with_both']} of them with sound and a face; "
        f"{len(counts['failed'])} files or parts of clips failed",
        *seen_in_training(result.get("speakers_in_training") or []),
        "",
        "As they are",
        *score_table(metrics),
    ]
    for condition in result["conditions"].values():
        lines += ["", *_condition_table(condition, result["task"])]
    for name, reason in result["skipped"].items():
        lines += ["", f"{name}: skipped, {reason}"]
    return lines


def seen_in_training(speakers: list[str]) -> list[str]:
    """Returns a warning line if test speakers were in the training set."""
    if not speakers:
        return []
    more = ", ..." if len(speakers) > 3 else ""
    return [
        f"The model was trained on {len(speakers)} of these speakers "
        f"({', '.join(speakers[:3])}{more}): the scores do not apply to new "
        "speakers"
    ]


def _condition_table(condition, task):
    """Formats a table with a row per level and a column per head."""
    key = STATS[task].main
    levels = condition["levels"]
    heads = list(dict.fromkeys(h for x in levels for h in x["scores"]))
    counts = {h: levels[0]["scores"].get(h, {"n": 0})["n"] for h in heads}
    rows = []
    for level in levels:
        row = [_level_name(level["level"])]
        for head in heads:
            scores = level["scores"].get(head)
            cell = "-" if scores is None else f"{scores[key]:.3f}"
            if scores is not None and scores["n"] != counts[head]:
                cell = f"{cell} ({scores['n']} clips)"
            row.append(cell)
        rows.append(row)
    unit = f" ({condition['unit']})" if condition["unit"] else ""
    columns = [f"{head}, {counts[head]} clips" for head in heads]
    title = f"{condition['title']}{unit}: {SCORE_NAMES[key]}"
    return [title, *table(["level", *columns], rows)]


def _level_name(level):
    """Returns the name of a level in tables and figures."""
    return "clean" if level is None else f"{level:g}"


def _draw(result, path):
    """Plots a panel per condition and a line per head, dashed if its input is
    unchanged."""
    key = STATS[result["task"]].main
    panels = result["conditions"].values()
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = make_figure(3 * columns + 1.6, 2.8 * rows, columns, rows)
    grid, drawn, lowest = np.ravel(grid).tolist(), {}, 0.0
    for axes, condition in zip(grid, panels):
        axes.axhline(result["chance"], color="dimgray", linestyle=":")
        for head, colour in HEAD_COLOURS.items():
            points = [
                (_level_name(level["level"]), level["scores"][head])
                for level in condition["levels"]
                if head in level["scores"]
            ]
            if not points:
                continue
            drawn[head] = {"color": colour, "marker": "o", "markersize": 4}
            names, scores = zip(*points)
            if len(condition["levels"]) == 1:
                names = (head,)
            values = [s[key] for s in scores]
            ends = [s["interval"] or [s[key]] * 2 for s in scores]
            low, high = np.transpose(ends)
            lowest = min(lowest, *values, *low)
            dashed = "--" if len(set(values)) == 1 else "-"
            axes.plot(names, values, linestyle=dashed, **drawn[head])
            if len(values) == 1:
                axes.vlines(names, low, high, color=colour, linewidth=2)
            else:
                axes.fill_between(
                    names, low, high, color=colour, alpha=0.15, linewidth=0
                )
        axes.set_title(condition["title"], fontsize=10)
        axes.set_xlabel(condition["unit"])
        axes.set_ylabel(SCORE_NAMES[key])
    for axes in grid:
        axes.set_ylim(lowest, 1.02)
        axes.set_visible(bool(axes.get_title()))
    drawn["input as it was"] = {"color": "dimgray", "linestyle": "--"}
    drawn["chance"] = {"color": "dimgray", "linestyle": ":"}
    add_legend(figure, drawn | INTERVAL)
    set_title(figure, result["title"])
    save_figure(figure, path)
