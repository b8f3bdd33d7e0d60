"""Mixup: clips between clips, with targets between theirs."""

from functools import partial

import numpy as np
import pytest
import torch
from test_brain import LABELS, items

from vavl_sb.dataio.datasets import EmotionBatch
from vavl_sb.nnet.losses import classification_loss
from vavl_sb.training.mixup import Mixup, mix_frames, partners
from vavl_sb.utils.errors import VAVLError

KINDS = ["av", "a", "v", "av", "a", "av", "v", "a", "a"]


@pytest.mark.parametrize("shape", [(), (3,)])
def test_frames_are_mixed_one_by_one(shape):
    random = np.random.default_rng(0)
    frames = [5, 1, 7, 3]
    clips = [random.standard_normal((n, *shape)) for n in frames]
    padded = np.zeros((4, 7, *shape))
    for row, values in zip(padded, clips):
        row[: len(values)] = values
    partner = [2, 0, 3, 1]
    mixed = mix_frames(
        torch.from_numpy(padded),
        torch.tensor(frames) / 7,
        torch.tensor(partner),
        0.7,
    ).numpy()
    for i, j in enumerate(partner):
        for t in range(7):
            expected = 0.0
            if t < frames[i]:
                other = clips[j][t % frames[j]]
                expected = 0.7 * clips[i][t] + 0.3 * other
            np.testing.assert_allclose(mixed[i, t], expected, atol=1e-12)


def test_partners_have_the_same_modalities():
    torch.manual_seed(0)
    audio = torch.tensor(["a" in kind for kind in KINDS])
    visual = torch.tensor(["v" in kind for kind in KINDS])
    seen = set()
    for _ in range(200):
        partner = partners(audio, visual)
        assert sorted(partner.tolist()) == list(range(len(KINDS)))
        assert torch.equal(audio[partner], audio)
        assert torch.equal(visual[partner], visual)
        seen |= {(i, j) for i, j in enumerate(partner.tolist())}
    # Three clips of both kinds, four of sound, two of faces: all pairs.
    assert len(seen) == 3 * 3 + 4 * 4 + 2 * 2


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_one_weight_mixes_inputs_and_targets(task):
    clips = list(items(KINDS, task).values())
    plain = EmotionBatch(clips)
    classes = len(LABELS) if task == "classification" else None
    torch.manual_seed(3)
    mixed = Mixup(0.4, classes)(EmotionBatch(clips))
    torch.manual_seed(3)
    weight = torch.distributions.Beta(0.4, 0.4).sample().item()
    partner = partners(plain.audio.lengths > 0, plain.visual.lengths > 0)
    assert 0 < weight < 1 and (partner != torch.arange(len(KINDS))).any()
    target = plain.label.data
    if classes:
        target = torch.eye(classes)[target.squeeze(-1)]
    expected = weight * target + (1 - weight) * target[partner]
    assert torch.allclose(mixed.label.data, expected)
    for name in ("audio", "visual"):
        was, now = getattr(plain, name), getattr(mixed, name)
        assert torch.equal(was.lengths, now.lengths)
        # All clips have a first frame.
        first = was.data[:, 0]
        expected = weight * first + (1 - weight) * first[partner]
        assert torch.allclose(now.data[:, 0], expected, atol=1e-6)
        absent = was.lengths == 0
        assert (now.data[absent] == 0).all()


def test_loss_of_a_mixed_target_is_the_mean_of_both_losses():
    logits = torch.randn(4, 5)
    first, second = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 1, 0, 2])
    target = 0.8 * torch.eye(5)[first] + 0.2 * torch.eye(5)[second]
    expected = 0.8 * classification_loss(logits, first)
    expected += 0.2 * classification_loss(logits, second)
    assert torch.allclose(classification_loss(logits, target), expected)


@pytest.mark.parametrize("alpha", [-0.1, 101, None, float("nan")])
def test_what_is_no_parameter_is_refused(alpha):
    with pytest.raises(VAVLError, match="^mixup: must be 0"):
        Mixup(alpha)


def smoothed(logits, targets):
    """A loss of one's own that takes both, with a factor."""
    return 3.0 * torch.nn.functional.cross_entropy(
        logits, targets, label_smoothing=0.1
    )


def rounded(logits, targets):
    """Takes probabilities for indices, and says nothing."""
    targets = targets.long().reshape(len(targets), -1)[:, 0]
    return torch.nn.functional.cross_entropy(logits, targets)


def test_a_loss_that_takes_indices_alone_is_refused_before_it_is_wrong():
    for loss in (classification_loss, smoothed):
        Mixup(1.0, 3, loss)
    with pytest.raises(VAVLError, match="prediction_loss: .*mixup to 0"):
        Mixup(1.0, 3, rounded)
    Mixup(0.0, 3, rounded)  # Without mixup it gets what it wants.
    Mixup(1.0, None, rounded)  # Attributes are mixed as they are.


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_loss_that_fails_is_refused_with_its_own_reason(alpha):
    weight = torch.tensor([1.0, 2.0])  # of two classes; there are three
    wrong = partial(torch.nn.functional.cross_entropy, weight=weight)
    with pytest.raises(VAVLError, match=r"\(3, 3\) .*: weight tensor"):
        Mixup(alpha, 3, wrong)
