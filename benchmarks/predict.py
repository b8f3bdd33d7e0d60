#!/usr/bin/env python3
"""Measures the time of each stage of a prediction, and its memory.

> python benchmarks/predict.py --json
> python benchmarks/predict.py --json --long 600

Predicts a clip of 3 s, 480 x 360 at 29.97 frames per second, five times after a
warm-up, with a model of the recipes' size: 12 layers of wav2vec2-large,
EfficientNet-B2 on 10 frames per second, face detection on 5. The weights are
random and the clip is synthetic, which affects only the number of face
candidates that reach the detector's last networks. Loading the model is not
timed.

With ``--long``, also predicts a clip of that many seconds, and compares the
peak memory of both clips in new processes.
"""

import argparse
import json
import time

import material
from measure import in_own_process, medians, options_of, peak_mb, run, timed

from vavl_sb.inference import EmotionRecognizer
from vavl_sb.lobes.vavl import VAVL

LABELS = ["angry", "disgust", "fear", "happy", "neutral", "sad"]
SECONDS = 3.0

# Set for fast training: they keep freed memory. Not set for predictions.
ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def make_model(folder, quick, device):
    """Creates an untrained EmotionRecognizer of the recipes' size, or a small
    one if ``quick``; writes its encoders to ``folder``."""
    encoder = material.feature_extractor(folder, quick, device)
    net = VAVL(
        audio_dim=encoder.audio_encoder.output_dim,
        num_outputs=len(LABELS),
        d_model=32 if quick else 512,
    )
    return EmotionRecognizer(
        modules={"vavl": net},
        hparams={
            "task": "classification",
            "labels": LABELS,
            "feature_extractor": encoder,
        },
        run_opts={"device": device},
    )


def by_stage(model, clip, options):
    """Times the stages of a prediction.

    Returns
    -------
    stages : dict
        Stage to median of the seconds.
    total : float
        Median seconds of a prediction.
    facts : dict
        From :func:`measure.timed`.
    """
    stages = {}

    def predict():
        analysis = model.analyze(clip, window=None, crops=0)
        for stage, seconds in analysis.profile.items():
            stages.setdefault(stage, []).append(seconds)

    median, facts = timed({"predict_file": predict}, options)
    stages = medians({s: seconds[1:] for s, seconds in stages.items()})
    return stages, median["predict_file"], facts


def peak(folder, clip, options):
    """Measures the ``peak_mb`` and ``seconds`` of a prediction in a new
    process."""
    words = ["--folder", folder, "--one", clip, "--device", options.device]
    words += ["--quick"] * options.quick
    return in_own_process(__file__, *words, without=ALLOCATOR)


def one(folder, clip, options):
    """Predicts a clip once and prints time and memory; started by
    :func:`peak`."""
    model = make_model(folder, options.quick, options.device)
    start = time.perf_counter()
    model.predict_file(clip)
    seconds = time.perf_counter() - start
    print(json.dumps({"peak_mb": peak_mb(), "seconds": seconds}))


def main(arguments=None):
    """Runs the benchmark and prints the results."""
    parser = options_of("Times predict_file.")
    parser.add_argument(
        "--long", type=float, help="seconds of a long clip, for memory"
    )
    parser.add_argument("--folder", help="keep clips and encoders there")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        one(options.folder, options.one, options)
        return
    run(measure, options, options.folder)


def measure(folder, options):
    """Measures all numbers of the report."""
    length = 1.0 if options.quick else SECONDS
    clip = material.long_clip(folder, length)
    model = make_model(folder, options.quick, options.device)
    stages, total, facts = by_stage(model, clip, options)
    result = {
        "clip_s": length,
        "predict_file_s": total,
        "share_of_the_clip": total / length,
        **{f"{s.replace(' ', '_')}_s": v for s, v in stages.items()},
        **facts,
    }
    if options.long:
        # Frees the memory for the new processes.
        del model
        short = peak(folder, clip, options)
        long = peak(folder, material.long_clip(folder, options.long), options)
        result |= {
            "long_clip_s": options.long,
            "long_predict_s": long["seconds"],
            "peak_mb": short["peak_mb"],
            "long_peak_mb": long["peak_mb"],
            "more_mb": long["peak_mb"] - short["peak_mb"],
        }
    return result


if __name__ == "__main__":
    main()
