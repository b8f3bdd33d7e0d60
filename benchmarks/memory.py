#!/usr/bin/env python3
"""Measures the growth of memory with the size of the corpus.

> python benchmarks/memory.py --json

Extracts features of corpora of 200, 2,000 and 20,000 clips, then trains on
them, each in a new process, and reports the peak memory. Extraction hashes each
clip, computes or looks up its features and writes the index. Training runs
SpeechBrain's loop over the cached features for one epoch and scores the clips
once. The features are log-mel of one second of audio, so that it takes minutes.
There are eight different recordings; each clip is a separate file (a hard
link), so that all data per clip are kept.
"""

import argparse
import os
import tempfile
import wave
from pathlib import Path

import numpy as np
import torch
from measure import in_own_process, machine, options_of, peak_mb, report
from recipe import make_brain
from speechbrain.utils.epoch_loop import EpochCounter

from vavl_sb.dataio.datasets import emotion_datasets, read_entries
from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.cache import read_index
from vavl_sb.features.extraction import extract_features
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.utils.files import write_json

LABELS = ["angry", "happy", "sad"]
COUNTS = (200, 2000, 20000)
RATE = 16000


class NoFaces(torch.nn.Module):
    """Placeholder for the visual encoder: the clips have no video."""

    output_dim = 8

    def fingerprint(self):
        """Returns a name for the cache."""
        return "none"


def make_corpus(folder, count):
    """Writes ``count`` clips of one second of noise, and their manifest."""
    random = np.random.default_rng(0)
    (folder / "wav").mkdir(parents=True)
    for place in range(8):
        noise = random.normal(0, 3000, RATE).astype("<i2")
        with wave.open(str(folder / f"{place}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", "NONE"))
            file.writeframes(noise.tobytes())
    entries = {}
    for number in range(count):
        name = f"clip{number:06}"
        os.link(folder / f"{number % 8}.wav", folder / "wav" / f"{name}.wav")
        entries[name] = {
            "wav": f"{{data_root}}/wav/{name}.wav",
            "video": None,
            "duration": 1.0,
            "spk_id": str(number % 91),
            "emotion": LABELS[number % len(LABELS)],
        }
    write_json(folder / "train.json", entries)


def read(folder):
    """Reads the manifest as a recipe does."""
    return read_entries(
        folder / "train.json", str(folder), "classification", LABELS
    )


def prepare(folder):
    """Extracts the features of all clips."""
    extract_features(
        [read(folder)],
        FeatureExtractor(AudioEncoder("logmel"), NoFaces(), FaceTracker(None)),
        folder / "features",
        folder / "index.json",
        folder / "report.json",
    )


def train(folder):
    """Trains on all clips for one epoch and scores them."""
    entries = read(folder)
    datasets = emotion_datasets(
        {"train": entries, "test": entries},
        read_index(folder / "index.json"),
        "classification",
        LABELS,
        {"audio": 80, "visual": 8},
        folder / "features",
    )
    net = VAVL(
        80, 8, len(LABELS), d_model=16, encoder_layers=1, shared_layers=1
    )
    counter = EpochCounter(1)
    brain = make_brain(net, LABELS, str(folder / "output"))
    options = {"batch_size": 64}
    brain.fit(
        counter,
        datasets["train"],
        None,
        train_loader_kwargs={**options, "shuffle": True},
    )
    brain.evaluate(datasets["test"], test_loader_kwargs=options)


def peak(stage, folder):
    """Measures the peak memory, in MiB, of a stage ("prepare" or "train") in a
    new process."""
    words = ["--stage", stage, "--folder", str(folder)]
    return in_own_process(__file__, *words)


def main(arguments=None):
    """Runs the benchmark and prints the results."""
    parser = options_of("Peak memory by the size of the corpus.")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.stage:
        {"prepare": prepare, "train": train}[options.stage](options.folder)
        print(peak_mb())
        return
    counts = (16, 48) if options.quick else COUNTS
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            corpus = Path(folder) / str(count)
            make_corpus(corpus, count)
            for stage in ("prepare", "train"):
                result[f"{stage}_{count}_mb"] = peak(stage, corpus)
    for stage in ("prepare", "train"):
        peaks = [result[f"{stage}_{count}_mb"] for count in counts]
        result[f"{stage}_growth"] = peaks[-1] / peaks[0] - 1
    report({**result, **machine(options.device)}, options.json)


if __name__ == "__main__":
    main()
