"""``sb.Brain`` for emotion recipes: exact resuming and distributed training.

A recipe's ``train.py`` subclasses :class:`EmotionBrain` and defines the
forward pass, the updates of a batch, the metrics and the checkpoint criterion.
This module contains what does not depend on the method: bit-exact resuming,
training in several processes, and skipping of non-finite updates.
"""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.sampler import ReproducibleRandomSampler
from speechbrain.utils.train_logger import TrainLogger
from torch.nn.utils import get_total_norm
from torch.utils.data import DataLoader, Dataset

from vavl_sb.dataio.datasets import EmotionBatch
from vavl_sb.dataio.samplers import SharedBatches
from vavl_sb.lobes.conformer import compile_conformers
from vavl_sb.training import report
from vavl_sb.training.distributed import (
    merge_scores,
    share_weights,
    sum_gradients,
)
from vavl_sb.training.logs import LossMeters
from vavl_sb.training.speakers import SpeakerSamples
from vavl_sb.utils import distributed as processes
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)


class EmotionBrain(sb.Brain):
    """``sb.Brain`` with exact resuming, training in several processes, and
    skipping of updates whose loss or gradient is not finite.

    Arguments
    ---------
    *args, **kwargs
        Passed to ``sb.Brain``.
    output_folder : str
        Output folder of the run, for plots and the report of skipped updates.
    train_logger : speechbrain.utils.train_logger.TrainLogger
        Logs one line per epoch.
    temperature_scaling : bool
        Whether to calibrate each classification head on the validation clips.
    title : str
        Title of the plots: model and corpus.
    speaker_samples : vavl_sb.training.speakers.SpeakerSamples
        Used by :meth:`normalize_speakers`; None: no speaker normalization.

    Attributes
    ----------
    meters : vavl_sb.training.logs.LossMeters
        ``meters.add(name, loss)`` adds a loss to the log.
    stats : dict
        Metric of each head; a subclass creates new ones for each stage.
    has_valid : bool
        Whether there are validation clips to select a checkpoint by.
    temperatures : dict
        Temperature of each head, from the checkpoint that is tested.
    """

    def __init__(
        self,
        *args,
        output_folder: str | Path,
        train_logger: TrainLogger | None = None,
        temperature_scaling: bool = True,
        title: str = "",
        speaker_samples: SpeakerSamples | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        if self.grad_accumulation_factor > 1:
            raise VAVLError(
                "grad_accumulation_factor: must be 1, since the gradients of "
                "a batch's updates must not be added up; raise batch_size"
            )
        if self.data_parallel_backend:
            raise VAVLError(
                "data_parallel_backend: cannot be used; start train.py with "
                "torchrun instead (docs/several_processes.md)"
            )
        if self.remove_vector_weight_decay:
            raise VAVLError(
                "remove_vector_weight_decay: has no effect on these "
                "optimizers; leave it out"
            )
        self.output_folder, self.train_logger = output_folder, train_logger
        self.stats = {}
        self.has_valid = False
        self.temperature_scaling, self.temperatures = temperature_scaling, {}
        self.title, self.speaker_samples, self.epoch = title, speaker_samples, 0
        self.meters = LossMeters(output_folder)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("loss_meters", self.meters)

    def normalize_speakers(self, batch: PaddedBatch) -> PaddedBatch:
        """Normalizes each training clip by other clips of its speaker, sampled
        anew every epoch; no effect without speaker normalization."""
        if self.speaker_samples is None:
            return batch
        return self.speaker_samples.normalize_batch(batch, self.epoch)

    def take_step(
        self, loss: torch.Tensor | None, batch: PaddedBatch, update: str
    ) -> torch.Tensor:
        """Runs the backward pass of a loss and an optimizer step.

        The loss is a scalar, the same in all processes
        (:func:`vavl_sb.training.distributed.gather_rows`), or None if no clip
        has the modalities that the update requires. If it or a gradient is not
        finite, the update is skipped, and the batch's clips are logged. Returns
        the loss, detached, on the CPU: 0 for None, NaN if skipped.
        """
        if loss is None:
            return torch.zeros(())
        fault = "" if torch.isfinite(loss) else "the loss"
        if not fault:
            scaled = self.scaler.scale(loss)
            # No graph if none of the batch's rows belong to this process.
            if scaled.requires_grad:
                scaled.backward()
            sum_gradients(self.modules.parameters())
            # With fp16, the scaler itself skips steps with infinite gradients.
            if not self.scaler.is_enabled() and not self._finite_gradients():
                fault = "a gradient"
        if fault:
            self.modules.zero_grad(set_to_none=True)
            shares = processes.gather(list(batch.id))
            clips = [id for share in shares for id in share]
            self.meters.skip(update, fault, clips, self.nonfinite_patience)
            return torch.tensor(torch.nan)
        self.optimizers_step()
        return loss.detach().cpu()

    def _finite_gradients(self):
        """Returns whether all gradients are free of NaN and infinity."""
        gradients = [p.grad for p in self.modules.parameters()]
        gradients = [grad for grad in gradients if grad is not None]
        # The maximum norm cannot overflow, unlike a sum of squares.
        norm = get_total_norm(gradients, math.inf) if gradients else 0.0
        return math.isfinite(norm)

    def on_fit_start(self) -> None:
        """Resumes from the newest checkpoint; see the base class."""
        super().on_fit_start()
        self.meters.write_report()

    def on_fit_batch_start(self, batch: PaddedBatch, should_step: bool) -> None:
        """Restores the random state; see the base class."""
        self._resume_random_state()

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Resets the loss meters; see the base class."""
        self.epoch = epoch or 0
        self.meters.start_epoch(epoch)

    def encode_speech(
        self, samples: torch.Tensor, lens: torch.Tensor, learn: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encodes speech if the speech encoder is trained; returns cached
        features unchanged.

        Takes 16 kHz samples (B, n), 0 for clips without audio, or cached
        features (B, T, D), and relative lengths (B,). Returns features
        (B, T, D) and relative lengths. Without ``learn``, the encoder is in
        eval mode and has no gradients.
        """
        if "audio_encoder" not in self.modules or not lens.any():
            return samples, lens
        encoder = self.modules["audio_encoder"]
        encoder.train(learn and self.modules.training)
        with torch.set_grad_enabled(learn and torch.is_grad_enabled()):
            features, frames = encoder(samples, lens)
        encoder.train(self.modules.training)
        return features, frames * (lens > 0)

    def collect(
        self,
        head: str,
        batch: PaddedBatch,
        rows: torch.Tensor,
        predictions: torch.Tensor,
    ) -> None:
        """Appends a head's predictions to its metric, ``stats[head]``.

        ``rows``, bool (B,), marks the N clips that the head has predictions
        for; ``predictions`` has these only, in the corpus's scale, shape
        (N, num_outputs). Raises a VAVLError with the clips' names if a
        prediction is not finite.
        """
        ids = [id for id, kept in zip(batch.id, rows.tolist()) if kept]
        if ids:
            self._refuse_nonfinite(predictions, ids, head)
            targets = batch.label.data[rows]
            classes = not targets.is_floating_point()
            self.stats[head].append(
                ids, predictions, targets.squeeze(-1) if classes else targets
            )

    def stage_losses(
        self, stage: sb.Stage, stage_loss: float
    ) -> dict[str, float]:
        """Returns the average losses of a stage over all processes: ``loss``,
        and ``<name>_loss`` for each of ``meters``.

        ``stage_loss`` is this process's average. In validation and test, merges
        ``stats`` of all processes: each then contains every clip once.
        """
        # If the checkpoint was saved after the last batch of the epoch, no
        # batch has restored the random state.
        self._resume_random_state()
        if stage == sb.Stage.TRAIN:
            # The next epoch must not start from this one's counts.
            self.step, self.avg_train_loss = 0, 0.0
        else:
            stage_loss = merge_scores(self.stats, self.meters.sums, stage_loss)
        return {"loss": float(stage_loss), **self.meters.averages()}

    def _refuse_nonfinite(self, predictions, ids, head):
        """Raises an error if a prediction is NaN or infinite."""
        finite = torch.isfinite(predictions).all(dim=-1).tolist()
        if all(finite):
            return
        reason = (
            "the network has diverged; use a lower lr and a new output_folder"
        )
        if self.eval_precision != "fp32":
            reason = (
                f"eval_precision {self.eval_precision} has overflowed, or "
                f"{reason}; try --eval_precision fp32 first"
            )
        bad = ", ".join(id for id, good in zip(ids, finite) if not good)
        raise VAVLError(
            f"the {head} head's prediction is not finite: {reason}; clips: "
            f"{bad}"
        )

    def end_epoch(
        self,
        epoch: int,
        train_stats: dict,
        valid_stats: dict,
        criterion: float,
    ) -> None:
        """Logs an epoch, adds it to the curves, and saves a checkpoint.

        The checkpoint with the lowest criterion is the one that is tested.
        """
        meta = {"epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"]}
        if self.meters.skipped_in_epoch():
            meta["skipped updates"] = self.meters.skipped_in_epoch()
        # In all processes: SpeechBrain's loggers synchronize them.
        if self.train_logger is not None:
            self.train_logger.log_stats(
                meta, train_stats=train_stats, valid_stats=valid_stats
            )
        if sb.utils.distributed.if_main_process():
            report.add_epoch(
                self.output_folder,
                *(epoch, train_stats, valid_stats, criterion),
            )
        if self.temperature_scaling:
            self.temperatures = report.fit_temperatures(self.stats)
        if self.checkpointer is not None:
            self.checkpointer.save_and_keep_only(
                meta={
                    "criterion": criterion,
                    "epoch": epoch,
                    "temperatures": self.temperatures,
                },
                min_keys=["criterion"],
            )

    def on_evaluate_start(
        self, max_key: str | None = None, min_key: str | None = None
    ) -> None:
        """Loads the best checkpoint, with its temperatures; see the base
        class."""
        if self.checkpointer is not None:
            checkpoint = self.checkpointer.recover_if_possible(
                max_key=max_key, min_key=min_key
            )
            if checkpoint is not None:
                self.temperatures = checkpoint.meta.get("temperatures", {})

    def write_results(self, task: str, labels: Sequence[str]) -> None:
        """Writes metrics.json, the predictions and the plots of a test."""
        sb.utils.distributed.run_on_main(
            report.write_test_report,
            [self.output_folder, task, labels],
            {
                "stats": self.stats,
                "temperatures": self.temperatures,
                "title": self.title,
            },
        )

    def fit(
        self,
        epoch_counter: Iterable[int],
        train_set: Dataset,
        valid_set: Dataset | None = None,
        **kwargs,
    ) -> None:
        """Trains the network; keeps the last epoch if ``valid_set`` is empty or
        None; see the base class."""
        self.has_valid = valid_set is not None and len(valid_set) > 0
        if not self.has_valid:
            logger.warning("no validation clips: the last epoch is kept")
            valid_set = None
        super().fit(epoch_counter, train_set, valid_set, **kwargs)
        if self.meters.skipped:
            logger.warning(
                "%d updates were skipped: see %s",
                *(len(self.meters.skipped), self.meters.report),
            )
        if sb.utils.distributed.if_main_process():
            report.draw_curves(self.output_folder, self.title)

    def update_average(self, loss: torch.Tensor, avg_loss: float) -> float:
        """Averages losses, also after a skipped first batch; see the base
        class."""
        if avg_loss == 0.0 and torch.isfinite(loss):
            return float(loss)
        return super().update_average(loss, avg_loss)

    def make_dataloader(
        self,
        dataset: Dataset,
        stage: sb.Stage,
        ckpt_prefix: str = "dataloader-",
        **loader_kwargs,
    ) -> DataLoader:
        """Makes a loader of this process's share of a dataset; see the base
        class. ``batch_size`` is per process."""
        loader_kwargs.setdefault("collate_fn", EmotionBatch)
        if self.distributed_launch and stage != sb.Stage.TRAIN:
            loader_kwargs["sampler"] = range(
                processes.rank(), len(dataset), processes.count()
            )
        return super().make_dataloader(
            dataset, stage, ckpt_prefix, **loader_kwargs
        )

    def _train_loader_specifics(self, dataset, loader_kwargs):
        """Gives each process its share of a single process's batches."""
        if not self.distributed_launch:
            return super()._train_loader_specifics(dataset, loader_kwargs)
        options = dict(loader_kwargs)
        order = range(len(dataset))
        if options.pop("shuffle", False):
            # The same order as SpeechBrain's in a single process.
            seed = int(os.environ.get("SB_GLOBAL_SEED", 563375142))
            order = ReproducibleRandomSampler(dataset, seed=seed)
        self.train_sampler = SharedBatches(
            order,
            options.pop("batch_size", 1),
            processes.rank(),
            processes.count(),
            options.pop("drop_last", False),
        )
        return {**options, "batch_sampler": self.train_sampler}

    def _wrap_distributed(self):
        """Broadcasts the weights, without DistributedDataParallel: see
        :mod:`vavl_sb.training.distributed`."""
        share_weights(self.modules)

    def _compile(self):
        """Compiles the conformers in place if ``--compile`` is set."""
        if self.jit or self.jit_module_keys:
            raise VAVLError("jit: cannot compile VAVL; use --compile instead")
        if self.compile:
            compile_conformers(
                self.modules,
                mode=self.compile_mode,
                fullgraph=self.compile_using_fullgraph,
                dynamic=self.compile_using_dynamic_shape_tracing,
            )

    def _resume_random_state(self):
        """Restores the random state of a checkpoint saved within an epoch."""
        if self.checkpointer is not None:
            state = self.checkpointer.recoverables.get("random_state")
            if state is not None:
                state.restore_again()
