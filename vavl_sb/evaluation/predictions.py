"""Predictions of each head and their scores, collected or read from a run."""

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

DRAWS = 1000  # bootstrap draws of speakers


class Predictions:
    """Collects outputs of each head, and scores any selection of them.

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
        """Adds a clip: its id, outputs (n,) by head, and its manifest entry.

        "auto" is the audio-visual output if there is one, else the other.
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
        """Returns ids of the clips with an output of a head ("auto": any)."""
        return list(self.outputs[head])

    def scores(self, heads: Sequence[str], clips: list | None = None) -> dict:
        """Scores heads (of ``HEADS`` and "auto") separately, with
        :meth:`score_of`; heads without clips are left out.

        If ``clips`` are given, only these are scored; of those that have lost
        a modality, "auto" outputs count for "audiovisual".
        """
        scores = {}
        for head in heads:
            alone = clips is None or head != "audiovisual"
            source = head if alone else "auto"
            chosen = self.clips(head) if clips is None else clips
            chosen = [c for c in chosen if c in self.outputs[source]]
            if chosen:
                scores[head] = self.score_of(dict.fromkeys(chosen, source))
        return scores

    def score_of(self, heads: dict) -> dict:
        """Scores clips, each by the output of one head (clip to head).

        Returns ``n``; ``f1_macro``, ``f1_micro`` and ``uar``, or ``ccc`` and
        ``ccc_mean``; and ``interval``, the 95 % bootstrap interval by speaker
        of f1_macro or ccc_mean, None for fewer than two speakers.
        """
        stats = self.stats(heads)
        summary = dict(stats.summarize())
        summary.pop("confusion", None)
        return {"n": len(heads), **summary, "interval": self._interval(stats)}

    def _interval(self, stats):
        """Returns the interval of the main score of the task, or None."""
        if len({self.speakers[clip] for clip in stats.ids}) < 2:
            return None
        sums, tested, _ = speaker_sums(
            [_clips(self.task, stats, self.speakers)]
        )
        score = score_function(self.task, self.labels)
        weights = draw_speakers(tested, draws=DRAWS)
        return interval(mean_scores(sums, weights, score)[stats.main])

    def chance(self, clips: list) -> float:
        """Returns the main score at chance level: of uniform guesses, or of one
        value for every clip."""
        if self.task == "regression":
            return 0.0
        targets = [self.targets[clip] for clip in clips]
        n = len(self.labels)
        confusion = np.outer(np.bincount(targets, minlength=n), np.ones(n) / n)
        return float(emotion_scores(confusion)["f1_macro"])

    def stats(self, heads: dict) -> EmotionStats | ConcordanceStats:
        """Returns a statistics object of outputs (clip to head)."""
        stats = STATS[self.task](self.labels)
        if heads:
            stats.append(
                list(heads),
                torch.stack([self.outputs[h][c] for c, h in heads.items()]),
                torch.tensor([self.targets[clip] for clip in heads]),
            )
        return stats


class Clip(NamedTuple):
    """A test clip with the sufficient statistics of one head, a row of
    :func:`~vavl_sb.evaluation.statistics.clip_statistics`."""

    speaker: str
    target: np.ndarray  # class index, or attributes (n,)
    statistics: np.ndarray


def _clips(task, stats, speakers):
    """Converts a statistics object to a dict of clip id to Clip."""
    predictions, targets = stats.stacked()
    rows = zip(targets, clip_statistics(task, predictions, targets))
    return {c: Clip(speakers[c], *row) for c, row in zip(stats.ids, rows)}


@dataclass
class RunResult:
    """Predictions and scores of a finished run."""

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
    """Reads a finished run, and computes its scores from its predictions.

    Reads metrics.json (task and labels), predictions_test.csv and test.json
    (speakers) of the output folder. Raises VAVLError if a file is missing or
    broken, or a clip has no speaker.
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
