"""Scores against scikit-learn and torchmetrics, over the set at once."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    top_k_accuracy_score,
)

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.metrics import ConcordanceStats, EmotionStats, concordance

LABELS = ["angry", "disgust", "fear", "happy"]


def collected(kind, labels, predictions, targets, size=7):
    """Statistics filled in batches of ``size``."""
    stats = kind(labels)
    for start in range(0, len(predictions), size):
        end = start + size
        ids = [str(i) for i in range(start, min(end, len(predictions)))]
        stats.append(ids, predictions[start:end], targets[start:end])
    return stats


@pytest.mark.parametrize("absent", [False, True])
def test_classes_equal_scikit_learn(absent):
    random = np.random.default_rng(0)
    targets = random.integers(0, 3 if absent else 4, 60)
    logits = random.normal(size=(60, 4))
    if absent:
        logits[:, 3] = -10  # A class that neither side ever names.
    stats = collected(
        EmotionStats, LABELS, torch.tensor(logits), torch.tensor(targets)
    )
    guess = torch.tensor(logits).float().argmax(1).numpy()
    found = stats.summarize()
    assert found["f1_macro"] == pytest.approx(
        f1_score(targets, guess, average="macro")
    )
    assert found["f1_micro"] == pytest.approx(
        f1_score(targets, guess, average="micro")
    )
    assert found["uar"] == pytest.approx(
        balanced_accuracy_score(targets, guess)
    )
    assert np.array_equal(
        found["confusion"], confusion_matrix(targets, guess, labels=range(4))
    )
    assert stats.summarize("score") == found["f1_macro"]


def test_concordance_is_of_the_set_not_the_mean_of_batches():
    random = np.random.default_rng(1)
    targets = torch.tensor(random.normal(size=(40, 2)))
    predictions = targets * 0.5 + torch.tensor(random.normal(size=(40, 2)))
    stats = collected(ConcordanceStats, ["a", "v"], predictions, targets, 4)
    whole = concordance(predictions.float().numpy(), targets.numpy())
    assert list(stats.summarize("ccc").values()) == pytest.approx(list(whole))
    batches = [
        concordance(predictions[i : i + 4].numpy(), targets[i : i + 4].numpy())
        for i in range(0, 40, 4)
    ]
    assert abs(np.mean(batches, axis=0) - whole).max() > 0.01


def test_a_score_of_one_s_own_stands_beside_the_others():
    random = np.random.default_rng(0)
    targets = random.integers(0, 4, 60)
    logits = random.normal(size=(60, 4))

    def top2(predictions, truth):
        return top_k_accuracy_score(truth, predictions, k=2)

    stats = EmotionStats(LABELS, more={"top2": top2})
    stats.append([""] * 60, torch.tensor(logits), torch.tensor(targets))
    expected = top_k_accuracy_score(targets, logits, k=2)
    assert stats.summarize()["top2"] == stats.summarize("top2") == expected
    for name in ("loss", "top2", *EmotionStats.numbers):
        stats.check_selection(name)
        assert name == "loss" or isinstance(stats.summarize(name), float)
    for name in ("top3", "confusion", "accuracy"):
        with pytest.raises(VAVLError, match="select_by: .*give loss.*top2"):
            stats.check_selection(name)
