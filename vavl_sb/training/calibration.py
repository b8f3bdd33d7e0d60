"""A temperature for each head, from the clips that choose the checkpoint, and
what it does to the clips of the test. Attributes have none."""

import copy

from vavl_sb.nnet.calibration import (
    expected_calibration_error,
    fit_temperature,
    softmax,
)
from vavl_sb.utils.metrics import EmotionStats


def fit_temperatures(stats: dict) -> dict[str, float]:
    """The temperature of each head whose ``EmotionStats`` has clips, which it
    has not learned from; other metrics are passed over.

    Example
    -------
    >>> import torch
    >>> stats = EmotionStats(["angry", "sad"])
    >>> stats.append(["a", "b"], 9 * torch.eye(2), torch.tensor([0, 0]))
    >>> fit_temperatures({"audio": stats})["audio"] > 3  # It was too sure.
    True
    """
    return {
        head: fit_temperature(*collected.stacked())
        for head, collected in stats.items()
        if isinstance(collected, EmotionStats) and len(collected)
    }


def calibrate(stats: dict, temperatures: dict[str, float]) -> dict:
    """The same statistics, by head, of logits that are divided by a
    temperature, 1 for heads that have none. Other metrics stay as they are."""
    found = dict(stats)
    for head, collected in stats.items():
        if isinstance(collected, EmotionStats):
            found[head] = copy.copy(collected)
            temperature = temperatures.get(head, 1.0)
            found[head].predictions = [
                logits / temperature for logits in collected.predictions
            ]
    return found


def calibration_scores(
    stats: dict, temperatures: dict[str, float]
) -> dict[str, dict[str, float]]:
    """How far each head's confidence is from how often it is right.

    Of the test's statistics, as the network gave the logits: head to ``ece``
    (expected calibration error of what the model says), ``ece_before`` (without
    its temperature) and ``temperature``.
    """
    found = {}
    for head, collected in stats.items():
        if isinstance(collected, EmotionStats) and len(collected):
            logits, targets = collected.stacked()
            temperature = temperatures.get(head, 1.0)
            after, before = (
                expected_calibration_error(softmax(logits, t), targets)
                for t in (temperature, 1.0)
            )
            found[head] = {
                "ece": after,
                "ece_before": before,
                "temperature": temperature,
            }
    return found
