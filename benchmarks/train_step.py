#!/usr/bin/env python3
"""One training step: ours against the schedule of the code released with VAVL.

> python benchmarks/train_step.py --json

Both sides have the same layers and the same batch: 8 clips of 2.5 s of sound
and 76 frames of face. Ours starts from cached features and takes the paper's
three updates; the joint schedule takes one. The released schedule is written
here from its description: the visual update; the speech encoder, gradients and
all, and the audio update; the speech encoder once more, and the audio-visual
loss sent back through everything. The layers are ours on both sides, so that
what makes them quick is no part of the ratio. All sides run in turn in one
process, fp32.

The floor is what the three updates need at the least, in multiplications of
matrices, over the rate at which this machine multiplied matrices in this run.
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
    """What a step is taken on; the defaults are those that are reported.

    Arguments
    ---------
    batch, seconds, face_frames : number
        Clips, and what each of them has.
    d_model : int
        Of the network.
    width, layers : int
        Of the speech encoder.
    """

    batch: int = 8
    seconds: float = 2.5
    face_frames: int = 76
    d_model: int = 512
    width: int = 1024
    layers: int = 12

    @property
    def speech_frames(self):
        """Frames of the sound, as wav2vec 2.0 frames it: 124 of 2.5 s."""
        return int((self.seconds * RATE - 400) // 320) + 1


QUICK = Sizes(2, 0.5, 6, 32, 32, 1)
ADAM = {"lr": 5e-5, "betas": (0.95, 0.999), "weight_decay": 5e-7}


def make_batch(speech_frames, face_frames, width=1024):
    """Clips with random features, as our step takes them.

    Arguments
    ---------
    speech_frames, face_frames : list of int
        Of each clip.
    width : int
        Of a speech feature.

    Returns
    -------
    EmotionBatch
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


def conv_backward_flop(gradient, x, weight, *rest, out_shape=None, **more):
    """Operations of a convolution's two gradients, groups respected.

    Arguments
    ---------
    gradient, x, weight : sequence
        Shapes: of the output's gradient, the input and the weights.
    *rest, out_shape, **more
        Not used.

    Returns
    -------
    int
    """
    return 2 * 2 * math.prod(gradient) * math.prod(weight[1:])


class Ours:
    """Our step, on cached features.

    Arguments
    ---------
    schedule : str
        "sequential" or "joint".
    folder : str
        For what a brain writes.
    device : str
        Where.
    sizes : Sizes
        Of batch and network.
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
        """Floating-point operations of a step's products of matrices.

        Those of convolutions count as well; all else (norms, activations,
        dropout, Adam) counts as nothing.

        Returns
        -------
        int
        """
        from torch.utils.flop_counter import FlopCounterMode

        # PyTorch's own count of a depthwise convolution's gradients is that
        # of a full one.
        backward = torch.ops.aten.convolution_backward
        with FlopCounterMode(
            display=False, custom_mapping={backward: conv_backward_flop}
        ) as counter:
            self()
        return counter.get_total_flops()


class Released:
    """The released schedule, from its description.

    The speech encoder is in eval mode, its convolutions are frozen and the
    rest of it is not, though nothing ever moves it: gradients of all its
    weights are computed and added up. The audio-visual update has the network
    in eval mode but for its own head, goes back through all of it and the
    speech encoder, and moves that head alone.

    Arguments
    ---------
    device : str
        Where.
    sizes : Sizes
        Of batch and networks.
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
        own = parts.pop("audiovisual_head")
        self.rest = torch.optim.Adam(sum(parts.values(), []), **ADAM)
        self.fusion = torch.optim.Adam(own, **ADAM)
        self.device = device
        self.set_batch(sizes.batch, sizes.seconds, sizes.face_frames)

    def set_batch(self, clips, seconds, face_frames):
        """The clips of the next steps, all padded to one length.

        Arguments
        ---------
        clips : int
            How many.
        seconds : float
            Of sound.
        face_frames : int
            Of each clip.
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
        # It goes back through all layers, though one head learns from it.
        loss = classification_loss(out.audiovisual, self.labels)
        self._step(loss, self.fusion)

    def _update(self, out, modality):
        """Prediction and reconstruction of one modality."""
        loss = classification_loss(getattr(out, modality), self.labels)
        loss = loss + 2.0 * reconstruction_loss(
            getattr(out, f"{modality}_reconstruction"),
            getattr(out, f"{modality}_target"),
        )
        self._step(loss, self.rest)

    def _step(self, loss, optimizer):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def measure(folder, options):
    """All numbers of the report.

    Arguments
    ---------
    folder : str
        For what a brain writes.
    options : argparse.Namespace
        This program's.

    Returns
    -------
    dict
    """
    sizes = QUICK if options.quick else Sizes()
    where = options.device
    ours = Ours("sequential", folder, where, sizes)
    sides = {
        "ours": ours,
        "joint": Ours("joint", folder, where, sizes),
        "released_schedule": Released(where, sizes),
    }
    found, facts = timed(sides, options)
    tflop = ours.flop() / 1e12
    floor = tflop / facts["matrix_product_tflops"]
    return {
        "ours_step_s": found["ours"],
        "joint_step_s": found["joint"],
        "released_schedule_step_s": found["released_schedule"],
        "ratio": found["released_schedule"] / found["ours"],
        "joint_ratio": found["released_schedule"] / found["joint"],
        "floor_s": floor,
        "ours_over_floor": found["ours"] / floor,
        "joint_over_floor": found["joint"] / floor,
        "tflop": tflop,
        "repeats": options.repeats,
        **facts,
    }


def main(arguments=None):
    """Measures and prints.

    Arguments
    ---------
    arguments : list
        Command line without the program's name.
    """
    options = options_of("Times a training step.").parse_args(arguments)
    run(measure, options)


if __name__ == "__main__":
    main()
