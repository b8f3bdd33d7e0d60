"""Predictions of a model's heads: collected clip by clip, or of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vavl_sb.evaluation.statistics import (
    clip_statistics,
    draw_speakers,
    interval,
    mean_scores,
    score_function,
    speaker_sums,
)
from vavl_sb.lobes.vavl import HEADS
from vavl_sb.training.report import STATS, read_predictions
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json
from vavl_sb.utils.metrics import ConcordanceStats, EmotionStats, emotion_scores

DRAWS = 1000  # of speakers, for an interval


class Predictions:
    """Outputs of each head of a model, and scores of any choice among them.

    Example
    -------
    >>> predictions = Predictions("classification", ["angry", "happy"])
    >>> outputs = {"audio": torch.tensor([2.0, 1.0])}
    >>> predictions.add("clip", outputs, {"emotion": "angry"})
    >>> predictions.scores(["audio"])["audio"]["uar"]
    1.0
    """

    def __init__(self, task: str, labels: list):
        self.task, self.labels = task, list(labels)
        self.outputs = {head: {} for head in (*HEADS, "auto")}
        self.targets, self.speakers = {}, {}

    def add(self, clip: str, outputs: dict, entry: dict) -> None:
        """Adds a clip: its id, head to tensor (n,), and its manifest's entry.

        "auto" becomes the audio-visual head's output where there is one.
        """
        for head, values in outputs.items():
            self.outputs[head][clip] = values
        best = [head for head in HEADS if head in outputs][-1]
        self.outputs["auto"][clip] = outputs[best]
        self.speakers[clip] = str(entry.get("spk_id"))
        if self.task == "classification":
            self.targets[clip] = self.labels.index(entry["emotion"])
        else:
            self.targets[clip] = [float(entry[name]) for name in self.labels]

    def clips(self, head: str = "auto") -> list:
        """Ids of the clips that a head ("auto": any) has an output for."""
        return list(self.outputs[head])

    def scores(self, heads: Sequence[str], clips: list | None = None) -> dict:
        """Scores of some heads, of ``HEADS`` and "auto", each on its own, from
        :meth:`score_of`; heads without a clip are left out.

        Where ``clips`` are given, only these; where one of them has lost a
        modality, its "auto" output counts for "audiovisual", as in use.
        """
        found = {}
        for head in heads:
            alone = clips is None or head != "audiovisual"
            source = head if alone else "auto"
            chosen = self.clips(head) if clips is None else clips
            chosen = [c for c in chosen if c in self.outputs[source]]
            if chosen:
                found[head] = self.score_of(dict.fromkeys(chosen, source))
        return found

    def score_of(self, heads: dict) -> dict:
        """Scores where each clip has a head of its own (clip to head).

        ``n``, and ``f1_macro``, ``f1_micro``, ``uar``, or ``ccc`` and
        ``ccc_mean``; and ``interval``, that of the first of them or of the
        mean: 95 %, bootstrap by speaker, None for fewer than two speakers.
        """
        stats = self.stats(heads)
        summary = dict(stats.summarize())
        summary.pop("confusion", None)
        return {
            **{"n": len(heads), **summary},
            "interval": self._interval(stats),
        }

    def _interval(self, stats):
        """Of the score that stands for the task."""
        if len({self.speakers[clip] for clip in stats.ids}) < 2:
            return None
        sums, tested, _ = speaker_sums(
            [_clips(self.task, stats, self.speakers)]
        )
        score = score_function(self.task, self.labels)
        weights = draw_speakers(tested, draws=DRAWS)
        return interval(mean_scores(sums, weights, score)[stats.main])

    def chance(self, clips: list) -> float:
        """The score that stands for the task, of guesses that know nothing:
        each class as often, or the same value for every clip."""
        if self.task == "regression":
            return 0.0
        targets = [self.targets[clip] for clip in clips]
        n = len(self.labels)
        guessed = np.outer(np.bincount(targets, minlength=n), np.ones(n) / n)
        return float(emotion_scores(guessed)["f1_macro"])

    def stats(self, heads: dict) -> EmotionStats | ConcordanceStats:
        """The same (clip to head) as a statistics object."""
        stats = STATS[self.task](self.labels)
        if heads:
            stats.append(
                list(heads),
                torch.stack([self.outputs[h][c] for c, h in heads.items()]),
                torch.tensor([self.targets[clip] for clip in heads]),
            )
        return stats


class Clip(NamedTuple):
    """A test clip of one head: who speaks, the class index or attributes (n,),
    and a row of :func:`~vavl_sb.evaluation.statistics.clip_statistics`."""

    speaker: str
    target: np.ndarray
    statistics: np.ndarray


def _clips(task, stats, speakers):
    """What a head's statistics object has collected: clip id to Clip."""
    predictions, targets = stats.stacked()
    rows = zip(targets, clip_statistics(task, predictions, targets))
    return {c: Clip(speakers[c], *row) for c, row in zip(stats.ids, rows)}


@dataclass
class RunResult:
    """A finished run."""

    task: str  # "classification" or "regression"
    labels: list  # names of classes or attributes
    heads: dict = field(default_factory=dict)  # head to clip id to Clip
    # Head to score name to value; "ccc_<name>" is the CCC of an attribute.
    scores: dict = field(default_factory=dict)

    def add(self, head: str, clips: dict) -> None:
        """Adds a head's clips, and their scores."""
        self.heads[head] = clips
        total = np.sum([clip.statistics for clip in clips.values()], axis=0)
        score = score_function(self.task, self.labels)
        self.scores[head] = {k: float(v) for k, v in score(total).items()}


def read_run(folder: str | Path) -> RunResult:
    """Reads a finished run, whose scores are computed from its predictions.

    Of a train.py's output folder: metrics.json (task and labels),
    predictions_test.csv and test.json (who speaks in each clip). VAVLError, in
    one line: a file is missing or broken, or a clip has no speaker.
    """
    folder = Path(folder)
    try:
        metrics = read_json(folder / "metrics.json")
        entries = read_json(folder / "test.json")
        speakers = {clip: entry["spk_id"] for clip, entry in entries.items()}
        run = RunResult(metrics["task"], metrics["labels"])
        path = folder / "predictions_test.csv"
        for head, stats in read_predictions(path, run.task, run.labels).items():
            run.add(head, _clips(run.task, stats, speakers))
    except OSError as error:
        raise VAVLError(
            f"{error.filename}: cannot be read ({error.strerror})"
        ) from None
    except KeyError as error:
        raise VAVLError(
            f"{folder}: {error} is missing in metrics.json, test.json or "
            "predictions_test.csv; remove the folder and run again"
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise VAVLError(f"{folder}: cannot be used ({error})") from None
    return run
