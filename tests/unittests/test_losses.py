"""Losses against closed forms and other libraries."""

import pytest
import torch
from torchmetrics.functional import concordance_corrcoef

from vavl_sb.nnet.losses import (
    ccc_loss,
    classification_loss,
    concordance,
    reconstruction_loss,
)
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.metrics import concordance as set_concordance


def population_by_torchmetrics(predictions, targets):
    """Lin's CCC, with population moments, by torchmetrics alone.

    torchmetrics divides variances and covariance by N - 1, but not the gap
    of the means: 2 k c / (k s + gap^2) with k = N / (N - 1), where Lin has
    2 c / (s + gap^2). With the gap widened by sqrt(k) the k cancels.
    """
    size = len(predictions)
    gap = targets.mean(0) - predictions.mean(0)
    widened = targets + gap * ((size / (size - 1)) ** 0.5 - 1)
    return concordance_corrcoef(predictions, widened)


@pytest.mark.parametrize("ours", ["loss", "score"])
@pytest.mark.parametrize("size, offset", [(2, 3.0), (3, 0.0), (1000, 3.0)])
def test_concordance_equals_torchmetrics(ours, size, offset):
    random = torch.Generator().manual_seed(size)
    a = torch.randn(size, 3, generator=random).double() * 2 + 1
    b = a * 0.5 + torch.randn(size, 3, generator=random) + offset
    if ours == "loss":
        found = concordance(a, b)
    else:
        found = torch.from_numpy(set_concordance(a.numpy(), b.numpy()))
    assert torch.allclose(found, population_by_torchmetrics(a, b), atol=1e-6)
    # Without a gap the two definitions agree as they are.
    level = b - b.mean(0) + a.mean(0)
    assert torch.allclose(
        concordance(a, level), concordance_corrcoef(a, level), atol=1e-6
    )
    # With one, torchmetrics is further from 0: by O(1 / N), no more.
    theirs = concordance_corrcoef(a, b)
    assert (theirs.abs() >= found.abs() - 1e-9).all()
    assert ((theirs - found).abs() <= 1 / (size - 1)).all()


@pytest.mark.parametrize("size", [1, 50])
@pytest.mark.parametrize("which", ["predictions", "targets", "both", "equal"])
# The mean of many 0.7 need not be 0.7, that of many 0.5 is.
@pytest.mark.parametrize("level", [0.5, 0.7])
def test_concordance_of_constants_is_0(size, which, level):
    random = torch.Generator().manual_seed(size)
    a = torch.randn(size, 2, generator=random).double()
    b = torch.randn(size, 2, generator=random).double()
    if which in ("predictions", "both", "equal"):
        a = torch.full_like(a, level)
    if which in ("targets", "both", "equal"):
        b = torch.full_like(b, level if which == "equal" else -2 * level)
    assert concordance(a, b).abs().max() < 1e-12
    assert abs(set_concordance(a.numpy(), b.numpy())).max() < 1e-12


@pytest.mark.parametrize("size", [2, 3, 6])
def test_ccc_loss_gradient(size):
    random = torch.Generator().manual_seed(size)
    targets = torch.randn(size, 2, generator=random).double()
    predictions = torch.randn(size, 2, generator=random).double()
    predictions.requires_grad_()
    assert torch.autograd.gradcheck(ccc_loss, (predictions, targets))
    # Constant predictions: the value is 1 a column, its gradient is not 0.
    constant = torch.full((size, 2), 0.3).double().requires_grad_()
    assert torch.autograd.gradcheck(ccc_loss, (constant, targets))
    ccc_loss(constant, targets).backward()
    assert constant.grad.abs().max() > 0.01
    ccc_loss(constant, constant.detach()).backward()  # 0 / 0.
    assert constant.grad.isfinite().all()


def test_ccc_loss_sums_over_attributes_in_fp32_under_autocast():
    x, y = torch.randn(8, 3), torch.randn(8, 3)
    full = ccc_loss(x, y)
    assert torch.allclose(full, (1 - concordance(x, y)).sum())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ccc_loss(x, y), full)


def test_classification_and_reconstruction_loss():
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    expected = torch.logsumexp(logits, 1) - logits[:, 1]
    assert torch.allclose(
        classification_loss(logits, torch.tensor([1])), expected.squeeze()
    )
    a, b = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])
    assert reconstruction_loss(a, b).item() == pytest.approx((1 + 4) / 2)


def test_class_weights_count_as_clips_would():
    """A weight of 2 is as each of its clips standing there twice."""
    logits = torch.randn(5, 3)
    classes = torch.tensor([0, 2, 1, 2, 2])
    twice = torch.tensor([0, 2, 1, 2, 2, 2, 2, 2])
    rows = torch.tensor([0, 1, 2, 3, 4, 1, 3, 4])
    weighted = classification_loss(logits, classes, [1.0, 1.0, 2.0])
    expected = classification_loss(logits[rows], twice)
    assert torch.allclose(weighted, expected)
    certain = torch.eye(3)[classes]
    again = classification_loss(logits, certain, [1.0, 1.0, 2.0])
    assert torch.allclose(again, expected)
    for wrong in ([1.0, 2.0], [1.0, 0.0, 1.0]):
        with pytest.raises(VAVLError, match="must be 3 numbers above 0"):
            classification_loss(logits, classes, wrong)
