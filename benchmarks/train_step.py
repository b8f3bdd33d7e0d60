#!/usr/bin/env python3
"""One training step: ours against the schedule of the code released with VAVL.

> python benchmarks/train_step.py --json

Both sides have the same layers and the same batch: 8 clips of 2.5 s of sound
and 76 frames of face. Ours starts from cached features and takes the paper's
three updates; the joint schedule takes one. The released schedule is written
here from its description: the visual update; the speech encoder, gradients and
all, and the audio update; the speech encoder once more, and the audio-visual
loss sent back through everything. All sides run in turn in one process, fp32.

The floor is what the three updates need at the least, in multiplications of
matrices, over the rate at which this machine multiplied matrices in this run.

Authors
 * The vavl_sb authors 2026
"""

import argparse
import json
import os
import tempfile

import speechbrain as sb
import torch
from measure import MatrixProduct, interleaved, medians
from speechbrain.dataio.batch import PaddedBatch

from vavl_sb.lobes.vavl import VAVL
from vavl_sb.nnet.losses import classification_loss, reconstruction_loss
from vavl_sb.training.brain import VAVLBrain

BATCH, SECONDS, FACE_FRAMES, CLASSES = 8, 2.5, 76, 6
SPEECH_FRAMES = 124  # of 2.5 s at 50 a second, as wav2vec 2.0 frames them
RATE = 16000


def speech_encoder(layers=12):
    """wav2vec2-large-robust cut to its first layers, with random weights.

    Arguments
    ---------
    layers : int
        How many.

    Returns
    -------
    torch.nn.Module
    """
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        layerdrop=0.0,
        apply_spec_augment=False,
    )
    return Wav2Vec2Model(config)


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
    """

    def __init__(self, schedule, folder, device):
        net = VAVL(num_outputs=CLASSES)
        self.brain = VAVLBrain(
            modules={"vavl": net},
            opt_class=lambda p: torch.optim.Adam(p, 5e-5, (0.95, 0.999)),
            hparams={
                "task": "classification",
                "labels": list("abcdef"),
                "output_folder": folder,
            },
            run_opts={"device": device, "noprogressbar": True},
            prediction_loss=classification_loss,
            reconstruction_weight=2.0,
            schedule=schedule,
        )
        self.brain.init_optimizers()
        self.brain.on_stage_start(sb.Stage.TRAIN, 1)
        self.brain.nonfinite_count = 0
        self.brain.modules.train()
        self.batch = PaddedBatch(
            [
                {
                    "id": str(i),
                    "audio": torch.randn(SPEECH_FRAMES, 1024),
                    "has_audio": True,
                    "visual": torch.randn(FACE_FRAMES, 1408),
                    "has_visual": True,
                    "label": torch.tensor([i % CLASSES]),
                }
                for i in range(BATCH)
            ]
        )

    def __call__(self):
        """Takes the step."""
        self.brain.fit_batch(self.batch)

    def flop(self):
        """Multiply-adds of matrices in a step, as PyTorch counts them.

        Returns
        -------
        int
        """
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self()
        return counter.get_total_flops()


class Released:
    """The released schedule, from its description.

    Arguments
    ---------
    device : str
        Where.
    """

    def __init__(self, device):
        self.encoder = speech_encoder().to(device).train()
        self.net = VAVL(num_outputs=CLASSES).to(device).train()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=5e-5)
        samples = int(SECONDS * RATE)
        self.sound = torch.randn(BATCH, samples, device=device)
        self.faces = torch.randn(BATCH, FACE_FRAMES, 1408, device=device)
        self.labels = torch.arange(BATCH, device=device) % CLASSES

    def __call__(self):
        """Takes the step."""
        self._update(self.net(visual=self.faces), "visual")
        speech = self.encoder(self.sound).last_hidden_state
        self._update(self.net(audio=speech), "audio")
        speech = self.encoder(self.sound).last_hidden_state
        out = self.net(audio=speech, visual=self.faces)
        # It goes back through all layers, though one head learns from it.
        self._step(classification_loss(out.audiovisual, self.labels))

    def _update(self, out, modality):
        """Prediction and reconstruction of one modality."""
        loss = classification_loss(getattr(out, modality), self.labels)
        loss = loss + 2.0 * reconstruction_loss(
            getattr(out, f"{modality}_reconstruction"),
            getattr(out, f"{modality}_target").detach(),
        )
        self._step(loss)

    def _step(self, loss):
        self.optimizer.zero_grad()
        self.encoder.zero_grad()
        loss.backward()
        self.optimizer.step()


def main(arguments=None):
    """Measures and prints.

    Arguments
    ---------
    arguments : list
        Command line without the program's name.
    """
    parser = argparse.ArgumentParser(description="Times a training step.")
    parser.add_argument("--json", action="store_true", help="JSON alone")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours("sequential", folder, options.device)
        sides = {
            "ours": ours,
            "joint": Ours("joint", folder, options.device),
            "released_schedule": Released(options.device),
            "matrix_product": MatrixProduct(device=options.device),
        }
        seconds = interleaved(sides, options.repeats)
        flop = ours.flop()
    found = medians(seconds)
    rate = sides["matrix_product"].flop / found["matrix_product"]
    floor = flop / rate
    result = {
        "ours_step_s": found["ours"],
        "joint_step_s": found["joint"],
        "released_schedule_step_s": found["released_schedule"],
        "ratio": found["released_schedule"] / found["ours"],
        "joint_ratio": found["released_schedule"] / found["joint"],
        "floor_s": floor,
        "ours_over_floor": found["ours"] / floor,
        "joint_over_floor": found["joint"] / floor,
        "tflop": flop / 1e12,
        "matrix_product_tflops": rate / 1e12,
        "repeats": options.repeats,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "device": options.device,
        "torch": torch.__version__,
        "all_seconds": seconds,
    }
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        if isinstance(value, float):
            value = f"{value:.3f}"
        if name != "all_seconds":
            print(f"{name:<28}{value}")


if __name__ == "__main__":
    main()
