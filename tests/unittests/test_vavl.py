"""The network: exact under padding, whole or part of its inputs absent."""

import pytest
import torch
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
from speechbrain.nnet.attention import RelPosEncXL

from vavl_sb.lobes.conformer import MaskedConformerEncoder
from vavl_sb.lobes.vavl import VAVL

DIMS = {"audio": 12, "visual": 9}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return VAVL(
        audio_dim=DIMS["audio"],
        visual_dim=DIMS["visual"],
        num_outputs=4,
        d_model=32,
        d_ffn=64,
        nhead=4,
    ).eval()


def clips(modality, lengths, seed=0):
    """Random clips of given lengths."""
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(n, DIMS[modality], generator=random) for n in lengths]


def batch(rows, padding=0, fill=7.0):
    """Rows of different lengths as (B, T, D) and relative lengths."""
    longest = max(len(row) for row in rows) + padding
    data = torch.full((len(rows), longest, rows[0].shape[1]), fill)
    for place, row in zip(data, rows):
        place[: len(row)] = row
    return data, torch.tensor([len(row) / longest for row in rows])


def alone(net, modality, row):
    """Every output of one modality for a single clip."""
    out = net(**{modality: row[None]})
    return {
        name: getattr(out, f"{modality}{name}")[0]
        for name in ("", "_embedding", "_reconstruction", "_target")
    }


@pytest.mark.parametrize("modality", ["audio", "visual"])
@pytest.mark.parametrize("padding", [0, 1, 50])
def test_a_clip_is_the_same_alone_and_in_any_batch(net, modality, padding):
    rows = clips(modality, [40, 3, 17, 1])
    data, lens = batch(rows, padding)
    out = net(**{modality: data, f"{modality}_lens": lens})
    for index, row in enumerate(rows):
        for name, value in alone(net, modality, row).items():
            together = getattr(out, f"{modality}{name}")[index]
            assert torch.allclose(together, value, atol=1e-5), name


def test_both_together_are_the_same_alone_and_in_any_batch(net):
    audio, visual = clips("audio", [30, 9]), clips("visual", [5, 21])
    data, lens = batch(audio, 8)
    pictures, picture_lens = batch(visual, 3)
    out = net(data, lens, pictures, picture_lens)
    for index in range(2):
        single = net(audio=audio[index][None], visual=visual[index][None])
        assert torch.allclose(
            out.audiovisual[index], single.audiovisual[0], atol=1e-5
        )


def test_speechbrains_own_encoder_would_fail_that():
    torch.manual_seed(0)
    encoder = ConformerEncoder(2, d_model=32, d_ffn=64, nhead=4).eval()
    ours = MaskedConformerEncoder(2, d_model=32, d_ffn=64, nhead=4).eval()
    ours.conformer.load_state_dict(encoder.state_dict())  # The same keys.
    positions = RelPosEncXL(32)
    x = torch.randn(1, 20, 32)
    padded = torch.cat([x, torch.zeros(1, 15, 32)], dim=1)
    mask = torch.arange(35)[None] >= 20

    short, _ = encoder(x, pos_embs=positions(x))
    long, _ = encoder(
        padded, src_key_padding_mask=mask, pos_embs=positions(padded)
    )
    leak = (long[:, :20] - short).abs().max()
    assert leak > 1e-2

    assert torch.allclose(ours(x), short, atol=1e-6)  # No padding: as theirs.
    assert torch.allclose(ours(padded, mask)[:, :20], short, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 9])
def test_gradients_are_those_of_speechbrains_own_encoder(frames):
    torch.manual_seed(0)
    shape = dict(d_model=32, d_ffn=64, nhead=4, kernel_size=5)
    theirs = ConformerEncoder(2, **shape).train()  # No dropout by default.
    ours = MaskedConformerEncoder(2, **shape, dropout=0.0).train()
    ours.conformer.load_state_dict(theirs.state_dict())
    x = torch.randn(3, frames, 32)
    upstream = torch.randn(3, frames, 32)
    out, _ = theirs(x, pos_embs=RelPosEncXL(32)(x))
    (out * upstream).sum().backward()
    (ours(x) * upstream).sum().backward()
    found = dict(ours.conformer.named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(
            found[name].grad, parameter.grad, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_the_order_of_frames_matters_and_batch_mates_do_not(net, modality):
    row, other, third = clips(modality, [25, 25, 25])
    base = alone(net, modality, row)[""]
    order = torch.randperm(25, generator=torch.Generator().manual_seed(1))
    shuffled = alone(net, modality, row[order])[""]
    assert (shuffled - base).abs().max() > 1e-3
    for mate in (other, third):
        out = getattr(net(**{modality: torch.stack([row, mate])}), modality)
        assert torch.allclose(out[0], base, atol=1e-5)


def test_lengths_are_rounded_not_truncated(net):
    rows = clips("audio", [53, 100])
    data, _ = batch(rows)
    lens = torch.tensor([53.0, 100.0]) / torch.tensor(100.0)
    assert int(lens[0] * 100) == 52  # What truncation would make of it.
    out = net(audio=data, audio_lens=lens)
    assert torch.allclose(
        out.audio[0], alone(net, "audio", rows[0])[""], atol=1e-5
    )


def test_rows_without_a_modality_are_marked_and_change_nothing(net):
    audio, visual = clips("audio", [10, 12, 8]), clips("visual", [6, 7, 5])
    data, lens = batch(audio)
    pictures, picture_lens = batch(visual)
    lens[1] = 0.0
    picture_lens[2] = 0.0
    data[1] = float("nan")  # What an absent row holds must not matter.
    out = net(data, lens, pictures, picture_lens)
    assert (out.audio[1] == 0).all() and (out.visual[2] == 0).all()
    for value in (out.audio, out.visual, out.audiovisual):
        assert torch.isfinite(value).all()
    assert (out.audiovisual[1:] == 0).all()
    single = net(audio=audio[0][None], visual=visual[0][None])
    assert torch.allclose(out.audiovisual[0], single.audiovisual[0], atol=1e-5)
    assert torch.allclose(
        out.audio[2], alone(net, "audio", audio[2])[""], atol=1e-5
    )


def test_a_batch_may_lack_a_modality_entirely(net):
    data, lens = batch(clips("audio", [10, 12]))
    out = net(audio=data, audio_lens=lens)
    assert out.audio.shape == (2, 4)
    assert out.visual is None and out.audiovisual is None
    empty = net(data, lens, torch.zeros(2, 1, DIMS["visual"]), torch.zeros(2))
    assert empty.visual is None and empty.audiovisual is None
    nothing = net(data, torch.zeros(2))
    assert nothing.audio is None


def test_the_residual_is_there(net):
    x = torch.randn(2, 11, 32)
    mask = torch.zeros(2, 11, dtype=torch.bool)
    changed = VAVL(**net.settings).eval()
    changed.load_state_dict(net.state_dict())
    assert torch.equal(changed.apply_shared(x, mask), net.apply_shared(x, mask))
    with torch.no_grad():
        for parameter in changed.shared.parameters():
            parameter.zero_()
    norm = torch.nn.functional.layer_norm(x, (32,))
    assert torch.allclose(changed.apply_shared(x, mask), norm, atol=1e-6)
    changed.residual = False
    zero = changed.apply_shared(x, mask)
    assert torch.allclose(zero, torch.zeros_like(zero), atol=1e-6)


def test_both_modalities_use_the_same_shared_layers():
    net = VAVL(**{"audio_dim": 4, "visual_dim": 4, "d_model": 16}).eval()
    x = torch.randn(1, 6, 4)
    before = {m: net(**{m: x}) for m in ("audio", "visual")}
    with torch.no_grad():
        for parameter in net.shared.parameters():
            parameter.add_(0.1)
    for modality, out in before.items():
        after = getattr(net(**{modality: x}), modality)
        assert not torch.allclose(after, getattr(out, modality))


def test_the_paper_s_sizes():
    with torch.device("meta"):
        net = VAVL()
        head = [m for m in net.audiovisual_head if hasattr(m, "weight")]
        shapes = [tuple(m.weight.shape) for m in head]
        assert shapes == [(512, 1024), (256, 512), (6, 256)]
        # As released: after the first layer only.
        kinds = [type(layer).__name__ for layer in net.audiovisual_head]
        assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "Linear"]
        assert net.audiovisual_head[2].p == 0.2
        branch = net.visual_branch
        assert branch["projection"][0].bias is None
        assert [tuple(m.weight.shape) for m in branch["projection"]] == [
            (50, 1408),
            (512, 50),
        ]
        head = [
            m for m in branch["reconstruction_head"] if hasattr(m, "weight")
        ]
        assert [tuple(m.weight.shape) for m in head] == [
            (512, 512),
            (256, 512),
            (1408, 256),
        ]
    for encoder, layers in (
        (branch["encoder"], 3),
        (net.audio_branch["encoder"], 3),
        (net.shared, 2),
    ):
        assert len(encoder.conformer.layers) == layers
        layer = encoder.conformer.layers[0]
        assert layer.mha_layer.num_heads == 8
        assert layer.convolution_module.conv.kernel_size == (31,)
        assert layer.ffn_module1[1].ffn[0].out_features == 2048
        assert layer.drop.p == 0.1


def test_frozen_backbone_is_deterministic_and_has_no_gradient(net):
    training = VAVL(**net.settings)
    training.load_state_dict(net.state_dict())
    training.train()
    audio = torch.randn(2, 9, DIMS["audio"])
    visual = torch.randn(2, 5, DIMS["visual"])
    first = training(audio, None, visual, None, freeze_backbone=True)
    second = training(audio, None, visual, None, freeze_backbone=True)
    assert torch.equal(first.audio_embedding, second.audio_embedding)
    assert not first.audio_embedding.requires_grad
    assert first.audiovisual.requires_grad
    assert not torch.equal(first.audiovisual, second.audiovisual)  # Dropout.
    assert all(module.training for module in training.modules())
    eval_out = net(audio, None, visual, None)
    assert torch.allclose(
        first.audio_embedding, eval_out.audio_embedding, atol=1e-6
    )
