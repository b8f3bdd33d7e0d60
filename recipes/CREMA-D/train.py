#!/usr/bin/env python3
"""Recipe for training VAVL, one network that recognises emotion from speech,
from a face, or from both (https://arxiv.org/abs/2305.07216).

> python train.py hparams/vavl_cls.yaml --data_folder /path/to/CREMA-D
> python train.py hparams/vavl_reg.yaml --data_folder /path/to/CREMA-D

All recipes share this file: the hparams file chooses the corpus, its labels,
the loss and the metric. The first run extracts the features of every clip and
caches them; later runs read the cache. A run leaves its scores (metrics.json),
predictions, plots and the exported model (inference/) in the output folder. The
same command resumes a run that was stopped.

Read main() at the end first, then VAVLBrain. The network is
vavl_sb/lobes/vavl.py; --fusion selects another one in its place. EmotionBrain
adds exact resuming, training in several processes, and skips updates whose loss
or gradient is not finite.

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

# The other recipes link to this file. Python resolves the link before it adds
# the script's folder to its path; the prepare script is beside the link.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

logger = get_logger(__name__)

# Settings that the exported model's card names, beside its scores
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
    """The three updates of VAVL, their losses, and what is scored and kept.

    Other networks (--fusion) take the updates that they name.
    """

    def init_optimizers(self):
        """One Adam for all updates.

        An update leaves the gradients of what it does not train at None, which
        Adam skips. The shared layers so have one moment estimate, which both
        unimodal updates feed.
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
        """Runs the network on the modalities that an update needs.

        The audio-visual head is trained with all else frozen, without
        gradients and in eval mode; and in no update does its loss reach the
        layers below it.

        Arguments
        ---------
        batch : PaddedBatch
            ``audio``, features (B, Ta, Da), or samples (B, n) if the speech
            encoder is trained; ``visual``, features (B, Tv, Dv).
        stage : sb.Stage
            TRAIN, VALID or TEST.
        update : str
            "visual", "audio", "audiovisual", or "joint" for all of them.

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
                # A clip that lacks one of the two trains nothing here.
                lens = lens * self.present(batch, update)
            if modality == "audio":
                # Cached features pass; a speech encoder that learns gets
                # samples, and learns in the audio update.
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
        """Which clips have what a head needs, shape (B,): a length above 0."""
        needed = MODALITIES if head == "audiovisual" else (head,)
        has = [batch[modality].lengths > 0 for modality in needed]
        return torch.stack(has).all(dim=0)

    def compute_objectives(self, out, batch, stage, update="joint"):
        """Loss of a head's update, or the sum of all heads' losses: a scalar,
        or None if no clip of the batch has the modalities needed."""
        heads = HEADS if update == "joint" else (update,)
        losses = [self.head_loss(out, batch, head, stage) for head in heads]
        losses = [loss for loss in losses if loss is not None]
        return torch.stack(losses).sum() if losses else None

    def head_loss(self, out, batch, head, stage):
        """Loss of one head over the clips that have its modalities: a scalar,
        or None if there are none. The prediction loss; for a single modality
        plus the weighted reconstruction loss, if the network reconstructs."""
        net, rows = self.modules.vavl, self.present(batch, head)
        targets = batch.label.data
        if targets.is_floating_point():
            # Attributes, or class probabilities after mixup.
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
            # The loss of the whole batch, not of this process's share of it.
            parts = gather_rows(parts)
        else:
            # Scores are in the corpus's own scale, and of the whole set.
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
        """Visual update, audio update, audio-visual update.

        The joint schedule sends a batch through the network once and takes one
        step with the sum of the three losses. Each loss moves what it moves in
        the paper's schedule; the shared layers take one step instead of two,
        and the audio-visual head learns from representations with dropout.
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
        """Sets the epoch's learning rates; scores start anew."""
        super().on_stage_start(stage, epoch)
        self.stats = {head: self.hparams.metric() for head in HEADS}
        if stage == sb.Stage.TRAIN:
            # By the epoch's number, so that a resumed run has them too.
            lr, _ = self.hparams.lr_annealing(epoch)
            initial = (self.hparams.lr, self.hparams.lr_audio_encoder)
            for group, start in zip(self.optimizer.param_groups, initial):
                group["lr"] = start * lr / self.hparams.lr

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs and keeps the checkpoint of an epoch; at test, the results."""
        losses = self.stage_losses(stage, stage_loss)
        if stage == sb.Stage.TRAIN:
            self.train_losses = losses
            if not self.has_valid:
                # Nothing to choose by: the last epoch is kept.
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
        """The lowest criterion chooses the checkpoint: the audio-visual head's
        loss over all validation clips at once, or minus its score (select_by).
        If that head is not trained or has no validation clips: the mean over
        the heads that are and have."""
        found = {}
        for head, stats in self.stats.items():
            if f"{head}_prediction_loss" not in self.train_losses:
                continue
            if len(stats) and self.hparams.select_by == "loss":
                found[head] = self.hparams.prediction_loss(
                    torch.cat(stats.predictions), torch.cat(stats.targets)
                ).item()
            elif len(stats):
                found[head] = -stats.summarize(self.hparams.select_by)
        mean = sum(found.values()) / max(len(found), 1)
        return found.get("audiovisual", mean)


def dataio_prep(hparams, splits, device):
    """Computes the features that are not cached yet, and makes a dataset for
    each split. An item has the features of both modalities, with no frame of
    what the clip lacks, and the class's index or the attributes."""
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
    """Writes inference/: the network, the encoders, and what the model is."""
    recorded = {key: hparams[key] for key in RECORDED if key in hparams}
    if hparams["skip_prep"]:  # The manifests were divided elsewhere.
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
    """Prepares, extracts, trains, tests and exports; ``arguments`` are those of
    the command line."""
    # CLI:
    hparams_file, run_opts, overrides = parse_arguments(arguments)

    # Several processes, where torchrun started them
    join_processes(run_opts)

    # Flatten: keys of the included vavl.yaml become top-level hparams
    with open(hparams_file, encoding="utf-8") as fin:
        hparams = load_hyperpyyaml(fin, overrides)
    hparams = {**hparams["shared"], **hparams}
    hparams["metric"]().check_selection(hparams["select_by"])
    if hparams["schedule"] not in ("sequential", "joint"):
        raise VAVLError(
            "schedule: must be sequential or joint, not "
            f"{hparams['schedule']!r}"
        )

    # One run at a time in an output folder
    hold_folder(hparams["output_folder"])
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )

    # Manifests
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

    # Brain class initialization, from new weights or from another run's
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
    # Checkpoints there are of this run, and not of one with other settings
    claim_folder(
        hparams["save_folder"],
        settings=read_settings(hparams_file, overrides),
        feature_extractor=hparams["feature_extractor"],
        manifests=manifests,
        also_train=hparams["also_train"],
        pretrained_from=hparams["pretrained_from"],
        precision=brain.precision,
        max_grad_norm=brain.max_grad_norm,
        # With a constant learning rate a run may go on for more epochs.
        number_of_epochs=hparams["number_of_epochs"]
        if hparams["lr_final"] != hparams["lr"]
        else None,
    )

    # Features and datasets
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

    # What is fitted, and not trained
    if samples is not None:
        samples.fit(datasets["train"])
    run_on_main(
        fit_to_features,
        [hparams["vavl"], datasets["train"], hparams["scale"], samples],
    )
    if not hparams["vavl"].updates:
        hparams["epoch_counter"].limit = 1

    # Training, and the test of the best checkpoint
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
