"""The quicker dropout is dropout."""

import pytest
import torch

from vavl_sb.lobes.conformer import MaskedConformerEncoder
from vavl_sb.nnet.dropout import Dropout, use_in


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_rate_mean_and_independence(p):
    torch.manual_seed(0)
    n = 400_001  # No multiple of the four numbers in 64 bits.
    out = Dropout(p)(torch.ones(n))
    kept = out > 0
    sigma = (p * (1 - p) / n) ** 0.5
    assert abs((~kept).double().mean().item() - p) < 4 * sigma + 2**-17
    assert out.mean().item() == pytest.approx(1.0, abs=4 * sigma / (1 - p))
    # Neighbours, also those drawn by one number, know nothing of each other.
    k = kept.double() - kept.double().mean()
    for lag in (1, 2, 3, 4, 8):
        correlation = (k[lag:] * k[:-lag]).mean() / k.square().mean()
        assert abs(correlation.item()) < 4 / n**0.5


def test_the_gradient_is_dropped_where_the_value_is():
    x = torch.ones(3, 5, 7, requires_grad=True)
    out = Dropout(0.4)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    assert 0 < (out == 0).sum() < x.numel()


def test_the_seed_decides_and_evaluation_drops_nothing():
    x, dropout = torch.randn(1000), Dropout(0.3)
    torch.manual_seed(4)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(4)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)
    assert torch.equal(dropout.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_half_precision_keeps_its_type():
    out = Dropout(0.5)(torch.ones(1000, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert set(out.unique().tolist()) == {0.0, 2.0}


def test_the_conformers_use_it():
    encoder = MaskedConformerEncoder(1, d_model=8, nhead=2, d_ffn=16)
    layer = encoder.conformer.layers[0]
    # The one that stands in the layer itself is not in its forward.
    found = [type(m) for m in layer.modules() if hasattr(m, "inplace")]
    assert torch.nn.Dropout not in found
    assert found.count(Dropout) >= 5
    net = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Dropout(0.7)))
    use_in(net)
    assert type(net[0][0]) is Dropout and net[0][0].p == 0.7
