"""Training in bf16 and with --compile gives what fp32 and eager give."""

import pytest
import torch
from test_brain import copy, fit_and_test, items, make_brain, network, ready

from vavl_sb.dataio.datasets import EmotionBatch
from vavl_sb.lobes.conformer import MaskedConformerEncoder
from vavl_sb.utils.errors import VAVLError

STILL = {"dropout": 0.0, "head_dropout": 0.0}


def one_step(folder, clips, task="classification", **run_opts):
    """Loss of a batch and gradients of its updates, summed by the schedule."""
    brain = make_brain(
        folder,
        task,
        network(**STILL),
        schedule="joint",
        run_opts=run_opts,
    )
    ready(brain).optimizers_step = lambda: None
    loss = brain.fit_batch(EmotionBatch(list(clips.values())))
    gradients = {
        name: parameter.grad
        for name, parameter in brain.modules.vavl.named_parameters()
    }
    return loss.item(), gradients


def whole(gradients):
    """All gradients as one vector."""
    return torch.cat([g.float().flatten() for g in gradients.values()])


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_bf16_gives_the_loss_and_the_direction_of_fp32(tmp_path, task):
    clips = items(["av", "a", "v", "av", "av", "av"], task)
    wanted, expected = one_step(tmp_path / "32", clips, task)
    loss, found = one_step(tmp_path / "16", clips, task, precision="bf16")
    assert loss != wanted  # It was used.
    assert loss == pytest.approx(wanted, rel=0.02)
    # Weights and gradients stay in fp32; those point the same way.
    assert {g.dtype for g in found.values()} == {torch.float32}
    angle = torch.cosine_similarity(whole(found), whole(expected), dim=0)
    assert angle > 0.99


@pytest.mark.usefixtures("without_pictures")
def test_a_run_in_bf16_learns_and_is_scored(tmp_path):
    run_opts = {"precision": "bf16", "eval_precision": "bf16"}
    metrics = fit_and_test(tmp_path, epochs=15, run_opts=run_opts, mixup=0.2)
    assert all(s["f1_macro"] >= 0.9 for s in metrics["test"].values())


def test_a_brain_compiles_its_conformers_and_learns_as_without(
    tmp_path, monkeypatch
):
    """Traced by the compiler, but run by PyTorch: no minutes of g++."""
    seen = []

    def traced(module, mode, fullgraph, dynamic):
        seen.append((mode, fullgraph, dynamic))
        torch.nn.Module.compile(module, backend="aot_eager", dynamic=dynamic)

    monkeypatch.setattr(MaskedConformerEncoder, "compile", traced)
    clips = items(["av", "a", "v", "av"])
    torch._dynamo.reset()
    stats = torch._dynamo.utils.counters["stats"]
    stats.clear()
    wanted, expected = one_step(tmp_path / "eager", clips)
    assert not seen
    options = {"compile": True, "compile_using_dynamic_shape_tracing": True}
    loss, found = one_step(tmp_path / "traced", clips, **options)
    assert len(seen) == 3 and {dynamic for *_, dynamic in seen} == {True}
    assert stats["unique_graphs"] >= 2  # Of two modalities, or of the shared.
    assert loss == pytest.approx(wanted, rel=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5)


def test_a_compiled_network_keeps_its_names(tmp_path):
    brain = make_brain(tmp_path, run_opts={"compile": True})
    before = copy(brain.modules.vavl)
    ready(brain)
    assert list(copy(brain.modules.vavl)) == list(before)


def test_jit_is_refused_in_one_line(tmp_path):
    brain = make_brain(tmp_path, run_opts={"jit": True})
    with pytest.raises(VAVLError, match="--compile"):
        brain.on_fit_start()
