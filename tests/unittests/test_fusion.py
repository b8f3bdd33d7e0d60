"""The networks that VAVL is compared with: one interface, exact, trained."""

import json

import numpy as np
import pytest
import speechbrain as sb
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from small_models import export_small
from test_brain import (
    AUDIO_DIM,
    LABELS,
    VISUAL_DIM,
    copy,
    dataset,
    items,
    make_brain,
    moved,
    one_update,
    ready,
)

from vavl_sb.dataio.datasets import EmotionBatch
from vavl_sb.inference import EmotionRecognizer
from vavl_sb.lobes.fusion import NETWORKS, make_network
from vavl_sb.lobes.vavl import HEADS, VAVL
from vavl_sb.nnet.attribute_scale import AttributeScale
from vavl_sb.nnet.regression import (
    SCALES,
    SHRINKAGES,
    STRENGTHS,
    fit_discriminant,
    fit_linear,
)
from vavl_sb.training.init_from_pretrained import fit_to_features
from vavl_sb.training.run_metadata import trained_heads
from vavl_sb.utils.errors import EncoderError, VAVLError

OTHERS = [name for name in NETWORKS if name != "vavl"]
DIMS = {"audio": AUDIO_DIM, "visual": VISUAL_DIM}
SIZES = dict(
    audio_dim=AUDIO_DIM,
    visual_dim=VISUAL_DIM,
    num_outputs=len(LABELS),
    d_model=16,
    nhead=2,
    encoder_layers=1,
    shared_layers=1,
)


def make(name, **changes):
    """A small network; a linear one with weights, as if fitted."""
    torch.manual_seed(0)
    net = make_network(name, **{**SIZES, **changes})
    if name == "linear":
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.normal_()
    return net


def clips(modality, lengths):
    """Random clips of given lengths."""
    random = torch.Generator().manual_seed(len(modality))
    return [torch.randn(n, DIMS[modality], generator=random) for n in lengths]


def padded(rows, padding, absent=()):
    """Rows as (B, T, D), with NaN where one is absent, and their lengths."""
    longest = max(map(len, rows)) + padding
    data = torch.full((len(rows), longest, rows[0].shape[1]), 7.0)
    lens = torch.zeros(len(rows))
    for number, row in enumerate(rows):
        data[number, : len(row)] = row
        lens[number] = len(row) / longest
        if number in absent:
            data[number], lens[number] = float("nan"), 0.0
    return data, lens


@pytest.mark.parametrize("padding", [0, 30])
@pytest.mark.parametrize("name", OTHERS)
def test_a_clip_is_the_same_alone_and_in_any_batch(name, padding):
    net = make(name).eval()
    audio = clips("audio", [20, 3, 9, 1])
    visual = clips("visual", [2, 11, 7, 5])
    without_sound, without_face = {1}, {2}
    inputs = (
        *padded(audio, padding, without_sound),
        *padded(visual, 2 * padding, without_face),
    )
    with torch.no_grad():
        out = net(*inputs)
        for row in range(4):
            has = {
                "audio": None if row in without_sound else audio[row][None],
                "visual": None if row in without_face else visual[row][None],
            }
            alone = net(**has)
            for head in ("audio", "visual", "audiovisual"):
                wanted = getattr(alone, head)
                found = getattr(out, head)[row]
                if wanted is None:
                    assert (found == 0).all()
                else:
                    assert torch.allclose(found, wanted[0], atol=1e-5), head
                    assert wanted.abs().sum() > 1e-3
    nothing = net(None, None, inputs[2], torch.zeros(4))
    assert nothing.audio is nothing.visual is nothing.audiovisual is None


@pytest.mark.parametrize("modality", ["audio", "visual"])
@pytest.mark.parametrize("name", OTHERS)
def test_the_order_of_frames_matters_but_to_statistics(name, modality):
    net = make(name).eval()
    (row,) = clips(modality, [25])
    order = torch.randperm(25, generator=torch.Generator().manual_seed(1))
    outputs = [
        getattr(net(**{modality: x[None]}), modality) for x in (row, row[order])
    ]
    gap = (outputs[0] - outputs[1]).abs().max()
    assert gap < 1e-5 if name == "linear" else gap > 1e-3


# What each paper draws, at the width d with two feature sizes and n outputs.
def transformer(d):
    """Weights of a layer: attention, feed-forward of 4 d, two norms."""
    return 4 * d * d + 4 * d + 8 * d * d + 5 * d + 4 * d


def paper_sizes(d, a, v, n):
    """Name to the number of weights in the paper's layout."""
    projections = (a + 1) * d + (v + 1) * d
    attention = 2 * (d * d + d // 2 * d)
    audio = 3 * (a * d // 2 + d // 2 * d + d * 2 * d + 2 * d * d)
    visual = 3 * (v * d // 2 + d // 2 * d // 2 + d // 2 * d + d * d)
    residual = 2 * (2 * d * (2 * d + 1)) + (2 * d + 1) * n
    return {
        # 3 layers of each modality's own, 3 of both, a linear classifier.
        "uavm": projections + 9 * transformer(d) + d * n,
        # 4 cross-modal layers and 3 of self-attention, for each modality.
        "mult": projections + 14 * transformer(d) + residual,
        # As much with 4 and 4, and an auxiliary transformer of 4 for each,
        # with layers d, d / 2, d that both share.
        "auxformer": projections
        + 24 * transformer(d)
        + residual
        + (2 * d * d + d * n),
        # Four convolutions of three frames for each; query and key for each.
        "ia": audio + visual + attention + 2 * d * n,
        # Mean and deviation of each feature.
        "linear": (2 * a + 1) * n + (2 * v + 1) * n,
    }


@pytest.mark.parametrize("name", ["uavm", "mult", "auxformer", "ia", "linear"])
def test_the_number_of_weights_is_that_of_the_paper_s_layout(name):
    with torch.device("meta"):
        net = make_network(
            name, audio_dim=1024, visual_dim=1408, num_outputs=6, d_model=512
        )
    found = sum(p.numel() for p in net.parameters())
    wanted = paper_sizes(512, 1024, 1408, 6)[name]
    assert found == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("name", ["late", "uavm", "linear"])
def test_both_together_are_the_geometric_mean_of_the_two(name):
    net = make(name).eval()
    out = net(
        torch.randn(3, 7, AUDIO_DIM), visual=torch.randn(3, 5, VISUAL_DIM)
    )
    product = (out.audio.softmax(-1) * out.visual.softmax(-1)).sqrt()
    expected = product / product.sum(dim=-1, keepdim=True)
    assert torch.allclose(out.audiovisual.softmax(-1), expected, atol=1e-6)
    mean = (out.audio + out.visual) / 2  # What attributes get.
    assert torch.allclose(out.audiovisual, mean)


@pytest.mark.parametrize("name", ["late", "uavm", "linear"])
def test_nothing_learns_from_the_mean_of_two_heads(name):
    net = make(name)
    clip = (torch.randn(3, 7, AUDIO_DIM), None, torch.randn(3, 5, VISUAL_DIM))
    assert not net(*clip, detach_pair=True).audiovisual.requires_grad
    # So it is there without a clip that has both.
    features = {"a": {"audio": "x", "visual": None}}
    features["v"] = {"audio": None, "visual": "x"}
    how = {"from_pairs": net.learns_from_pairs}
    assert trained_heads(features, ["a"], **how) == ["audio"]
    assert trained_heads(features, ["a", "v"], **how) == list(HEADS)
    for other in ("vavl", "mult"):
        how = {"from_pairs": make(other).learns_from_pairs}
        found = trained_heads(features, ["a", "v"], **how)
        assert found == ["audio", "visual"]


@pytest.mark.parametrize("name", ["mult", "ia"])
def test_zeros_stand_for_a_missing_modality(name):
    net = make(name).eval()
    audio = torch.randn(2, 7, AUDIO_DIM)
    nothing = torch.zeros(2, 1, VISUAL_DIM)
    out = net(audio, visual=nothing)
    assert torch.allclose(out.audio, out.audiovisual, atol=1e-6)
    assert not torch.allclose(out.visual, out.audiovisual, atol=1e-3)


def test_auxformer_averages_its_three_networks():
    net = make("auxformer").eval()
    clip = {
        "audio": torch.randn(2, 7, AUDIO_DIM),
        "visual": torch.randn(2, 5, VISUAL_DIM),
    }
    out = net(**clip)
    with torch.no_grad():
        net.prediction_head.out.bias += 3.0  # Of the main network alone.
    passes = []
    net.audio_branch["auxiliary"].register_forward_hook(
        lambda *_: passes.append(1)
    )
    again = net(audio=clip["audio"])
    assert len(passes) == 3 and torch.equal(out.audio, again.audio)
    again = net(**clip)
    assert torch.allclose(out.audiovisual + 1.0, again.audiovisual, atol=1e-5)


# The parts of a network that each update moves.
VISUAL, AUDIO = (
    tuple(f"{name}_branch.{part}" for part in ("proj", "enc", "pred", "recon"))
    for name in ("visual", "audio")
)
MOVES = {
    **{
        (name, update): parts
        for name in ("vavl", "vavl_linear")
        for update, parts in (
            ("visual", (*VISUAL, "shared")),
            ("audio", (*AUDIO, "shared")),
            ("audiovisual", ("audiovisual_head.",)),
        )
    },
    ("late", "visual"): ("visual_branch.",),
    ("late", "audio"): ("audio_branch.",),
    ("uavm", "visual"): ("visual_branch.", "shared.", "prediction_head."),
    ("uavm", "audio"): ("audio_branch.", "shared.", "prediction_head."),
    ("mult", "joint"): ("",),
    ("auxformer", "joint"): ("",),
    ("ia", "joint"): ("",),
}


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("name, update", MOVES)
def test_each_update_moves_exactly_its_parameters(tmp_path, name, update, task):
    net = make(name)
    assert set(net.updates) == {u for n, u in MOVES if n == name}
    brain = ready(make_brain(tmp_path, task, net))
    batch = EmotionBatch(list(items(["av", "a", "v"] * 3, task).values()))
    # With every update before, so that Adam's moments are not zero: a momentum
    # must not move what this update leaves alone.
    brain.fit_batch(batch)
    before = copy(net)
    assert one_update(brain, batch, update) is not None
    expected = {
        parameter
        for parameter, _ in net.named_parameters()
        if parameter.startswith(MOVES[name, update])
    }
    assert moved(net, before) == expected


@pytest.mark.parametrize(
    "name, schedule",
    [
        *((name, "sequential") for name in ("mult", "auxformer", "ia", "uavm")),
        ("late", "joint"),
    ],
)
def test_it_learns_a_handful_of_clips_by_heart(tmp_path, name, schedule):
    net = make(name)
    brain = ready(make_brain(tmp_path, net=net, schedule=schedule))
    brain.optimizer.param_groups[0]["lr"] = 3e-3
    batch = EmotionBatch(list(items(["av", "a", "v", "av"] * 3).values()))
    for _ in range(60):
        brain.fit_batch(batch)
    net.eval()
    brain.on_stage_start(sb.Stage.TEST)
    with torch.no_grad():
        out = brain.compute_forward(batch, sb.Stage.TEST)
        brain.compute_objectives(out, batch, sb.Stage.TEST)
    for head, stats in brain.stats.items():
        assert len(stats) == {"audiovisual": 6}.get(head, 9)
        assert stats.summarize("uar") == 1.0


def with_speakers(known):
    """A dataset whose clips have one of three speakers each."""
    made = dataset(known)
    for number, entry in enumerate(made.data.values()):
        entry["spk_id"] = f"speaker{number % 3}"
    return made


def numpy_statistics(known, modality):
    """Mean and deviation over time, of the clips that have the modality."""
    rows = [c for c in known.values() if len(c[modality])]
    frames = [c[modality].double().numpy() for c in rows]
    x = np.stack([np.r_[f.mean(axis=0), f.std(axis=0)] for f in frames])
    return (x - x.mean(axis=0)) / x.std(axis=0), rows


@pytest.mark.parametrize("modality", ["audio", "visual"])
@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_linear_fusion_is_scikit_learn_s_logistic_regression(
    modality, strength
):
    known = items(["av", "a", "v", "av", "a"] * 8, signal=0.3)
    for clip in list(known.values())[::4]:
        clip["label"] = torch.tensor([1])  # Classes of unequal size.
    net = make_network("linear", **SIZES, strength=strength)
    fit_to_features(net, with_speakers(known), AttributeScale())
    x, rows = numpy_statistics(known, modality)
    model = LogisticRegression(
        C=strength, class_weight="balanced", tol=1e-10, max_iter=10000
    ).fit(x, [clip["label"].item() for clip in rows])
    for row, clip in enumerate(rows):
        out = getattr(net(**{modality: clip[modality][None]}), modality)
        wanted = model.predict_proba(x[row : row + 1])
        np.testing.assert_allclose(out.softmax(-1), wanted, atol=1e-5)


@pytest.mark.parametrize("frames", [None, 1])
def test_linear_fusion_is_scikit_learn_s_ridge_regression(frames):
    known = items(["av", "a", "av"] * 8, task="regression")
    for clip in known.values():
        clip["audio"] = clip["audio"][:frames]
    net = make_network("linear", **SIZES, strength=0.1)
    fit_to_features(net, with_speakers(known), AttributeScale([0.0, 2.0]))
    with np.errstate(invalid="ignore"):
        x, rows = numpy_statistics(known, "audio")
    if frames == 1:
        x = x[:, :AUDIO_DIM]  # One frame does not deviate.
        assert (
            (net.audio_branch["prediction_head"].weight[:, AUDIO_DIM:]).any()
            == 0
        )
    targets = np.stack([clip["label"].numpy() - 1.0 for clip in rows])
    model = Ridge(alpha=10.0).fit(x, targets)
    for row, clip in enumerate(rows):
        out = net(audio=clip["audio"][None]).audio
        np.testing.assert_allclose(
            out, model.predict(x[row : row + 1]), atol=1e-5
        )


@pytest.mark.parametrize("size", [(40, 150), (150, 40)])
def test_more_features_than_clips_or_fewer_have_the_same_optimum(size):
    random = np.random.default_rng(0)
    x = random.standard_normal(size)
    values = x[:, :3] + random.standard_normal((size[0], 3))
    classes = values.argmax(axis=1)
    logistic = LogisticRegression(
        C=0.1, class_weight="balanced", tol=1e-10, max_iter=10000
    ).fit(x, classes)
    ridge = Ridge(alpha=10.0).fit(x, values)
    for model, targets in ((logistic, classes), (ridge, values)):
        weight, bias, _ = fit_linear(
            torch.from_numpy(x), torch.from_numpy(targets), 3, 0.1
        )
        np.testing.assert_allclose(weight, model.coef_, atol=1e-5)
        np.testing.assert_allclose(bias, model.intercept_, atol=1e-5)


def test_the_strength_is_the_best_for_speakers_that_were_not_seen():
    random = np.random.default_rng(0)
    x = random.standard_normal((90, 200))
    y = (x[:, :3] + random.standard_normal((90, 3))).argmax(axis=1)
    speakers = [f"s{number % 6}" for number in range(90)]
    folds = [int(name[1:]) % 4 for name in speakers]

    def score(model, features, labels):
        weights = 1.0 / np.bincount(labels)[labels]
        said = model.predict_proba(features)
        return -log_loss(labels, said, sample_weight=weights)

    search = GridSearchCV(
        LogisticRegression(class_weight="balanced", max_iter=5000),
        {"C": STRENGTHS},
        scoring=score,
        cv=PredefinedSplit(folds),
    ).fit(x, y)
    *_, found = fit_linear(
        torch.from_numpy(x), torch.from_numpy(y), 3, groups=speakers
    )
    assert STRENGTHS[0] < found < STRENGTHS[-1]
    assert found == search.best_params_["C"]


def with_groups(count=120, dim=5):
    """Noisy features of three classes, balanced, and eight speakers."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(count) % 3
    x = torch.randn(count, dim, generator=generator)
    x[:, :3] += torch.nn.functional.one_hot(targets, 3)
    x = x * torch.arange(1.0, dim + 1)
    return x, targets, [f"s{i // 15}" for i in range(count)]


def test_discriminants_are_scikit_learn_s():
    x, targets, groups = with_groups()
    weight, bias, shrinkage, scale = fit_discriminant(x, targets, 3, groups)
    assert shrinkage in SHRINKAGES and scale in SCALES
    model = LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage=shrinkage, priors=[1 / 3] * 3
    ).fit(x.double().numpy(), targets.numpy())
    ours = ((x.double() @ weight.T + bias) / scale).numpy()
    theirs = model.decision_function(x.double().numpy())
    # Up to what all classes share.
    theirs = theirs - theirs.mean(axis=1, keepdims=True)
    assert np.allclose(ours - ours.mean(axis=1, keepdims=True), theirs)


def test_more_features_than_clips_change_no_discriminant_by_their_order():
    x, targets, groups = with_groups(dim=300)
    weight, bias, *chosen = fit_discriminant(x, targets, 3, groups)
    turned = torch.linalg.qr(torch.randn(300, 300, dtype=torch.float64)).Q
    other, same, *again = fit_discriminant(
        x.double() @ turned, targets, 3, groups
    )
    assert chosen == again
    assert torch.allclose(other @ turned.T, weight, atol=1e-8)
    assert torch.allclose(same, bias)


@pytest.mark.parametrize("fuse", ["product", "head", "both"])
def test_vavl_linear_is_the_mean_of_its_two_models(fuse):
    net = make("vavl_linear", fuse=fuse)
    with torch.no_grad():
        for parameter in net.linear.parameters():
            parameter.normal_()
    inputs = (
        *(torch.randn(3, 7, AUDIO_DIM), torch.ones(3)),
        *(torch.randn(3, 5, VISUAL_DIM), torch.tensor([1.0, 0.6, 0.0])),
    )
    alone = make("vavl")
    alone.load_state_dict(net.state_dict(), strict=False)
    alone, linear = alone.eval()(*inputs), net.linear(*inputs)
    out = net.eval()(*inputs)
    for head in DIMS:
        mean = (getattr(alone, head) + getattr(linear, head)) / 2
        assert torch.allclose(getattr(out, head), mean)
    product = (out.audio + out.visual)[:2] / 2
    expected = {
        "product": product,
        "head": alone.audiovisual[:2],
        "both": (product + alone.audiovisual[:2]) / 2,
    }
    assert torch.allclose(out.audiovisual[:2], expected[fuse])
    assert not out.audiovisual[2].any()


def test_vavl_linear_learns_as_vavl_and_is_fitted_as_linear(tmp_path):
    net, alone = make("vavl_linear"), make("vavl")
    fused, plain = (
        ready(make_brain(tmp_path / name, net=one))
        for name, one in (("fused", net), ("plain", alone))
    )
    train = with_speakers(items(["av", "a", "v", "av"] * 3))
    fit_to_features(net, train, AttributeScale())
    fitted = copy(net.linear)
    batch = EmotionBatch(list(train))
    for brain in (fused, plain):
        torch.manual_seed(1)
        brain.fit_batch(batch)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, net.state_dict()[name])
    assert not moved(net.linear, fitted)
    reference = make("linear", discriminant=True)
    fit_to_features(reference, train, AttributeScale())
    for name, value in reference.state_dict().items():
        assert torch.equal(value, net.linear.state_dict()[name])


def test_an_hparams_file_serves_all_networks_and_no_typing_error():
    shared = {**SIZES, "residual": True, "projection_dim": 20}
    for name in NETWORKS:
        settings = make_network(name, **shared).settings
        assert settings["num_outputs"] == len(LABELS)
        assert settings["audio_dim"] == AUDIO_DIM
    for wrong, words in (
        (
            {"fusion": "early"},
            "fusion: early is none of vavl, vavl_linear, late",
        ),
        ({"fusion": "torch.nn.Linear"}, "it is not an AudioVisualNetwork"),
        ({"projection_dims": 20}, "no network takes projection_dims"),
    ):
        with pytest.raises(VAVLError, match=words):
            make_network(**{"fusion": "late", **shared, **wrong})


EXPORTED = {"audio_dim": 80, "visual_dim": 512}


def outputs(net):
    """The heads' outputs for two clips."""
    random = torch.Generator().manual_seed(5)
    inputs = {
        "audio": torch.randn(2, 9, 80, generator=random),
        "visual": torch.randn(2, 4, 512, generator=random),
    }
    with torch.no_grad():
        out = net(**inputs)
    return torch.stack([out.audio, out.visual, out.audiovisual])


@pytest.mark.parametrize("name", NETWORKS)
def test_an_exported_network_needs_no_trust(tmp_path, name):
    net = make(name, **EXPORTED).eval()
    export_small(tmp_path / "model", LABELS, net=net)
    for trust in (False, True):
        model = EmotionRecognizer.from_hparams(tmp_path / "model", trust=trust)
        assert type(model.mods.vavl) is type(net)
        assert torch.allclose(outputs(model.mods.vavl), outputs(net), atol=1e-6)


class Louder(VAVL):
    """The parameters of VAVL, but another forward."""

    def __init__(self, gain: float = 2.0, **settings):
        super().__init__(**settings)
        self.gain = gain

    def forward(self, *inputs, **options):
        out = super().forward(*inputs, **options)
        out.audiovisual = out.audio * self.gain - out.visual
        return out


class Forgetful(Louder):
    """What it has learned is not in its weights."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.gain = float(torch.rand(()))


def test_a_network_of_one_s_own_is_exported_as_what_it_is(tmp_path):
    torch.manual_seed(0)
    net = Louder(gain=3.0, **{**SIZES, **EXPORTED}).eval()
    export_small(tmp_path / "model", LABELS, net=net)
    model = json.loads((tmp_path / "model" / "model.json").read_text())
    assert model["network"]["class"] == "test_fusion.Louder"
    with pytest.raises(EncoderError, match="test_fusion.Louder.*trust"):
        EmotionRecognizer.from_hparams(tmp_path / "model")
    again = EmotionRecognizer.from_hparams(tmp_path / "model", trust=True)
    assert torch.allclose(outputs(again.mods.vavl), outputs(net), atol=1e-6)
    plain = VAVL(**{**SIZES, **EXPORTED}).eval()
    plain.load_state_dict(net.state_dict())
    assert not torch.allclose(outputs(plain), outputs(net), atol=1e-2)


@pytest.mark.parametrize(
    "make_net, words",
    [
        (Forgetful, "its outputs differ"),
        (lambda **s: VAVL(**s, residual=[torch]), "not JSON serializable"),
    ],
    ids=["learned elsewhere", "argument"],
)
def test_a_network_that_does_not_come_back_is_not_exported(
    tmp_path, make_net, words
):
    net = make_net(**{**SIZES, **EXPORTED})
    with pytest.raises(EncoderError, match=words):
        export_small(tmp_path / "model", LABELS, net=net)
    assert not (tmp_path / "model").exists()
