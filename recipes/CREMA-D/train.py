#!/usr/bin/env python3
"""Recipe for training VAVL, one network that recognises emotion from speech,
from a face, or from both (https://arxiv.org/abs/2305.07216).

> python train.py hparams/vavl_cls.yaml --data_folder /path/to/CREMA-D
> python train.py hparams/vavl_reg.yaml --data_folder /path/to/CREMA-D

All recipes share this file: the hparams file sets the corpus, labels, loss and
metric. The first run extracts the features of every clip and caches them; later
runs read the cache. A run writes its scores (metrics.json), predictions, plots
and the exported model (inference/) to the output folder. The same command
resumes a run that was stopped.

Read main() at the end first, then VAVLBrain. The network is
vavl_sb/lobes/vavl.py, or another one with --fusion. EmotionBrain adds exact
resuming and distributed training, and skips updates whose loss or gradient is
not finite.

Authors
 * The vavl_sb authors 2026
"""

import os
import sys

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.distributed import run_on_main

from vavl_sb.dataio.datasets import emotion_datasets, read_splits
from vavl_sb.features.cache import read_index
from vavl_sb.features.extraction import extract_features
from vavl_sb.lobes.vavl import HEADS, MODALITIES
from vavl_sb.nnet.losses import reconstruction_loss
from vavl_sb.training import report
from vavl_sb.training.arguments import parse_arguments
from vavl_sb.training.brain import EmotionBrain
from vavl_sb.training.distributed import (
    gather_rows,
    join_processes,
    select_rows,
)
from vavl_sb.training.export import export_model
from vavl_sb.training.init_from_pretrained import (
    fit_to_features,
    init_from_pretrained,
    set_input_statistics,
    train_speakers,
)
from vavl_sb.training.run_fingerprint import claim_folder, read_settings
from vavl_sb.training.run_metadata import run_record, trained_heads
from vavl_sb.training.speakers import SpeakerSamples
from vavl_sb.utils.corpora import corpus_name
from vavl_sb.utils.errors import VAVLError, exit_on_error
from vavl_sb.utils.lock import hold_folder
from vavl_sb.utils.logger import get_logger

# In the other recipes this file is a symbolic link. Python adds the folder of
# its target to sys.path; the prepare script is in the folder of the link.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

logger = get_logger(__name__)

# Settings that are listed in the exported model's card
RECORDED = [
    "fusion",
    "seed",
    "partition",
    "also_train",
    "speaker_normalization",
    "withhold_audio",
    "withhold_visual",
    "pretrained_from",
    "mixup",
    "feature_noise",
    "audio_features",
    "visual_features",
]


class VAVLBrain(EmotionBrain):
    """The three updates of VAVL, their losses, scores and checkpoints.

    Other networks (--fusion) list their updates in their ``updates`` attribute.
    """

    def init_optimizers(self):
        """Creates one Adam optimizer for all updates.

        Adam skips parameters whose gradient is None, so each update changes
        only the parameters it trains. The visual and audio updates share the
        moment estimates of the shared layers.
        """
        groups = [{"params": list(self.modules.vavl.parameters())}]
        if "audio_encoder" in self.modules:
            encoder = self.modules["audio_encoder"]
            groups.append(
                {"params": [p for p in encoder.parameters() if p.requires_grad]}
            )
        self.optimizer = self.opt_class(groups)
        self.optimizers_dict = {"optimizer": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def compute_forward(self, batch, stage, update="joint"):
        """Runs the network on the modalities of an update.

        The audio-visual update freezes the layers below the audio-visual head:
        they run in eval mode and without gradients. In the joint update, the
        loss of this head does not reach them either.

        Arguments
        ---------
        batch : PaddedBatch
            ``audio``: features (B, Ta, Da), or samples (B, n) if the speech
            encoder is trained. ``visual``: features (B, Tv, Dv).
        stage : sb.Stage
            TRAIN, VALID or TEST.
        update : str
            "visual", "audio", "audiovisual", or "joint" for all three heads.

        Returns
        -------
        VAVLOutput
            ``audio``, ``visual``, ``audiovisual``: (B, num_outputs) or None.
        """
        batch = batch.to(self.device, non_blocking=True)
        inputs = {}
        for modality in MODALITIES:
            if update in MODALITIES and update != modality:
                continue
            frames, lens = batch[modality]
            if update == "audiovisual":
                # Only clips with both modalities train this head.
                lens = lens * self.present(batch, update)
            if modality == "audio":
                # Encodes samples if the speech encoder is trained; cached
                # features are returned unchanged.
                frames, lens = self.encode_speech(
                    frames, lens, learn=update != "audiovisual"
                )
            inputs[modality], inputs[f"{modality}_lens"] = frames, lens
        return self.modules.vavl(
            **inputs,
            freeze_backbone=update == "audiovisual",
            detach_pair=True,
        )

    def present(self, batch, head):
        """Returns a mask (B,) of the clips with the modalities of a head."""
        required = MODALITIES if head == "audiovisual" else (head,)
        present = [batch[modality].lengths > 0 for modality in required]
        return torch.stack(present).all(dim=0)

    def compute_objectives(self, out, batch, stage, update="joint"):
        """Returns the loss of an update, a scalar ("joint": the sum over all
        heads), or None if no clip has the required modalities."""
        heads = HEADS if update == "joint" else (update,)
        losses = [self.head_loss(out, batch, head, stage) for head in heads]
        losses = [loss for loss in losses if loss is not None]
        return torch.stack(losses).sum() if losses else None

    def head_loss(self, out, batch, head, stage):
        """Returns the loss of one head over the clips that have its modalities,
        a scalar, or None if there are none. The audio and visual heads add the
        weighted reconstruction loss, if the network has one."""
        net, rows = self.modules.vavl, self.present(batch, head)
        targets = batch.label.data
        if targets.is_floating_point():
            # Attributes, or class probabilities after mixup
            targets = self.hparams.scale.to_network(targets)
        else:
            targets = targets.squeeze(-1)
        predictions = select_rows(getattr(out, head), rows, net.num_outputs)
        parts = [predictions, targets[rows]]
        if net.reconstructs and head != "audiovisual":
            width = net.settings[f"{head}_dim"]
            parts += [
                select_rows(getattr(out, f"{head}_{name}"), rows, width)
                for name in ("reconstruction", "target")
            ]
        if stage == sb.Stage.TRAIN:
            # The loss is computed over the batch of all processes
            parts = gather_rows(parts)
        else:
            # The metric stores predictions in the corpus's own scale
            scaled = self.hparams.scale.to_corpus(predictions.float())
            self.collect(head, batch, rows, scaled)
        predictions, targets, *reconstruction = parts
        if len(predictions) == 0:
            return None
        loss = self.hparams.prediction_loss(predictions, targets)
        self.meters.add(f"{head}_prediction", loss)
        if reconstruction:
            reconstructed = reconstruction_loss(*reconstruction)
            self.meters.add(f"{head}_reconstruction", reconstructed)
            loss = loss + self.hparams.reconstruction_weight * reconstructed
        return loss

    def fit_batch(self, batch):
        """Takes the visual, the audio and the audio-visual update on a batch.

        The joint schedule runs the network once and takes one step with the sum
        of the three losses. Each loss trains the same parameters as in the
        paper's schedule, but the shared layers take one step instead of two,
        and the audio-visual head is trained on representations with dropout.
        """
        batch = batch.to(self.device, non_blocking=True)
        self.on_fit_batch_start(batch, True)
        batch = self.normalize_speakers(batch)
        if hasattr(self.hparams, "augment"):
            batch = self.hparams.augment(batch)
        total, updates = torch.zeros(()), self.modules.vavl.updates
        joint = self.hparams.schedule == "joint" and updates
        for update in ("joint",) if joint else updates:
            with self.training_ctx:
                out = self.compute_forward(batch, sb.Stage.TRAIN, update)
                loss = self.compute_objectives(
                    out, batch, sb.Stage.TRAIN, update
                )
            total = total + self.take_step(loss, batch, update)
        self.on_fit_batch_end(batch, None, total, True)
        return total

    def on_stage_start(self, stage, epoch=None):
        """Resets the metrics and sets the learning rates of the epoch."""
        super().on_stage_start(stage, epoch)
        self.stats = {head: self.hparams.metric() for head in HEADS}
        if stage == sb.Stage.TRAIN:
            # A function of the epoch, so that resumed runs have the same rates
            lr, _ = self.hparams.lr_annealing(epoch)
            initial = (self.hparams.lr, self.hparams.lr_audio_encoder)
            for group, start in zip(self.optimizer.param_groups, initial):
                group["lr"] = start * lr / self.hparams.lr

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs and checkpoints an epoch, or writes the test results."""
        losses = self.stage_losses(stage, stage_loss)
        if stage == sb.Stage.TRAIN:
            self.train_losses = losses
            if not self.has_valid:
                # Without validation clips, keep the last epoch
                self.end_epoch(epoch, losses, {}, criterion=-float(epoch))
        elif stage == sb.Stage.VALID:
            for head, summary in report.scores(self.stats).items():
                losses[f"{head}_{summary['score_name']}"] = summary["score"]
            self.end_epoch(
                epoch, self.train_losses, losses, criterion=self.criterion()
            )
        else:
            self.write_results(self.hparams.task, self.hparams.labels)

    def criterion(self):
        """Returns the number that the best checkpoint minimizes: the prediction
        loss of the audio-visual head over all validation clips at once, or its
        negative score (select_by). If that head is not trained or has no
        validation clips, the mean over the other heads."""
        criteria = {}
        for head, stats in self.stats.items():
            if f"{head}_prediction_loss" not in self.train_losses:
                continue
            if len(stats) and self.hparams.select_by == "loss":
                criteria[head] = self.hparams.prediction_loss(
                    torch.cat(stats.predictions), torch.cat(stats.targets)
                ).item()
            elif len(stats):
                criteria[head] = -stats.summarize(self.hparams.select_by)
        mean = sum(criteria.values()) / max(len(criteria), 1)
        return criteria.get("audiovisual", mean)


def dataio_prep(hparams, splits, device):
    """Extracts the features that are not cached, and creates a dataset for each
    split. An item contains the features of both modalities (zero frames for a
    missing one) and the class index or the attributes."""
    raw_audio = not hparams["audio_encoder"].freeze
    extract_features(
        manifests=list(splits.values()),
        feature_extractor=hparams["feature_extractor"].to(device),
        folder=hparams["feature_folder"],
        index=hparams["feature_index"],
        report=hparams["feature_report"],
        raw_audio=raw_audio,
    )
    return emotion_datasets(
        splits,
        features=read_index(hparams["feature_index"]),
        task=hparams["task"],
        labels=hparams["labels"],
        dims={m: hparams["feature_extractor"].dim(m) for m in MODALITIES},
        cache=hparams["feature_folder"],
        raw_audio=raw_audio,
    )


def export(hparams, train_set, test_set, temperatures):
    """Writes inference/: the network, the encoders and their metadata."""
    recorded = {key: hparams[key] for key in RECORDED if key in hparams}
    if hparams["skip_prep"]:  # The partition is not that of the manifests
        recorded.pop("partition")
    export_model(
        os.path.join(hparams["output_folder"], "inference"),
        net=hparams["vavl"],
        feature_extractor=hparams["feature_extractor"],
        speaker_normalization=hparams["speaker_normalizer"],
        train_speakers=train_speakers(train_set, hparams["pretrained_from"]),
        record=run_record(
            output_folder=hparams["output_folder"],
            audio_encoder=hparams["audio_encoder"],
            visual_encoder=hparams["visual_encoder"],
            audio_encoder_source=hparams["audio_encoder_source"],
            visual_encoder_weights=hparams["visual_encoder_weights"],
            train_clips=len(train_set),
            test_speakers=sorted({c["spk_id"] for c in test_set.data.values()}),
            **recorded,
        ),
        task=hparams["task"],
        labels=hparams["labels"],
        corpus=corpus_name(hparams["corpus"], hparams["data_folder"]),
        attribute_range=hparams["attribute_range"],
        temperatures=temperatures,
        trained_heads=trained_heads(
            read_index(hparams["feature_index"]),
            train_set.data,
            from_pairs=hparams["vavl"].learns_from_pairs,
        ),
    )


def main(arguments):
    """Runs the experiment with the given command-line arguments."""
    # CLI:
    hparams_file, run_opts, overrides = parse_arguments(arguments)

    # Initialize distributed training if torchrun started this process
    join_processes(run_opts)

    # Load hparams; keys of the included vavl.yaml become top-level hparams
    with open(hparams_file, encoding="utf-8") as fin:
        hparams = load_hyperpyyaml(fin, overrides)
    hparams = {**hparams["shared"], **hparams}
    hparams["metric"]().check_selection(hparams["select_by"])
    if hparams["schedule"] not in ("sequential", "joint"):
        raise VAVLError(
            "schedule: must be sequential or joint, not "
            f"{hparams['schedule']!r}"
        )

    # Lock the output folder: two runs in it would overwrite each other
    hold_folder(hparams["output_folder"])
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )

    # Data preparation: write the manifests, then read and check them
    if not hparams["skip_prep"]:
        run_on_main(hparams["prepare"])
    if hparams["prepare_only"]:
        return
    manifests = {
        "train": hparams["train_annotation"],
        "valid": hparams["valid_annotation"],
        "test": hparams["test_annotation"],
    }
    splits = read_splits(
        manifests,
        data_folder=hparams["data_folder"],
        task=hparams["task"],
        labels=hparams["labels"],
        also_train=hparams["also_train"],
        label_map=hparams["label_map"],
        allow_overlap=hparams["allow_overlap"],
    )

    # Brain class initialization, with new weights or those of another run
    init_from_pretrained(
        hparams["pretrained_from"],
        hparams["vavl"],
        hparams["feature_extractor"],
        splits,
    )
    if not hparams["audio_encoder"].freeze:
        hparams["modules"]["audio_encoder"] = hparams["audio_encoder"]
        hparams["checkpointer"].add_recoverable(
            "audio_encoder", hparams["audio_encoder"]
        )
    samples = None
    if hparams["speaker_normalizer"] is not None:
        normalizer = hparams["speaker_normalizer"]
        hparams["modules"]["speaker_normalizer"] = normalizer
        samples = SpeakerSamples(normalizer, hparams["seed"])
    corpus = corpus_name(hparams["corpus"], hparams["data_folder"])
    brain = VAVLBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
        output_folder=hparams["output_folder"],
        train_logger=hparams["train_logger"],
        temperature_scaling=hparams["temperature_scaling"],
        title=f"{type(hparams['vavl']).__name__}, trained on {corpus}",
        speaker_samples=samples,
    )
    # Refuse to resume from checkpoints of a run with other settings
    claim_folder(
        hparams["save_folder"],
        settings=read_settings(hparams_file, overrides),
        feature_extractor=hparams["feature_extractor"],
        manifests=manifests,
        also_train=hparams["also_train"],
        pretrained_from=hparams["pretrained_from"],
        precision=brain.precision,
        max_grad_norm=brain.max_grad_norm,
        # With a constant learning rate, more epochs continue the same run
        number_of_epochs=hparams["number_of_epochs"]
        if hparams["lr_final"] != hparams["lr"]
        else None,
    )

    # Extract features and create the datasets
    datasets = dataio_prep(hparams, splits, brain.device)
    if hparams["input_normalization"]:
        run_on_main(
            set_input_statistics,
            kwargs={
                "net": hparams["vavl"],
                "train_set": datasets["train"],
                "index": hparams["feature_index"],
                "folder": hparams["feature_folder"],
                "raw_audio": not hparams["audio_encoder"].freeze,
                "pretrained_from": hparams["pretrained_from"],
            },
        )

    # Fit what has no gradient: speaker statistics and linear networks
    if samples is not None:
        samples.fit(datasets["train"])
    run_on_main(
        fit_to_features,
        [hparams["vavl"], datasets["train"], hparams["scale"], samples],
    )
    if not hparams["vavl"].updates:
        hparams["epoch_counter"].limit = 1

    # Training, then test of the best checkpoint
    brain.fit(
        epoch_counter=hparams["epoch_counter"],
        train_set=datasets["train"],
        valid_set=datasets["valid"],
        train_loader_kwargs=hparams["train_dataloader_opts"],
        valid_loader_kwargs=hparams["test_dataloader_opts"],
    )
    brain.evaluate(
        test_set=datasets["test"],
        min_key="criterion",
        test_loader_kwargs=hparams["test_dataloader_opts"],
    )
    sets = (datasets["train"], datasets["test"])
    run_on_main(export, [hparams, *sets, brain.temperatures])


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
