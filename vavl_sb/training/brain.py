"""VAVLBrain: what is done with a batch.

By default a batch takes three updates in this order: visual (its encoder, the
shared layers, its two heads), audio (likewise), then the audio-visual head
with all else frozen, without gradients and in eval mode (section 3.3 of the
paper).

Authors
 * The vavl_sb authors 2026
"""

import speechbrain as sb
import torch

from vavl_sb.lobes.conformer import compile_conformers
from vavl_sb.nnet.attribute_scale import AttributeScale
from vavl_sb.nnet.losses import reconstruction_loss
from vavl_sb.training.distributed import gather_rows
from vavl_sb.training.epochs import EpochBrain
from vavl_sb.training.loss_meters import refuse_nonfinite
from vavl_sb.training.mixup import check_mixup, mix
from vavl_sb.training.objectives import OUTPUTS, head_rows, loss_parts
from vavl_sb.training.schedules import SCHEDULES
from vavl_sb.utils.errors import VAVLError


class VAVLBrain(EpochBrain):
    """Trains and scores :class:`vavl_sb.lobes.vavl.VAVL`.

    One Adam holds the whole network. An update leaves the gradients of all
    other parts at None, which Adam skips, so that the shared layers have one
    moment estimate that both unimodal updates feed.

    Arguments
    ---------
    *args, **kwargs
        As for ``sb.Brain``. ``hparams`` has ``task`` ("classification" or
        "regression"), ``labels``, ``output_folder`` and ``epoch_counter``;
        ``modules`` has ``vavl``, and ``audio_encoder`` where that learns.
    prediction_loss : callable
        From predictions (B, n) and targets to a scalar.
    reconstruction_weight : float
        What the reconstruction loss counts beside it.
    lr_audio_encoder : float
        Learning rate of an audio encoder that learns.
    lr_annealing : callable
        One of SpeechBrain's schedulers by epoch, such as ``LinearScheduler``:
        from an epoch's number to its learning rate and the next one's. An
        audio encoder that learns follows in proportion. None: constant.
    select_by : str
        Whose validation score chooses the checkpoint: "mean" (over the
        modalities), "audio", "visual" or "audiovisual".
    schedule : str
        "sequential" (the paper's three updates) or "joint"; see
        :mod:`vavl_sb.training.schedules`.
    mixup : float
        Parameter of the Beta distribution that training clips are mixed by
        (:mod:`vavl_sb.training.mixup`); 0 for none.
    attribute_range : list of float
        Lowest and highest value of an attribute, by which targets are scaled
        to -1 to 1 for the network; scores and predictions are in the corpus's
        scale. None: attributes are taken as they are.
    train_loggers : list
        SpeechBrain ``TrainLogger`` objects.
    """

    def __init__(
        self,
        *args,
        prediction_loss,
        reconstruction_weight=1.0,
        schedule="sequential",
        mixup=0.0,
        attribute_range=None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        if self.grad_accumulation_factor > 1:
            raise VAVLError(
                "grad_accumulation_factor: must be 1, since the gradients of "
                "a batch's three updates must not be added up; raise "
                "batch_size instead"
            )
        if self.data_parallel_backend:
            raise VAVLError(
                "data_parallel_backend: cannot train VAVL; start train.py "
                "with torchrun instead (docs/several_processes.md)"
            )
        if schedule not in SCHEDULES:
            raise VAVLError(
                f"schedule: must be {' or '.join(SCHEDULES)}, not {schedule!r}"
            )
        self.schedule = SCHEDULES[schedule]
        self.mixup = check_mixup(mixup)
        self.prediction_loss = prediction_loss
        self.reconstruction_weight = reconstruction_weight
        self.scale = AttributeScale(attribute_range)
        self.update = None

    def init_optimizers(self):
        """One optimizer for the network, one for a learning audio encoder."""
        self.optimizer = self.opt_class(self.modules.vavl.parameters())
        self.optimizers_dict = {"vavl": self.optimizer}
        if self.learns_audio_encoder:
            learning = [
                p
                for p in self.modules.audio_encoder.parameters()
                if p.requires_grad
            ]
            self.optimizers_dict["audio_encoder"] = self.opt_class(
                learning, lr=self.lr_audio_encoder
            )
        if self.checkpointer is not None:
            for name, optimizer in self.optimizers_dict.items():
                self.checkpointer.add_recoverable(
                    f"{name}_optimizer", optimizer
                )

    def _compile(self):
        """With ``--compile``, compiles the conformers, in place."""
        if self.jit or self.jit_module_keys:
            raise VAVLError("jit: cannot compile VAVL; use --compile instead")
        if not self.compile:
            return
        compile_conformers(
            self.modules,
            mode=self.compile_mode,
            fullgraph=self.compile_using_fullgraph,
            dynamic=self.compile_using_dynamic_shape_tracing,
        )

    def freeze_optimizers(self, optimizers):
        """The audio encoder steps in the audio update alone.

        Arguments
        ---------
        optimizers : dict
            All optimizers by name.

        Returns
        -------
        dict
            Those that step now.
        """
        if self.update in (None, "audio"):
            return optimizers
        return {"vavl": optimizers["vavl"]}

    def compute_forward(self, batch, stage, update=None):
        """Runs the network.

        Arguments
        ---------
        batch : PaddedBatch
            From :func:`vavl_sb.dataio.datasets.emotion_datasets`.
        stage : sb.Stage
            The stage of the experiment.
        update : str
            Only what this update needs: "visual", "audio" or "audiovisual";
            None for all heads.

        Returns
        -------
        vavl_sb.lobes.vavl.VAVLOutput
        """
        batch = batch.to(self.device, non_blocking=True)
        inputs = {}
        if update != "visual":
            audio, lens = batch.audio
            inputs["audio"], lens = self._audio_features(batch, audio, lens)
            inputs["audio_lens"] = lens * batch.has_audio.to(lens)
        if update != "audio":
            inputs["visual"], lens = batch.visual
            inputs["visual_lens"] = lens * batch.has_visual.to(lens)
        return self.modules.vavl(
            **inputs,
            freeze_backbone=update == "audiovisual",
            # Its loss never moves what is below the audio-visual head.
            detach_pair=True,
        )

    def _audio_features(self, batch, audio, lens):
        """Features of a batch's sound: as cached, or from samples."""
        if not self.learns_audio_encoder:
            return audio, lens
        encoder = self.modules.audio_encoder
        if self.update != "audiovisual":
            return encoder(audio, lens)
        encoder.eval()
        with torch.no_grad():
            features = encoder(audio, lens)
        encoder.train()
        return features

    def compute_objectives(self, out, batch, stage, update=None):
        """Loss of one update; at evaluation, the mean over the heads.

        Arguments
        ---------
        out : vavl_sb.lobes.vavl.VAVLOutput
            From :meth:`compute_forward`.
        batch : PaddedBatch
            The same batch.
        stage : sb.Stage
            The stage of the experiment.
        update : str
            Which update's loss.

        Returns
        -------
        torch.Tensor
            Scalar; None where no row has what the update needs.
        """
        if update is not None:
            return self._update_loss(out, batch, update, stage)
        losses = []
        for modality in OUTPUTS:
            loss = self._update_loss(out, batch, modality, stage)
            if loss is not None:
                losses.append(loss)
                self._collect(out, batch, modality)
        return torch.stack(losses).mean()

    def _update_loss(self, out, batch, modality, stage):
        """Prediction loss, and the reconstruction's for one modality."""
        parts = loss_parts(
            self.modules.vavl, out, modality, self._targets(batch)
        )
        if stage == sb.Stage.TRAIN:
            # The loss of the whole batch, not of one process's share of it.
            parts = gather_rows(parts)
        predictions, targets, *reconstruction = parts
        if len(predictions) == 0:
            return None
        prediction = self.prediction_loss(predictions, targets)
        self.progress.note(f"{modality} prediction", prediction)
        if modality == "audiovisual":
            return prediction
        reconstruction = reconstruction_loss(*reconstruction)
        self.progress.note(f"{modality} reconstruction", reconstruction)
        return prediction + self.reconstruction_weight * reconstruction

    def _targets(self, batch):
        """Class indices (B,), after mixup class probabilities (B, n), or the
        network's attributes (B, n)."""
        targets = batch.label.data
        if self.hparams.task == "classification":
            mixed = targets.is_floating_point()
            return targets if mixed else targets.squeeze(-1)
        return self.scale.to_network(targets)

    def _collect(self, out, batch, modality):
        """Hands one head's predictions to the scores of the stage."""
        predictions, rows = head_rows(out, modality)
        kept = rows.tolist()
        # NumPy knows no bfloat16, which --eval_precision may have left.
        predictions = predictions[rows].float()
        targets = batch.label.data[rows]
        ids = [id for id, keep in zip(batch.id, kept) if keep]
        if self.hparams.task == "classification":
            targets = targets.squeeze(-1)
        else:
            predictions = self.scale.to_corpus(predictions)
        refuse_nonfinite(predictions, ids, modality, self.eval_precision)
        self.stats[modality].append(ids, predictions, targets)

    def fit_batch(self, batch):
        """The updates of a batch, by the schedule.

        Arguments
        ---------
        batch : PaddedBatch
            Rows may lack a modality.

        Returns
        -------
        torch.Tensor
            Sum of the updates' losses, detached, on the CPU; NaN where one was
            skipped as not finite, so that SpeechBrain's average is without it.
        """
        # Here, since an update without rows of this process runs no network.
        batch = batch.to(self.device, non_blocking=True)
        self.on_fit_batch_start(batch, True)
        self._go_on()
        if self.mixup:
            classes = self.hparams.task == "classification"
            batch = mix(
                batch,
                self.mixup,
                len(self.hparams.labels) if classes else None,
            )
        total = self.schedule(self, batch)
        self.on_fit_batch_end(batch, None, total, True)
        return total
