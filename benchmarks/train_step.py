#!/usr/bin/env python3
"""Times a training step: ours, and the schedule of VAVL's released code.

> python benchmarks/train_step.py --json

All have the same layers and the same batch: 8 clips of 2.5 s of audio and 76
face frames. Ours starts from cached features and takes the paper's three
updates; the joint schedule takes one. The released schedule is reimplemented
from its description: the visual update; the audio update with gradients of the
speech encoder; the speech encoder again, and the audio-visual loss
backpropagated through everything. All use our layers, so that the ratio does
not include their speed. They are timed in turn in one process, in fp32.

The floor is a lower bound of the three updates' time: the operations of their
matrix products over the speed of matrix products in this run.
"""

import math
from dataclasses import dataclass

import speechbrain as sb
import torch
from material import speech_model
from measure import options_of, run, timed
from recipe import make_brain

from vavl_sb.dataio.datasets import EmotionBatch
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.nnet.losses import classification_loss, reconstruction_loss

CLASSES, RATE = 6, 16000


@dataclass(frozen=True)
class Sizes:
    """Sizes of batch and networks; the defaults are those that are reported.

    Arguments
    ---------
    batch, seconds, face_frames : number
        Clips, and seconds of audio and face frames of each.
    d_model : int
        Width of the network.
    width, layers : int
        Width and layers of the speech encoder.
    """

    batch: int = 8
    seconds: float = 2.5
    face_frames: int = 76
    d_model: int = 512
    width: int = 1024
    layers: int = 12

    @property
    def speech_frames(self):
        """Frames of wav2vec 2.0: 124 for 2.5 s."""
        return int((self.seconds * RATE - 400) // 320) + 1


QUICK = Sizes(2, 0.5, 6, 32, 32, 1)
ADAM = {"lr": 5e-5, "betas": (0.95, 0.999), "weight_decay": 5e-7}


def make_batch(speech_frames, face_frames, width=1024):
    """Creates a batch of clips with random features for our step.

    Arguments
    ---------
    speech_frames, face_frames : list of int
        Frames of each clip.
    width : int
        Size of speech features.
    """
    return EmotionBatch(
        [
            {
                "id": str(i),
                "audio": torch.randn(speech, width),
                "visual": torch.randn(faces, 1408),
                "label": torch.tensor([i % CLASSES]),
            }
            for i, (speech, faces) in enumerate(
                zip(speech_frames, face_frames, strict=True)
            )
        ]
    )


def conv_backward_flop(gradient, x, weight, *args, out_shape=None, **kwargs):
    """Counts the operations of a (grouped) convolution's two gradients.

    Arguments
    ---------
    gradient, x, weight : sequence
        Shapes of the output's gradient, the input and the weights.
    *args, out_shape, **kwargs
        Not used.
    """
    return 2 * 2 * math.prod(gradient) * math.prod(weight[1:])


class Ours:
    """Our step, on cached features.

    Arguments
    ---------
    schedule : str
        "sequential" or "joint".
    folder : str
        Output folder of the brain.
    device : str
        Device of the network.
    sizes : Sizes
        Sizes of batch and network.
    """

    def __init__(self, schedule, folder, device, sizes=Sizes()):
        net = VAVL(sizes.width, num_outputs=CLASSES, d_model=sizes.d_model)
        labels = list("abcdef")
        self.brain = make_brain(net, labels, folder, device, schedule)
        self.brain.init_optimizers()
        self.brain.on_stage_start(sb.Stage.TRAIN, 1)
        self.brain.modules.train()
        self.batch = make_batch(
            [sizes.speech_frames] * sizes.batch,
            [sizes.face_frames] * sizes.batch,
            sizes.width,
        )

    def __call__(self):
        """Takes the step."""
        self.brain.fit_batch(self.batch)

    def flop(self):
        """Counts the floating-point operations of a step's matrix products and
        convolutions; ignores norms, activations, dropout and Adam.

        Returns
        -------
        int
        """
        from torch.utils.flop_counter import FlopCounterMode

        # PyTorch counts the gradients of a depthwise convolution as if it were
        # a full one.
        backward = torch.ops.aten.convolution_backward
        with FlopCounterMode(
            display=False, custom_mapping={backward: conv_backward_flop}
        ) as counter:
            self()
        return counter.get_total_flops()


class Released:
    """The released schedule, reimplemented from its description.

    The speech encoder is in eval mode and never updated, but only its
    convolutions are frozen: gradients of its other weights are computed and
    accumulated. In the audio-visual update the network is in eval mode except
    the audio-visual head. The loss is backpropagated through the network and
    the speech encoder, but updates only that head.

    Arguments
    ---------
    device : str
        Device of the networks.
    sizes : Sizes
        Sizes of batch and networks.
    """

    def __init__(self, device, sizes=Sizes()):
        self.encoder = speech_model(sizes.width, sizes.layers)
        self.encoder.to(device).eval().freeze_feature_encoder()
        self.net = VAVL(
            sizes.width, num_outputs=CLASSES, d_model=sizes.d_model
        ).to(device)
        self.head = self.net.audiovisual_head
        parts = {
            name: list(part.parameters())
            for name, part in self.net.named_children()
        }
        head = parts.pop("audiovisual_head")
        self.backbone_adam = torch.optim.Adam(sum(parts.values(), []), **ADAM)
        self.head_adam = torch.optim.Adam(head, **ADAM)
        self.device = device
        self.set_batch(sizes.batch, sizes.seconds, sizes.face_frames)

    def set_batch(self, clips, seconds, face_frames):
        """Sets the clips of the next steps, all of one length.

        Arguments
        ---------
        clips : int
            Number of clips.
        seconds : float
            Seconds of audio per clip.
        face_frames : int
            Face frames per clip.
        """
        device, samples = self.device, int(seconds * RATE)
        self.sound = torch.randn(clips, samples, device=device)
        self.faces = torch.randn(clips, face_frames, 1408, device=device)
        self.labels = torch.arange(clips, device=device) % CLASSES

    def __call__(self):
        """Takes the step."""
        self.net.train()
        self._update(self.net(visual=self.faces), "visual")
        speech = self.encoder(self.sound).last_hidden_state
        self._update(self.net(audio=speech), "audio")
        self.net.eval()
        self.head.train()
        speech = self.encoder(self.sound).last_hidden_state
        out = self.net(audio=speech, visual=self.faces)
        # Backpropagates through all layers, but updates one head only.
        loss = classification_loss(out.audiovisual, self.labels)
        self._step(loss, self.head_adam)

    def _update(self, out, modality):
        """Takes a step with the losses of one modality."""
        loss = classification_loss(getattr(out, modality), self.labels)
        loss = loss + 2.0 * reconstruction_loss(
            getattr(out, f"{modality}_reconstruction"),
            getattr(out, f"{modality}_target"),
        )
        self._step(loss, self.backbone_adam)

    def _step(self, loss, optimizer):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def measure(folder, options):
    """Measures all numbers of the report."""
    sizes = QUICK if options.quick else Sizes()
    device = options.device
    ours = Ours("sequential", folder, device, sizes)
    sides = {
        "ours": ours,
        "joint": Ours("joint", folder, device, sizes),
        "released_schedule": Released(device, sizes),
    }
    seconds, facts = timed(sides, options)
    tflop = ours.flop() / 1e12
    floor = tflop / facts["matrix_product_tflops"]
    return {
        "ours_step_s": seconds["ours"],
        "joint_step_s": seconds["joint"],
        "released_schedule_step_s": seconds["released_schedule"],
        "ratio": seconds["released_schedule"] / seconds["ours"],
        "joint_ratio": seconds["released_schedule"] / seconds["joint"],
        "floor_s": floor,
        "ours_over_floor": seconds["ours"] / floor,
        "joint_over_floor": seconds["joint"] / floor,
        "tflop": tflop,
        "repeats": options.repeats,
        **facts,
    }


def main(arguments=None):
    """Runs the benchmark and prints the results."""
    options = options_of("Times a training step.").parse_args(arguments)
    run(measure, options)


if __name__ == "__main__":
    main()
