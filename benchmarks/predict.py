#!/usr/bin/env python3
"""How long an answer takes, stage by stage, and how much memory.

> python benchmarks/predict.py --json
> python benchmarks/predict.py --json --long 600

A clip of 3 s, 480 x 360 at 29.97 frames a second, and a model of the recipes'
own size: 12 layers of wav2vec2-large, EfficientNet-B2 at 10 pictures a second,
faces looked for 5 times a second. The weights are random, and the clip is that
of a drawn face; neither changes what is computed, but for the number of faces
that the detector's last networks see. After a warm-up the clip is predicted
five times; loading the model is not in it.

With ``--long`` a clip of that many seconds is predicted as well, in a process
of its own, and the peak memory of both is compared.
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

# They keep freed memory, for the speed of training; who predicts a clip has
# not set them.
ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def make_model(folder, quick, device):
    """An untrained model of the recipes' size.

    Arguments
    ---------
    folder : str
        For the speech encoder.
    quick : bool
        A small one.
    device : str
        Where it runs.

    Returns
    -------
    vavl_sb.inference.EmotionRecognizer
    """
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
    """Seconds of the stages and of the whole.

    Arguments
    ---------
    model : vavl_sb.inference.EmotionRecognizer
        The model.
    clip : str
        The clip.
    options : argparse.Namespace
        This program's.

    Returns
    -------
    stages : dict
        Stage to the median of its seconds.
    whole : float
        That of all.
    facts : dict
        As :func:`measure.timed`.
    """
    stages = {}

    def predict():
        found = model.analyze(clip, window=None, crops=0)
        for stage, spent in found.profile.items():
            stages.setdefault(stage, []).append(spent)

    found, facts = timed({"predict_file": predict}, options)
    stages = medians({s: spent[1:] for s, spent in stages.items()})
    return stages, found["predict_file"], facts


def peak(folder, clip, options):
    """Peak memory of predicting a clip in a process of its own.

    Arguments
    ---------
    folder, clip : str
        Of the model, and the clip.
    options : argparse.Namespace
        This program's.

    Returns
    -------
    dict
        ``peak_mb`` and ``seconds``.
    """
    words = ["--folder", folder, "--one", clip, "--device", options.device]
    words += ["--quick"] * options.quick
    return in_own_process(__file__, *words, without=ALLOCATOR)


def one(folder, clip, options):
    """What :func:`peak` starts: predicts a clip once and prints.

    Arguments
    ---------
    folder, clip, options
        As for :func:`peak`.
    """
    model = make_model(folder, options.quick, options.device)
    start = time.perf_counter()
    model.predict_file(clip)
    seconds = time.perf_counter() - start
    print(json.dumps({"peak_mb": peak_mb(), "seconds": seconds}))


def main(arguments=None):
    """Measures and prints.

    Arguments
    ---------
    arguments : list
        Command line without the program's name.
    """
    parser = options_of("Times predict_file.")
    parser.add_argument(
        "--long", type=float, help="seconds of a long clip, for memory"
    )
    parser.add_argument("--folder", help="keep clips and encoder there")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        one(options.folder, options.one, options)
        return
    run(measure, options, options.folder)


def measure(folder, options):
    """All numbers of the report.

    Arguments
    ---------
    folder : str
        For clips and encoder.
    options : argparse.Namespace
        This program's.

    Returns
    -------
    dict
    """
    length = 1.0 if options.quick else SECONDS
    clip = material.long_clip(folder, length)
    model = make_model(folder, options.quick, options.device)
    stages, whole, facts = by_stage(model, clip, options)
    result = {
        "clip_s": length,
        "predict_file_s": whole,
        "share_of_the_clip": whole / length,
        **{f"{s.replace(' ', '_')}_s": v for s, v in stages.items()},
        **facts,
    }
    if options.long:
        # Not beside a model that is in memory already.
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
