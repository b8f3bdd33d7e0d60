"""VAVLBrain: which update moves what, with rows that lack a modality."""

import csv
import json
from functools import partial

import numpy as np
import pytest
import speechbrain as sb
import torch
from recipe_train import VAVLBrain
from sklearn.metrics import balanced_accuracy_score
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.nnet.schedulers import LinearScheduler
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.epoch_loop import EpochCounter

from vavl_sb.dataio.datasets import EmotionBatch
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.nnet.attribute_scale import AttributeScale
from vavl_sb.nnet.calibration import (
    expected_calibration_error,
    fit_temperature,
    softmax,
)
from vavl_sb.nnet.losses import ccc_loss, classification_loss
from vavl_sb.training.logs import EpochLog
from vavl_sb.training.mixup import Mixup
from vavl_sb.utils.checkpoints import CheckedCheckpointer
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.metrics import ConcordanceStats, EmotionStats
from vavl_sb.utils.seeding import RandomState

LABELS = ["angry", "happy", "sad"]
AUDIO_DIM, VISUAL_DIM = 10, 8


def network(**changes):
    """A small network."""
    torch.manual_seed(0)
    return VAVL(
        **{
            "audio_dim": AUDIO_DIM,
            "visual_dim": VISUAL_DIM,
            "num_outputs": len(LABELS),
            "d_model": 16,
            "d_ffn": 32,
            "nhead": 2,
            "encoder_layers": 1,
            "shared_layers": 1,
            **changes,
        }
    )


def items(has, task="classification", seed=0, signal=0.0):
    """Clips with random features; ``has`` is "av", "a" or "v" for each."""
    random = torch.Generator().manual_seed(seed)
    clips = {}
    for index, which in enumerate(has):
        label = index % len(LABELS)
        clip = {"id": f"clip{index}"}
        for name, letter, dim in (
            ("audio", "a", AUDIO_DIM),
            ("visual", "v", VISUAL_DIM),
        ):
            frames = 4 + int(torch.randint(8, (), generator=random))
            values = torch.randn(frames, dim, generator=random)
            values[:, label] += signal
            clip[name] = values if letter in which else torch.zeros(0, dim)
        if task == "classification":
            clip["label"] = torch.tensor([label])
        else:
            clip["label"] = torch.rand(len(LABELS), generator=random)
        clips[clip["id"]] = clip
    return clips


def make_brain(folder, task="classification", net=None, **changes):
    """A brain as a recipe makes it."""
    net = net or network()
    classes = task == "classification"
    limit, lr = changes.pop("limit", 3), 1e-2
    run_opts = changes.pop("run_opts", {})
    scaling = changes.pop("temperature_scaling", True)
    mixup = changes.pop("mixup", 0.0)
    if mixup:
        number = len(LABELS) if classes else None
        changes["augment"] = Mixup(mixup, number)
    hparams = {
        "task": task,
        "labels": LABELS,
        "lr": lr,
        "lr_audio_encoder": 1e-5,
        "lr_annealing": lambda epoch: (lr, lr),
        "schedule": "sequential",
        "select_by": "loss",
        "scale": AttributeScale(changes.pop("attribute_range", None)),
        "prediction_loss": classification_loss if classes else ccc_loss,
        "reconstruction_weight": 2.0,
        "metric": partial(
            EmotionStats if classes else ConcordanceStats, LABELS
        ),
        "epoch_counter": EpochCounter(limit),
        "max_grad_norm": float("inf"),
        **changes,
    }
    checkpointer = CheckedCheckpointer(
        str(folder / "save"),
        {
            "vavl": net,
            "counter": hparams["epoch_counter"],
            "random_state": RandomState(),
        },
    )
    return VAVLBrain(
        modules={"vavl": net},
        opt_class=partial(torch.optim.Adam, lr=lr, weight_decay=5e-7),
        hparams=hparams,
        run_opts={"device": "cpu", "noprogressbar": True, **run_opts},
        checkpointer=checkpointer,
        output_folder=str(folder),
        train_logger=EpochLog(str(folder / "train_log.txt")),
        temperature_scaling=scaling,
    )


def ready(brain):
    """A brain just before its first batch."""
    brain.on_fit_start()
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    brain.modules.train()
    return brain


def one_update(brain, batch, update):
    """Runs a single one of the three updates."""
    out = brain.compute_forward(batch, sb.Stage.TRAIN, update=update)
    loss = brain.compute_objectives(out, batch, sb.Stage.TRAIN, update=update)
    if loss is None:
        return None
    loss.backward()
    brain.optimizers_step()
    return loss


def moved(net, before):
    """Names of the tensors that differ from a copy of the state."""
    after = net.state_dict()
    return {
        name for name in after if not torch.equal(after[name], before[name])
    }


def copy(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_the_audiovisual_update_runs_the_backbone_in_eval_mode(tmp_path):
    brain = ready(make_brain(tmp_path))
    batch = EmotionBatch(list(items(["av", "a", "av", "v"]).values()))
    first, second = (
        brain.compute_forward(batch, sb.Stage.TRAIN, "audiovisual")
        for _ in range(2)
    )
    for name in ("audio_embedding", "visual_embedding"):
        assert torch.equal(getattr(first, name), getattr(second, name))
        # Of the clips that have both, and of no others.
        used = getattr(first, name).any(dim=-1).tolist()
        assert used == [True, False, True, False]
    # Its own head is in training: with dropout.
    assert not torch.equal(first.audiovisual, second.audiovisual)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_rows_without_a_modality_take_no_part(tmp_path, task):
    kinds = ["av", "a", "v", "av", "a", "v", "av", "av"]
    clips = items(kinds, task)
    brain = ready(make_brain(tmp_path / "1", task))
    out = brain.fit_batch(EmotionBatch(list(clips.values())))
    assert torch.isfinite(out)

    # The audio update on all rows is that on the rows with sound alone.
    states = []
    for kept in (clips, {k: c for k, c in clips.items() if len(c["audio"])}):
        net = network(dropout=0.0, head_dropout=0.0)
        brain = ready(make_brain(tmp_path / f"{len(kept)}", task, net=net))
        one_update(brain, EmotionBatch(list(kept.values())), "audio")
        states.append(copy(net))
    # Adam's first step is lr * sign(gradient): compare up to lr where the
    # gradient itself is numerically zero, and tightly nearly everywhere.
    gaps = torch.cat(
        [(states[0][n] - states[1][n]).abs().flatten() for n in states[0]]
    )
    assert (gaps < 1e-5).float().mean() > 0.99


@pytest.mark.parametrize(
    "kinds, untouched",
    [
        (["a", "a", "a"], ("visual_branch.", "audiovisual_head.")),
        (["v", "v", "v"], ("audio_branch.", "audiovisual_head.")),
        (["a", "v", "a"], ("audiovisual_head.",)),
    ],
)
def test_a_batch_may_lack_a_modality_entirely(tmp_path, kinds, untouched):
    brain = ready(make_brain(tmp_path))
    net = brain.modules.vavl
    brain.fit_batch(EmotionBatch(list(items(["av"] * 3).values())))
    before = copy(net)
    loss = brain.fit_batch(EmotionBatch(list(items(kinds).values())))
    assert torch.isfinite(loss)
    changed = moved(net, before)
    assert changed
    assert not any(name.startswith(untouched) for name in changed)
    assert all(torch.isfinite(v).all() for v in net.state_dict().values())


def skipped(folder):
    """What skipped.json holds."""
    return json.loads((folder / "skipped.json").read_text())


def test_batches_with_nan_are_skipped_and_all_named(tmp_path):
    brain = ready(make_brain(tmp_path))
    net = brain.modules.vavl
    before = copy(net)
    brain.nonfinite_patience = 2
    batches = []
    for number in range(3):
        clips = items(["a", "a"])
        clips["clip1"]["audio"][0, 0] = float("nan")
        for clip in clips.values():
            clip["id"] += f"of{number}"
        batches.append(EmotionBatch(list(clips.values())))
    brain.fit_batch(batches[0])
    brain.fit_batch(batches[1])
    assert not moved(net, before)
    assert skipped(tmp_path)[1] == {
        "epoch": 1,
        "update": "audio",
        "what": "the loss",
        "clips": ["clip0of1", "clip1of1"],
    }
    with pytest.raises(VAVLError) as error:
        brain.fit_batch(batches[2])
    assert "3 updates of epoch 1" in str(error.value)
    for number in range(3):
        assert f"clip0of{number}, clip1of{number}" in str(error.value)


@pytest.mark.parametrize("schedule", ["sequential", "joint"])
def test_a_gradient_with_nan_moves_nothing(tmp_path, schedule):
    brain = ready(make_brain(tmp_path, schedule=schedule))
    batch = EmotionBatch(list(items(["av", "av"]).values()))
    brain.fit_batch(batch)  # Adam has moments.
    net = brain.modules.vavl
    before = copy(net)
    # The loss is finite, and so is all of the network but this derivative.
    name = next(n for n, _ in net.named_parameters() if "head" in n)
    head = net.get_parameter(name)
    hook = head.register_hook(lambda gradient: gradient * float("nan"))
    brain.fit_batch(batch)
    hook.remove()
    assert name not in moved(net, before)
    assert all(torch.isfinite(p).all() for p in net.parameters())
    (entry, *_) = skipped(tmp_path)
    assert entry["what"] == "a gradient" and entry["clips"] == [
        "clip0",
        "clip1",
    ]
    assert all(p.grad is None for p in net.parameters())
    brain.fit_batch(batch)  # It goes on.
    assert name in moved(net, before)


@pytest.mark.parametrize(
    "precision, words",
    [("fp32", "diverged.*clip3$"), ("bf16", "eval_precision bf16 .*clip3$")],
)
def test_a_prediction_that_is_not_finite_is_not_scored(
    tmp_path, precision, words
):
    bad = items(["av"] * 6)
    bad["clip3"]["visual"][0, 0] = float("inf")
    brain = make_brain(tmp_path)
    brain.eval_precision = precision
    counter = brain.hparams.epoch_counter
    with pytest.raises(VAVLError, match=words):
        brain.fit(counter, dataset(items(["av"] * 6)), dataset(bad))


def dataset(clips):
    """A SpeechBrain dataset over in-memory clips."""
    keys = ["audio", "visual", "label"]

    @takes("id")
    @provides(*keys)
    def load(id):
        yield from (clips[id][key] for key in keys)

    entries = {id: {"duration": len(c["audio"])} for id, c in clips.items()}
    return DynamicItemDataset(
        entries, dynamic_items=[load], output_keys=["id", *keys]
    )


def fit_and_test(
    folder,
    task="classification",
    epochs=3,
    clips=None,
    **changes,
):
    clips = clips or items(["av", "a", "v", "av"] * 6, task, signal=2.0)
    counter = EpochCounter(epochs)
    brain = make_brain(folder, task, epoch_counter=counter, **changes)
    brain.fit(
        counter,
        dataset(clips),
        dataset(clips),
        train_loader_kwargs={"batch_size": 8, "shuffle": True},
        valid_loader_kwargs={"batch_size": 8},
    )
    brain.evaluate(
        dataset(clips),
        min_key="criterion",
        test_loader_kwargs={"batch_size": 8},
    )
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.usefixtures("without_pictures")
def test_probabilities_are_calibrated_by_the_validation_clips(tmp_path):
    # Which are those of the test here.
    folder = tmp_path / "scaled"
    metrics = fit_and_test(folder, epochs=4)
    with open(folder / "predictions_test.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for head, scores in metrics["test"].items():
        mine = [row for row in rows if row["modality"] == head]
        shares = np.array(
            [[float(row[f"prob_{c}"]) for c in LABELS] for row in mine]
        )
        targets = np.array([LABELS.index(row["label"]) for row in mine])
        temperature = scores["temperature"]
        logits = np.log(shares) * temperature
        found = fit_temperature(logits, targets)
        assert found == pytest.approx(temperature, rel=1e-3) != 1.0
        for name, value in (("ece", temperature), ("ece_before", 1.0)):
            error = expected_calibration_error(softmax(logits, value), targets)
            assert scores[name] == pytest.approx(error, abs=1e-4)
    # They are the checkpoint's, also where a run that had ended goes on.
    clips = dataset(items(["av", "a", "v", "av"] * 6, signal=2.0))
    make_brain(folder).evaluate(
        clips, min_key="criterion", test_loader_kwargs={"batch_size": 8}
    )
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    folder = tmp_path / "plain"
    metrics = fit_and_test(folder, epochs=1, temperature_scaling=False)
    for scores in metrics["test"].values():
        assert scores["temperature"] == 1.0
        assert scores["ece"] == scores["ece_before"]


@pytest.mark.parametrize("schedule", ["sequential", "joint"])
@pytest.mark.usefixtures("without_pictures")
def test_it_learns_and_reconstruction_falls(tmp_path, schedule):
    metrics = fit_and_test(tmp_path, epochs=12, schedule=schedule)
    assert all(s["f1_macro"] > 0.9 for s in metrics["test"].values())
    curves = json.loads((tmp_path / "learning_curves.json").read_text())
    for name in ("audio_reconstruction_loss", "visual_reconstruction_loss"):
        losses = [entry["train"][name] for entry in curves]
        assert losses[-1] < 0.5 * losses[0]


@pytest.mark.usefixtures("without_pictures")
def test_without_validation_the_last_epoch_is_kept(tmp_path):
    clips = items(["av"] * 6)
    brain = make_brain(tmp_path)
    brain.fit(
        brain.hparams.epoch_counter,
        dataset(clips),
        None,
        train_loader_kwargs={"batch_size": 3},
    )
    last = copy(brain.modules.vavl)
    brain.evaluate(
        dataset(clips),
        min_key="criterion",
        test_loader_kwargs={"batch_size": 3},
    )
    assert not moved(brain.modules.vavl, last)


@pytest.mark.parametrize(
    "option, value",
    [("grad_accumulation_factor", 2), ("remove_vector_weight_decay", True)],
)
def test_options_that_would_have_no_effect_are_refused(tmp_path, option, value):
    with pytest.raises(VAVLError, match=option):
        make_brain(tmp_path, run_opts={option: value})


def stage_of(brain, stage, clips, epoch=1):
    """Runs a stage on a single batch, as ``fit`` does."""
    brain.on_stage_start(stage, epoch)
    batch = EmotionBatch(list(clips.values()))
    run = brain.fit_batch if stage == sb.Stage.TRAIN else None
    loss = run(batch) if run else brain.evaluate_batch(batch, stage)
    brain.modules.eval()
    brain.on_stage_end(stage, loss, epoch)


@pytest.mark.parametrize(
    "train, valid, heads",
    [
        (["av"] * 6, ["av", "a", "v", "av", "av"], ["audiovisual"]),
        (["av"] * 6, ["a", "v", "a", "v"], ["audio", "visual"]),
        (["a", "v"] * 3, ["av"] * 4, ["audio", "visual"]),
        (["a"] * 6, ["av"] * 4, ["audio"]),
    ],
)
def test_the_lowest_audio_visual_loss_is_kept_where_there_is_one(
    tmp_path, train, valid, heads
):
    brain = ready(make_brain(tmp_path))
    brain.has_valid = True
    kept = []
    brain.checkpointer.save_and_keep_only = lambda meta, min_keys: kept.append(
        (meta["criterion"], min_keys)
    )
    stage_of(brain, sb.Stage.TRAIN, items(train))
    clips = items(valid, seed=1)
    stage_of(brain, sb.Stage.VALID, clips)
    losses = []
    for head in heads:
        rows = [
            clip
            for clip in clips.values()
            if all(
                len(clip[m])
                for m in ("audio", "visual")
                if head in (m, "audiovisual")
            )
        ]
        batch = EmotionBatch(rows)
        out = brain.compute_forward(batch, sb.Stage.VALID)
        target = batch.label.data.squeeze(-1)
        loss = brain.hparams.prediction_loss(getattr(out, head), target)
        losses.append(loss.item())
    ((criterion, keys),) = kept
    assert criterion == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert keys == ["criterion"]


@pytest.mark.parametrize("valid", [["av", "a", "av"] * 4, ["a", "v"] * 4])
def test_a_score_chooses_the_checkpoint_where_it_is_named(tmp_path, valid):
    brain = ready(make_brain(tmp_path, select_by="uar"))
    brain.has_valid = True
    kept = []
    brain.checkpointer.save_and_keep_only = lambda meta, min_keys: kept.append(
        meta["criterion"]
    )
    stage_of(brain, sb.Stage.TRAIN, items(["av"] * 6))
    stage_of(brain, sb.Stage.VALID, items(valid, seed=1))
    heads = ["audiovisual"] if "av" in valid else ["audio", "visual"]
    recalls = []
    for head in heads:
        logits, targets = brain.stats[head].stacked()
        guess = logits.argmax(axis=1)
        recalls.append(balanced_accuracy_score(targets, guess))
    assert kept == [pytest.approx(-sum(recalls) / len(recalls))]


@pytest.mark.usefixtures("without_pictures")
def test_learning_rate_falls_by_epoch_and_after_a_resume(tmp_path):
    clips = dataset(items(["av"] * 4))
    annealing = LinearScheduler(0.4, 0.1, 4)
    seen = []

    class Recording(VAVLBrain):
        def on_fit_batch_start(self, batch, should_step):
            super().on_fit_batch_start(batch, should_step)
            seen.append(self.optimizer.param_groups[0]["lr"])

    def run(epochs):
        brain = make_brain(
            tmp_path, lr=0.4, lr_annealing=annealing, limit=epochs
        )
        brain.__class__ = Recording
        brain.fit(
            brain.hparams.epoch_counter,
            clips,
            clips,
            train_loader_kwargs={"batch_size": 4},
            valid_loader_kwargs={"batch_size": 4},
        )

    run(2)
    run(4)
    assert seen == pytest.approx([0.4, 0.3, 0.2, 0.1])
    log = (tmp_path / "train_log.txt").read_text()
    assert "lr: 1.00e-01" in log


@pytest.mark.parametrize("limits", [[1.0, 5.0], [0.0, 1.0]])
def test_attributes_are_scored_in_the_corpus_s_own_scale(tmp_path, limits):
    """The loss is that of either scale; scores and targets are as given."""
    low, high = limits
    brain = make_brain(tmp_path, "regression", attribute_range=limits)
    data = items(["av"] * 6, task="regression")
    for clip in data.values():
        clip["label"] = low + (high - low) * clip["label"]
    batch = EmotionBatch(list(data.values()))
    ready(brain).modules.eval()
    brain.on_stage_start(sb.Stage.TEST)
    out = brain.compute_forward(batch, sb.Stage.TEST)
    loss = brain.compute_objectives(
        out, batch, sb.Stage.TEST, update="audiovisual"
    )
    predictions, targets = brain.stats["audiovisual"].stacked()
    assert targets == pytest.approx(batch.label.data.numpy())
    middle, half = (low + high) / 2, (high - low) / 2
    assert predictions == pytest.approx(
        middle + half * out.audiovisual.detach().double().numpy(), rel=1e-5
    )
    again = ccc_loss(
        torch.from_numpy(predictions), torch.from_numpy(targets).double()
    )
    assert loss.item() == pytest.approx(again.item(), abs=1e-5)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_joint_gradients_are_the_sum_of_the_separate_ones(tmp_path, task):
    """Without dropout, each parameter gets what the three updates give it."""
    clips = items(["av", "a", "v", "av"], task)
    still = dict(dropout=0.0, head_dropout=0.0)
    wanted = {}
    for update in VAVL.updates:
        net = network(**still)
        brain = ready(make_brain(tmp_path / update, task, net))
        brain.optimizers_step = lambda: None
        one_update(brain, EmotionBatch(list(clips.values())), update)
        for name, parameter in net.named_parameters():
            if parameter.grad is not None:
                grad = parameter.grad.clone()
                wanted[name] = wanted.get(name, 0) + grad
    net = network(**still)
    brain = make_brain(tmp_path / "joint", task, net, schedule="joint")
    ready(brain).optimizers_step = lambda: None
    brain.fit_batch(EmotionBatch(list(clips.values())))
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(
            parameter.grad, wanted[name], rtol=1e-4, atol=1e-6
        )
