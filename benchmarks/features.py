#!/usr/bin/env python3
"""Measures the throughput of feature extraction, and the time of each stage.

> python benchmarks/features.py --json

Extracts features of clips of the synthetic corpus (480 x 360, 29.97 frames per
second, audio in separate files, as in CREMA-D), or of ``--data_folder``, with
the recipes' encoders and random weights: EfficientNet-B2 on 10 frames per
second, face detection on 5, 12 layers of wav2vec2-large. One process uses all
cores and times each stage; for each number in ``--processes``, that many
processes share the clips and cores. The variants are timed in turn, five times
after a warm-up.
"""

import multiprocessing
import queue
import statistics
from pathlib import Path

import material
import torch
from measure import options_of, run, timed

from vavl_sb.features.extractor import Stopwatch
from vavl_sb.media.reader import probe

STAGES = ("decode", "faces", "audio encoder", "visual encoder")


def encode(encoder, clips, watch=None):
    """Extracts the features of clips, as for the cache.

    Arguments
    ---------
    encoder : vavl_sb.features.extractor.FeatureExtractor
        Feature extractor.
    clips : list of (str, str)
        Audio and video file of each clip.
    watch : vavl_sb.features.extractor.Stopwatch
        Times the stages.
    """
    watch = watch or Stopwatch()
    for audio, video in clips:
        for files in ((audio, None), (None, video)):
            for _ in encoder.chunks(*files, watch):
                pass


def worker(tasks, done, folder, options, threads):
    """Encodes lists of clips in a worker process.

    The queue ``tasks`` has lists of clips, then None; ``done`` gets True when
    the process is ready, and after each list.
    """
    torch.set_num_threads(threads)
    encoder = material.feature_extractor(folder, options.quick, options.device)
    done.put(True)
    while (clips := tasks.get()) is not None:
        encode(encoder, clips)
        done.put(True)


class Pool:
    """``count`` worker processes that share the clips."""

    def __init__(self, count, folder, clips, options):
        context = multiprocessing.get_context("spawn")
        self.tasks = [context.Queue() for _ in range(count)]
        self.done = context.Queue()
        self.clips = clips
        threads = max(1, torch.get_num_threads() // count)
        self.processes = [
            context.Process(
                target=worker,
                args=(tasks, self.done, folder, options, threads),
                daemon=True,
            )
            for tasks in self.tasks
        ]
        for process in self.processes:
            process.start()
        self._wait()

    def __call__(self):
        """Encodes all clips once."""
        for place, tasks in enumerate(self.tasks):
            tasks.put(self.clips[place :: len(self.tasks)])
        self._wait()

    def close(self):
        """Ends the processes."""
        for tasks in self.tasks:
            tasks.put(None)
        for process in self.processes:
            process.join()

    def _wait(self):
        for _ in self.tasks:
            while True:
                try:
                    self.done.get(timeout=5)
                    break
                except queue.Empty:
                    if not all(p.is_alive() for p in self.processes):
                        raise SystemExit("a worker process died") from None


def measure(folder, options):
    """Measures all numbers of the report."""
    clips = find_clips(folder, options)
    seconds_of_clips = sum(probe(video).duration for _, video in clips)
    encoder = material.feature_extractor(folder, options.quick, options.device)
    watches = []

    def here():
        watches.append(Stopwatch())
        encode(encoder, clips, watches[-1])

    pools = {
        f"{count}_processes": Pool(count, folder, clips, options)
        for count in options.processes
    }
    seconds, facts = timed({"one_process": here, **pools}, options)
    for pool in pools.values():
        pool.close()
    stages = {
        f"{stage.replace(' ', '_')}_s_a_clip": statistics.median(
            watch.seconds[stage] for watch in watches[1:]
        )
        / len(clips)
        for stage in STAGES
    }
    return {
        "clips": len(clips),
        "seconds_of_clips": seconds_of_clips,
        **{f"{n}_clips_a_second": len(clips) / s for n, s in seconds.items()},
        **{
            f"{n}_times_real_time": seconds_of_clips / s
            for n, s in seconds.items()
        },
        **stages,
        **facts,
    }


def find_clips(folder, options):
    """Lists the audio and video file of each clip to encode."""
    if not options.data_folder:
        return material.corpus(folder, options.clips)
    videos = sorted(Path(options.data_folder).glob("VideoFlash/*.flv"))
    folder = Path(options.data_folder) / "AudioWAV"
    return [
        (str(folder / f"{video.stem}.wav"), str(video))
        for video in videos[: options.clips]
    ]


def main(arguments=None):
    """Runs the benchmark and prints the results."""
    parser = options_of("Times the features of clips.")
    parser.add_argument("--clips", type=int, default=6, help="at most")
    parser.add_argument(
        "--data_folder", help="of CREMA-D; default: synthetic clips"
    )
    parser.add_argument(
        "--processes",
        type=int,
        nargs="*",
        default=[2],
        help="numbers of processes to time",
    )
    parser.add_argument("--folder", help="keep clips and encoders there")
    options = parser.parse_args(arguments)
    run(measure, options, options.folder)


if __name__ == "__main__":
    main()
