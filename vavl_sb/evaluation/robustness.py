"""Scores a model on the clips of a manifest, as they are and corrupted.

Each clip is decoded once and its face is encoded once; its sound is encoded
once for each condition and level that changes it. Only the heads' outputs are
kept.
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
    """Reads the manifest of a test: clip id to entry, with real paths.

    The clips' labels must be among the model's. ``data_root`` is what
    ``{data_root}`` stands for, by default what prepare_report.json beside the
    manifest says. ManifestError, in one line: the manifest cannot be used, or a
    label is not one of the model's.
    """
    entries = read_entries(manifest, data_root, task, labels)
    if not entries:
        raise ManifestError(f"{manifest}: no clip in it")
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
    """One pass over clips, and the scores that come out of it.

    The model is scored on the clips as they are, and under each of the
    ``conditions``; the seed chooses clips and frames, and ``noise`` is from
    :func:`vavl_sb.evaluation.corruption.make_noise`.
    Set to ``{}`` before :meth:`run`, ``features`` keeps those of each clip that
    was scored.
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
        """Decodes all clips of :func:`read_clips`, and collects the outputs.

        MediaError: no clip at all can be used.
        """
        self.count = len(entries)
        # Where the corpus has clips with both, all is scored on those.
        self.has_pairs = any(
            all(find_source(entry, modality) for modality in MEDIA_FIELD)
            for entry in entries.values()
        )
        for clip in tqdm(sorted(entries), desc="clips", disable=None):
            self._one_clip(clip, entries[clip])
        if not self.clean.clips():
            reason = next(iter(self.failed.values()), "all are silent")
            raise MediaError(
                f"none of the {len(entries)} clips can be used ({reason}); "
                "check --data_root"
            )

    def _one_clip(self, clip, entry):
        """Predictions for one clip, as it is and corrupted."""
        samples, visual = self._read(clip, entry)
        features = ClipFeatures(self._encode(samples, clip, "audio"), visual)
        for modality in MEDIA_FIELD:
            self._read_features(clip, entry, modality, features)
        has = {m: getattr(features, m) is not None for m in OTHER}
        for modality in MEDIA_FIELD:
            source = find_source(entry, modality)
            lacks = source is not None and not has[modality]
            if lacks and f"{clip} ({modality})" not in self.failed:
                self.absent[modality].append(clip)
        outputs = self.model.outputs(features) if any(has.values()) else None
        if not outputs:  # Nothing, or only what the model was not trained on.
            return
        self.clean.add(clip, outputs, entry)
        if self.features is not None:
            self.features[clip] = features
        if self.has_pairs and not all(has.values()):
            return
        for condition in self.conditions:
            trained = condition.modality in self.model.trained_heads
            if condition.modality == "audio" and samples is None:
                continue  # Features can't be made noisy as sound is.
            if trained and has[condition.modality]:
                self._corrupt(condition, clip, entry, samples, features)

    def _corrupt(self, condition, clip, entry, samples, features):
        """Predictions for one clip at all levels but the clean one."""
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
                    predictions = self.corrupted[condition.name, level]
                    predictions.add(clip, outputs, entry)

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

    def _read_features(self, clip, entry, modality, features):
        """Puts in what an entry gives as features, in place of a file."""
        reference = entry.get(FEATURE_FIELD[modality])
        if reference is not None:
            try:
                frames = self.encoder.read_features(modality, reference)
                setattr(features, modality, frames)
            except MediaError as error:
                self._leave_out(clip, modality, error)

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

    def summary(self) -> dict:
        """What robustness.json says about clips and scores.

        ``clips`` (counts, and ids of what was left out), ``clean`` (scores of
        each head on the clips that it has an output for, and of "auto": the
        head that fits each clip), ``chance`` (the score of guesses on the
        clips of the conditions), ``conditions`` and ``skipped`` (name to
        reason).
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

    def _levels(self, condition):
        """Scores at each level of a condition, or why there are none."""
        modality, pairs = condition.modality, self.clean.clips("audiovisual")
        if modality and modality not in self.model.trained_heads:
            return f"the {modality} head was never trained"
        if modality == "audio" and self.encoder.takes_features(modality):
            return "the model takes features of the sound, not sound"
        alone = modality and not self.has_pairs
        clips = self.clean.clips(modality) if alone else pairs
        if not clips:
            return f"no clip has {NEEDS[modality if alone else None]}"
        if condition.name == "modalities":
            scores = self.clean.scores(HEADS, pairs)
            return [{**scores, **self.clean.scores(["auto"])}]
        if condition.name == "missing":
            return [self._missing(pairs, level) for level in condition.levels]
        # The other head stays as it is, for comparison.
        heads = [modality] if alone else HEADS
        return [
            self.corrupted.get((condition.name, level), self.clean).scores(
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


def write_report(
    folder: str | Path, result: dict, predictions: Predictions
) -> list:
    """Writes ``robustness.json`` and ``.txt``, its figure, and the predictions
    on the clips as they are, in the form of a run's predictions_test.csv.

    ``result`` has ``task``, ``labels``, ``title`` (model and corpus) and what
    :meth:`RobustnessTest.summary` gives. Returns :func:`report_lines`.
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
    remove_figure(folder / "robustness")  # Of an earlier test.
    if result["conditions"]:
        _draw(result, folder / "robustness")
    return lines


def report_lines(result: dict) -> list:
    """What robustness.json holds, as lines: the clean scores, then for each
    condition the score that stands for the task, macro F1 or the mean CCC."""
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
    """A line where the model was trained on speakers that it is scored on."""
    if not speakers:
        return []
    more = ", ..." if len(speakers) > 3 else ""
    return [
        f"The model was trained on {len(speakers)} of their speakers "
        f"({', '.join(speakers[:3])}{more}): these scores say nothing of new "
        "ones"
    ]


def _condition_table(condition, task):
    """One row a level, one column a head."""
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
    """How tables and figures name a level."""
    return "clean" if level is None else f"{level:g}"


def _draw(result, path):
    """Draws a panel for each condition, a line for each head; a head whose
    input stays as it is has a dashed one."""
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
            if len(condition["levels"]) == 1:  # One of all heads.
                names = (head,)
            values = [one[key] for one in scores]
            ends = [one["interval"] or [one[key]] * 2 for one in scores]
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
