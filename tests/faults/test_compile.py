"""What g++ makes of the network takes more than a minute."""

import shutil

import pytest
import torch

from vavl_sb.lobes.conformer import MaskedConformerEncoder

pytestmark = pytest.mark.faults


@pytest.mark.skipif(
    not (shutil.which("c++") or shutil.which("g++")),
    reason="torch.compile needs a C++ compiler",
)
def test_a_compiled_conformer_gives_what_an_eager_one_gives():
    torch.manual_seed(0)
    shape = dict(d_model=8, nhead=2, d_ffn=8, kernel_size=3, dropout=0.0)
    eager, compiled = (MaskedConformerEncoder(1, **shape) for _ in range(2))
    compiled.load_state_dict(eager.state_dict())
    torch._dynamo.reset()
    compiled.compile(dynamic=True)
    for lengths in ([7, 4], [12, 5, 9]):
        x = torch.randn(len(lengths), max(lengths), 8)
        padding = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
        outputs, gradients = [], []
        for encoder in (eager, compiled):
            encoder.zero_grad()
            out = encoder(x, padding).masked_fill(padding.unsqueeze(-1), 0.0)
            out.square().sum().backward()
            outputs.append(out)
            gradients.append([p.grad for p in encoder.parameters()])
        torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
