#!/usr/bin/env python3
"""Clips a second through decoding, faces and encoders, and where time goes.

> python benchmarks/features.py --json

Clips of the synthetic corpus (480 x 360, 29.97 frames a second, sound in a file
of its own, as in CREMA-D), or those of ``--data_folder``, are turned into
features as training's first run does it: EfficientNet-B2 at 10 pictures a
second, faces looked for 5 times a second, 12 layers of wav2vec2-large; random
weights. Once through in one process with all cores, stage by stage; and, for
``--processes``, the same clips shared out among so many processes with their
share of the cores each. The passes take turns, five times after a warm-up.
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
    """Features of some clips, as the cache gets them.

    Arguments
    ---------
    encoder : vavl_sb.features.extractor.FeatureExtractor
        What encodes.
    clips : list of (str, str)
        Sound and picture.
    watch : vavl_sb.features.extractor.Stopwatch
        Counts the stages.
    """
    watch = watch or Stopwatch()
    for sound, picture in clips:
        for files in ((sound, None), (None, picture)):
            for _ in encoder.chunks(*files, watch):
                pass


def worker(tasks, done, folder, options, threads):
    """A process that encodes lists of clips until it is told to stop.

    Arguments
    ---------
    tasks, done : multiprocessing.Queue
        Lists of clips come in, None at the end; True goes out for each.
    folder : str
        Of the speech encoder.
    options : argparse.Namespace
        This program's.
    threads : int
        For each operation.
    """
    torch.set_num_threads(threads)
    encoder = material.feature_extractor(folder, options.quick, options.device)
    done.put(True)
    while (clips := tasks.get()) is not None:
        encode(encoder, clips)
        done.put(True)


class Pool:
    """Processes that share the clips out among them.

    Arguments
    ---------
    count : int
        How many.
    folder : str
        Of the speech encoder.
    clips : list
        What a call encodes.
    options : argparse.Namespace
        This program's.
    """

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
    clips = find_clips(folder, options)
    seconds_of_clips = sum(probe(picture).duration for _, picture in clips)
    encoder = material.feature_extractor(folder, options.quick, options.device)
    watches = []

    def here():
        watches.append(Stopwatch())
        encode(encoder, clips, watches[-1])

    pools = {
        f"{count}_processes": Pool(count, folder, clips, options)
        for count in options.processes
    }
    found, facts = timed({"one_process": here, **pools}, options)
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
        **{f"{n}_clips_a_second": len(clips) / s for n, s in found.items()},
        **{
            f"{n}_times_real_time": seconds_of_clips / s
            for n, s in found.items()
        },
        **stages,
        **facts,
    }


def find_clips(folder, options):
    """Sound and picture of the clips to encode.

    Arguments
    ---------
    folder : str
        Where the synthetic ones are made.
    options : argparse.Namespace
        This program's.

    Returns
    -------
    list of (str, str)
    """
    if not options.data_folder:
        return material.corpus(folder, options.clips)
    pictures = sorted(Path(options.data_folder).glob("VideoFlash/*.flv"))
    sounds = Path(options.data_folder) / "AudioWAV"
    return [
        (str(sounds / f"{p.stem}.wav"), str(p))
        for p in pictures[: options.clips]
    ]


def main(arguments=None):
    """Measures and prints.

    Arguments
    ---------
    arguments : list
        Command line without the program's name.
    """
    parser = options_of("Times the features of clips.")
    parser.add_argument("--clips", type=int, default=6, help="at the most")
    parser.add_argument("--data_folder", help="of CREMA-D; else drawn clips")
    parser.add_argument(
        "--processes", type=int, nargs="*", default=[2], help="to scale to"
    )
    parser.add_argument("--folder", help="keep clips and encoder there")
    options = parser.parse_args(arguments)
    run(measure, options, options.folder)


if __name__ == "__main__":
    main()
