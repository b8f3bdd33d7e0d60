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


@pytest.mark.parametrize("size", [2, 3, 100])
def test_concordance_equals_torchmetrics(size):
    random = torch.Generator().manual_seed(size)
    a = torch.randn(size, 3, generator=random) * 2 + 1
    b = a * 0.5 + torch.randn(size, 3, generator=random)
    # torchmetrics mixes sample variance and means: scale its moments back.
    theirs = concordance_corrcoef(a.double(), b.double())
    biased = (size - 1) / size
    cov = (
        2
        * biased
        * torch.stack(
            [torch.cov(torch.stack([a[:, i], b[:, i]]))[0, 1] for i in range(3)]
        )
    )
    spread = biased * (a.var(0) + b.var(0)) + (a.mean(0) - b.mean(0)) ** 2
    assert torch.allclose(concordance(a, b), cov / spread, atol=1e-5)
    if size == 100:
        assert torch.allclose(concordance(a, b).double(), theirs, atol=1e-2)


def test_concordance_of_shift_and_scale_in_closed_form():
    x = torch.arange(10.0).reshape(-1, 1)
    variance = x.var(unbiased=False)
    for scale, shift in ((1, 3.0), (2, 0.0), (-1, 9.0)):
        y = scale * x + shift
        gap = (x.mean() - y.mean()) ** 2
        expected = 2 * scale * variance / (variance * (1 + scale**2) + gap)
        assert torch.allclose(concordance(x, y), expected, atol=1e-6)


def test_ccc_loss_is_finite_for_constants_and_single_rows():
    constant = torch.full((4, 2), 3.0, requires_grad=True)
    loss = ccc_loss(constant, torch.full((4, 2), 3.0))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(constant.grad).all()
    assert ccc_loss(torch.ones(1, 2), torch.zeros(1, 2)).item() == 2.0


def test_ccc_loss_gradient():
    torch.manual_seed(0)
    targets = torch.randn(6, 2)
    # gradcheck wants float64; concordance computes in fp32 by design.
    predictions = torch.randn(6, 2, requires_grad=True)
    ccc_loss(predictions, targets).backward()
    step = 1e-2
    for index in ((0, 0), (3, 1)):
        values = []
        for sign in (1, -1):
            moved = predictions.detach().clone()
            moved[index] += sign * step
            values.append(ccc_loss(moved, targets).item())
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(predictions.grad[index].item(), abs=1e-3)


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
