"""Scores a model by the number of clips that its test speakers are enrolled
with.

The clips of each test speaker are split at random into unlabelled clips for
enrolment and clips for scoring. Balanced emotions, as in acted corpora, favour
speaker normalization, so enrolments of only one or two emotions are tested too.
"""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from vavl_sb.evaluation.predictions import Predictions
from vavl_sb.evaluation.robustness import seen_in_training
from vavl_sb.features.extractor import ClipFeatures
from vavl_sb.lobes.vavl import HEADS
from vavl_sb.training.plots import (
    HEAD_COLOURS,
    INTERVAL,
    SCORE_NAMES,
    add_legend,
    make_figure,
    save_figure,
    set_title,
)
from vavl_sb.training.report import STATS, table
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import write_json, write_lines
from vavl_sb.utils.seeding import clip_generator

if TYPE_CHECKING:
    from vavl_sb.inference.emotion import EmotionRecognizer

ALL = "all"
SKEWED_SIZE = 5  # clips of an enrolment that lacks some emotions
CALM = ("calm", "neutral")


def read_sizes(text: str) -> list[str]:
    """Parses comma-separated numbers of enrolment clips, or "all".

    Raises
    ------
    VAVLError
        A value is not a number, is repeated, or there is none.

    Example
    -------
    >>> read_sizes("all,5,0")
    ['0', '5', 'all']
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word != ALL and not re.fullmatch("[0-9]{1,6}", word):
            raise VAVLError(
                "--enrol: must be numbers of clips, or all, separated by "
                f"commas, not {word}"
            )
    sizes = sorted({int(word) for word in words if word != ALL})
    if len(sizes) + (ALL in words) < max(len(words), 1):
        raise VAVLError(f"--enrol: empty, or has a duplicate: {text!r}")
    return [*map(str, sizes), *([ALL] if ALL in words else [])]


class EnrolmentTest:
    """Scores a model with different enrolments of the test speakers.

    Arguments
    ---------
    model : vavl_sb.inference.emotion.EmotionRecognizer
        Trained with speaker normalization.
    entries : dict
        Clip id to manifest entry, with ``spk_id`` and the label.
    features : dict
        Clip id to ClipFeatures, before pooling.
    sizes : sequence of str
        From :func:`read_sizes`.
    draws : int
        Number of random enrolments for each size and speaker.
    seed : int
        Seed of the draws.
    """

    def __init__(
        self,
        model: "EmotionRecognizer",
        entries: dict[str, dict],
        features: dict[str, ClipFeatures],
        sizes: Sequence[str],
        draws: int = 5,
        seed: int = 1234,
    ):
        self.model, self.entries, self.features = model, entries, features
        self.sizes, self.draws, self.seed = list(sizes), draws, seed
        self.speakers: dict[str, list] = {}
        for clip in sorted(features):
            speaker = str(entries[clip]["spk_id"])
            self.speakers.setdefault(speaker, []).append(clip)

    def run(self) -> list[dict]:
        """Enrols and scores.

        Returns
        -------
        list of dict
            For each condition: ``enrolment`` (name), ``clips`` (mean number),
            ``draws``, ``speakers`` (number with enough clips),
            ``transductive`` (whether the scored clips are also enrolled),
            ``scores`` (head to the result of
            :meth:`vavl_sb.evaluation.predictions.Predictions.score_of`) and
            ``without`` (scores of the same clips without enrolment).
        """
        clips = [*self.features]
        parts = [self.features[clip] for clip in clips]
        self.unenrolled = dict(zip(clips, self.model.batch_outputs(parts)))
        conditions = [(size, size) for size in self.sizes]
        if {*self.sizes} - {"0", ALL}:
            size = str(SKEWED_SIZE)
            conditions += [(kind, size) for kind in self._skewed_kinds()]
        bar = tqdm(conditions, desc="enrolments", dynamic_ncols=True)
        return [self._score(kind, size) for kind, size in bar]

    def _skewed_kinds(self):
        """Returns the kinds of enrolments that lack some emotions."""
        if self.model.hparams.task != "classification":
            return []
        calm = [name for name in CALM if name in self.model.hparams.labels]
        kinds = [" or ".join(calm)] if calm else []
        return [*kinds, "one emotion", "two emotions"]

    def _score(self, kind, size):
        """Scores one condition."""
        counts, scored = [], set()
        task = self.model.hparams.task, self.model.hparams.labels
        enrolment, without = Predictions(*task), Predictions(*task)
        draws = 1 if size in ("0", ALL) else self.draws
        for speaker, clips in self.speakers.items():
            for draw in range(draws):
                enrolled = self._draw(kind, size, speaker, draw)
                if enrolled is None:
                    continue
                tested = clips
                if size != ALL:
                    tested = [clip for clip in clips if clip not in enrolled]
                statistics = None
                if enrolled:
                    parts = [self.features[clip] for clip in enrolled]
                    statistics = self.model.enrol_features(parts, warn=False)
                counts.append(len(enrolled))
                scored.add(speaker)
                parts = [self.features[clip] for clip in tested]
                outputs = self.model.batch_outputs(parts, statistics)
                for clip, heads in zip(tested, outputs):
                    name, entry = f"{clip} {draw}", self.entries[clip]
                    enrolment.add(name, heads, entry)
                    without.add(name, self.unenrolled[clip], entry)
        return {
            "enrolment": kind,
            "clips": float(np.mean(counts)) if counts else 0.0,
            "draws": draws,
            "speakers": len(scored),
            "transductive": size == ALL,
            "scores": enrolment.scores(HEADS),
            "without": without.scores(HEADS),
        }

    def _draw(self, kind, size, speaker, draw):
        """Draws clips to enrol; None if the speaker has too few clips."""
        clips = self.speakers[speaker]
        if size == ALL:
            return clips
        random = clip_generator(speaker, self.seed, f"enrol {kind} {draw}")
        pool = clips
        if kind != size:
            emotions = sorted({self.entries[clip]["emotion"] for clip in clips})
            number = 1 if kind == "one emotion" else 2
            chosen = random.permutation(emotions)[:number].tolist()
            if kind.startswith(CALM):
                chosen = list(CALM)
            pool = [c for c in clips if self.entries[c]["emotion"] in chosen]
            size = min(int(size), len(pool)) or len(clips)
        if int(size) >= len(clips):
            return None
        return [pool[i] for i in random.permutation(len(pool))[: int(size)]]


def write_enrolment(folder: str | Path, result: dict) -> list[str]:
    """Writes ``enrolment.json``, ``.txt`` and the figure; returns the lines.

    ``result`` has ``task``, ``title`` (model and corpus) and ``enrolment``,
    from :meth:`EnrolmentTest.run`.
    """
    folder = Path(folder)
    lines = enrolment_lines(result)
    write_json(folder / "enrolment.json", result)
    write_lines(folder / "enrolment.txt", lines)
    _draw_curve(result, folder / "enrolment")
    return lines


def enrolment_lines(result: dict) -> list[str]:
    """Formats a table with a row per condition and a column per head."""
    key = STATS[result["task"]].main
    rows = []
    heads = [
        head
        for head in HEADS
        if any(head in row["scores"] for row in result["enrolment"])
    ]
    for row in result["enrolment"]:
        name = row["enrolment"]
        name = f"{name} clips" if name.isdecimal() else name
        if row["transductive"]:
            name = "all clips, the scored ones too (transductive)"
        elif not row["enrolment"].isdecimal():
            name = f"{name} ({row['clips']:.1f} clips)"
        cells = [_cell(row, head, key) for head in heads]
        rows.append([name, row["speakers"], row["draws"], *cells])
    title = (
        f"Speaker enrolment with other clips, without labels: {SCORE_NAMES[key]} "
        "of the remaining clips, with the 95 % interval over speakers, and the "
        "difference to the same clips without enrolment"
    )
    columns = ["enrolment", "speakers", "draws", *heads]
    seen = seen_in_training(result.get("speakers_in_training") or [])
    return [*seen, title, *table(columns, rows)]


def _cell(row, head, key):
    """Formats a score, its interval, and the change by enrolment."""
    score = row["scores"].get(head)
    if score is None:
        return "-"
    ends = score["interval"]
    words = "" if ends is None else f" [{ends[0]:.2f}, {ends[1]:.2f}]"
    if row["enrolment"] != "0":
        words += f" {score[key] - row['without'][head][key]:+.3f}"
    return f"{score[key]:.3f}{words}"


def _draw_curve(result, path):
    """Plots scores over the number of enrolled clips, and for the enrolments
    that lack some emotions."""
    key, rows = STATS[result["task"]].main, result["enrolment"]
    names = [row["enrolment"] for row in rows]
    sized = sum(name.isdecimal() or name == ALL for name in names)
    skewed = (f"{SKEWED_SIZE}, of {name}" for name in names[sized:])
    names[sized:] = [textwrap.fill(name, 9) for name in skewed]
    figure, axes = make_figure(0.8 * len(rows) + 3.0, 3.4)
    drawn = {}
    for shift, (head, colour) in zip((-0.07, 0.0, 0.07), HEAD_COLOURS.items()):
        scores = [row["scores"].get(head) for row in rows]
        if not any(scores):
            continue
        places = np.arange(len(rows)) + shift  # Intervals side by side
        values = [s[key] if s else np.nan for s in scores]
        ends = [
            (s and s["interval"]) or [value] * 2
            for s, value in zip(scores, values)
        ]
        drawn[head] = {"color": colour, "marker": "o", "markersize": 4}
        axes.plot(places[:sized], values[:sized], **drawn[head])
        axes.plot(places[sized:], values[sized:], ls="", **drawn[head])
        axes.vlines(places, *np.transpose(ends), color=colour, alpha=0.4)
        for place, value, row in zip(places, values, rows):
            if row["transductive"]:  # Not comparable with the others
                white = {"markersize": 7, "markerfacecolor": "white"}
                axes.plot(place, value, **{**drawn[head], **white})
            elif head in row["without"] and row["enrolment"] != "0":
                without = row["without"][head][key]
                axes.plot(place, without, "_", color=colour, markersize=12)
    axes.set_xticks(range(len(rows)), names)
    axes.set_xlabel("other clips of the speaker, without labels")
    axes.set_ylabel(SCORE_NAMES[key])
    dots = {"color": "dimgray", "ls": ""}
    drawn["the same clips\nwithout"] = {**dots, "marker": "_"}
    if ALL in names:
        hollow = {**dots, "marker": "o", "markerfacecolor": "white"}
        drawn["all: the scored\nclips too"] = hollow
    add_legend(figure, drawn | INTERVAL)
    set_title(figure, result["title"])
    save_figure(figure, path)
