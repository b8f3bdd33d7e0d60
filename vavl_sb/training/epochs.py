"""What a VAVLBrain does at the start and the end of epochs.

Learning rates by epoch, scores over the whole set, curves, early stopping, and
which checkpoint is kept.

Authors
 * The vavl_sb authors 2026
"""

import math

import speechbrain as sb
import torch
from speechbrain.nnet.schedulers import update_learning_rate

from vavl_sb.training import report
from vavl_sb.training.distributed import ParallelBrain, merge_scores
from vavl_sb.training.loss_meters import Progress
from vavl_sb.training.objectives import OUTPUTS
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.logger import get_logger
from vavl_sb.utils.metrics import ConcordanceStats, EmotionStats

logger = get_logger(__name__)


class EpochBrain(ParallelBrain):
    """A Brain but for what it does with a batch.

    Arguments
    ---------
    *args, **kwargs
        As for ``sb.Brain``; ``hparams`` as for
        :class:`vavl_sb.training.brain.VAVLBrain`.
    lr_audio_encoder, lr_annealing, select_by, train_loggers
        As for :class:`vavl_sb.training.brain.VAVLBrain`.
    """

    def __init__(
        self,
        *args,
        lr_audio_encoder=1e-5,
        lr_annealing=None,
        select_by="mean",
        train_loggers=(),
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        if select_by not in ("mean", *OUTPUTS):
            raise VAVLError(
                "select_by: must be mean, audio, visual or audiovisual, not "
                f"{select_by!r}"
            )
        self.lr_audio_encoder = lr_audio_encoder
        self.lr_annealing = lr_annealing
        self.select_by = select_by
        self.train_loggers = list(train_loggers)
        self.learns_audio_encoder = "audio_encoder" in self.modules
        self.curves = report.LearningCurves(self.hparams.output_folder)
        self.progress = Progress(self.hparams.output_folder)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable(
                "progress", self.progress, optional_load=True
            )

    def on_fit_start(self):
        """Goes on from the newest checkpoint; see the base class."""
        super().on_fit_start()
        self.progress.write_report()

    def update_average(self, loss, avg_loss):
        """As in SpeechBrain, also where the first batch was skipped.

        Arguments
        ---------
        loss : torch.Tensor
            Of a batch; one that is not finite is left out.
        avg_loss : float
            The average so far; 0 before the first.

        Returns
        -------
        float
        """
        if avg_loss == 0.0 and torch.isfinite(loss):
            return float(loss)
        return super().update_average(loss, avg_loss)

    def _go_on(self):
        """Random numbers of an epoch that goes on from a checkpoint in it."""
        if self.checkpointer is not None:
            state = self.checkpointer.recoverables.get("random_state")
            if state is not None:
                state.go_on()

    def on_stage_start(self, stage, epoch=None):
        """Clears the stage's losses and scores.

        Arguments
        ---------
        stage : sb.Stage
            The stage that starts.
        epoch : int
            The epoch; None at test.
        """
        self.progress.start_epoch(epoch)
        kind = (
            EmotionStats
            if self.hparams.task == "classification"
            else ConcordanceStats
        )
        self.stats = {name: kind(self.hparams.labels) for name in OUTPUTS}
        if stage == sb.Stage.TRAIN and self.lr_annealing is not None:
            self._anneal(epoch)

    def _anneal(self, epoch):
        """Sets the learning rates of an epoch, also in a resumed run."""
        lr, _ = self.lr_annealing(epoch)
        # SpeechBrain's schedulers round to float32: a constant stays one.
        if math.isclose(lr, self.optimizer.param_groups[0]["lr"], rel_tol=1e-6):
            return
        update_learning_rate(self.optimizer, lr)
        if self.learns_audio_encoder:
            share = lr / self.lr_annealing(1)[0]
            update_learning_rate(
                self.optimizers_dict["audio_encoder"],
                share * self.lr_audio_encoder,
            )

    def fit(self, epoch_counter, train_set, valid_set=None, **kwargs):
        """Trains; an empty validation set keeps the last epoch.

        Arguments
        ---------
        epoch_counter : iterable
            Gives epoch numbers.
        train_set : Dataset
            Clips to learn from.
        valid_set : Dataset
            Clips that choose the checkpoint.
        **kwargs
            As in ``sb.Brain.fit``.
        """
        self.has_valid = valid_set is not None and len(valid_set) > 0
        if not self.has_valid:
            logger.warning("no validation clips: the last epoch is kept")
        # SpeechBrain tells the epoch to a sampler that it knows of.
        options = kwargs.get("train_loader_kwargs") or {}
        self.train_sampler = options.get("batch_sampler")
        super().fit(
            epoch_counter,
            train_set,
            valid_set if self.has_valid else None,
            **kwargs,
        )
        self.progress.tell()
        if sb.utils.distributed.if_main_process():
            self.curves.draw()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs, keeps the best checkpoint, and at test writes the results.

        Arguments
        ---------
        stage : sb.Stage
            The stage that ends.
        stage_loss : float
            Its average loss.
        epoch : int
            The epoch; None at test.
        """
        # Also where the checkpoint was of the epoch's last batch.
        self._go_on()
        if stage != sb.Stage.TRAIN:
            stage_loss = merge_scores(
                self.stats, self.progress.sums, stage_loss
            )
        losses = {"loss": float(stage_loss)}
        for name, loss in self.progress.losses().items():
            losses[name.replace(" ", "_") + "_loss"] = loss
        if stage == sb.Stage.TRAIN:
            self.train_losses = losses
            # Not of the next epoch, which goes on from this one's checkpoint.
            self.step, self.avg_train_loss = 0, 0.0
            if not self.has_valid:
                self._end_epoch(epoch, {}, {}, score=float(epoch))
        elif stage == sb.Stage.VALID:
            scores = report.scores(self.stats)
            score = report.selected(scores, self.select_by)
            self._end_epoch(epoch, losses, scores, score)
        else:
            sb.utils.distributed.run_on_main(
                report.write_test_report,
                [self.hparams, self.stats, self.train_loggers],
            )

    def _end_epoch(self, epoch, valid_losses, scores, score):
        """Log line, curves, checkpoint and early stopping of an epoch."""
        valid = dict(valid_losses)
        for name, values in scores.items():
            valid[f"{name}_{values['score_name']}"] = values["score"]
        meta = {"epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"]}
        if self.progress.skipped_in_epoch():
            meta["skipped updates"] = self.progress.skipped_in_epoch()
        # SpeechBrain's loggers wait for all processes, and write in one.
        for train_logger in self.train_loggers:
            train_logger.log_stats(
                meta, train_stats=self.train_losses, valid_stats=valid
            )
        if sb.utils.distributed.if_main_process():
            self.curves.add(epoch, self.train_losses, valid)
        self.hparams.epoch_counter.update_metric(score)
        if self.checkpointer is not None:
            self.checkpointer.save_and_keep_only(
                meta={"score": score, "epoch": epoch}, max_keys=["score"]
            )
