#!/usr/bin/env python3
"""An epoch: batches of clips of similar length against file order.

> python benchmarks/epoch.py --json

The training clips of CREMA-D's first partition (4,080, with durations drawn
like the corpus's: 1.3 to 5 s, mean 2.5) in batches of 8: in file order, padded
to the longest of each batch, as the released code has it; and from the recipes'
``bucket_batches``. Padding is counted over all batches of three epochs. Time
is measured on a sample: of each order's batches, sorted by their frames, those
in the middle of the first, second, ... fifth fifth, all sides in turn, after a
warm-up; the mean over them times the number of batches is the epoch. That is
an estimate; a whole epoch of the released schedule would take hours here.

Ours starts from cached features, as every epoch does.

Authors
 * The vavl_sb authors 2026
"""

import statistics

import numpy as np
from measure import options_of, run, timed
from speechbrain.dataio.dataset import DynamicItemDataset
from train_step import QUICK, Ours, Released, Sizes, make_batch

from vavl_sb.dataio.buckets import bucket_sampler, padding_share

CLIPS = 4080
FACES_A_SECOND = 76 / 2.5


def draw_durations(count, seed=0):
    """Durations like CREMA-D's.

    Arguments
    ---------
    count : int
        How many.
    seed : int
        Of the draw.

    Returns
    -------
    list of float
        Seconds, 1.3 to 5, mean 2.5.

    Example
    -------
    >>> drawn = np.array(draw_durations(4000))
    >>> bool(abs(drawn.mean() - 2.5) < 0.05), bool(drawn.min() >= 1.3)
    (True, True)
    """
    random = np.random.default_rng(seed)
    drawn = random.lognormal(np.log(2.45), 0.2, count)
    return drawn.clip(1.3, 5.0).round(2).tolist()


def frames_of(duration):
    """Frames of speech and of the face in a clip.

    Arguments
    ---------
    duration : float
        Seconds.

    Returns
    -------
    speech, faces : int

    Example
    -------
    >>> frames_of(2.5)
    (124, 76)
    """
    return (
        Sizes(seconds=duration).speech_frames,
        round(duration * FACES_A_SECOND),
    )


def sample(batches, durations, count):
    """Batches that stand for all of an order.

    Arguments
    ---------
    batches : list of list of int
        Of clips.
    durations : list of float
        Of each clip.
    count : int
        How many to take.

    Returns
    -------
    list of list of float
        Durations of the clips in each.

    Example
    -------
    >>> sample([[0, 1], [2], [1, 3]], [1.0, 2.0, 3.0, 4.0], 1)
    [[1.0, 2.0]]
    """
    found = [[durations[i] for i in batch] for batch in batches]
    found.sort(key=lambda batch: max(batch) * len(batch))
    places = (np.arange(count) + 0.5) / count * len(found)
    return [found[int(place)] for place in places]


class Turns:
    """A side that takes the next batch of its sample at each call.

    Arguments
    ---------
    step : Ours or Released
        What takes the step.
    batches : list of list of float
        Durations; the first is taken twice, once to warm up.
    sizes : Sizes
        Of the networks.
    """

    def __init__(self, step, batches, sizes):
        self.step, self.sizes = step, sizes
        self.batches = iter([batches[0], *batches])

    def prepare(self):
        """Makes the next batch."""
        durations = next(self.batches)
        speech, faces = zip(*map(frames_of, durations), strict=True)
        if isinstance(self.step, Released):
            self.step.set_batch(len(durations), max(durations), max(faces))
        else:
            self.step.batch = make_batch(speech, faces, self.sizes.width)

    def __call__(self):
        """Takes a step."""
        self.step()


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
    size, count = sizes.batch, 40 if options.quick else CLIPS
    durations = draw_durations(count)
    clips = {f"{i:05}": {"duration": d} for i, d in enumerate(durations)}
    sampler = bucket_sampler(DynamicItemDataset(clips), size, seed=1)
    epochs = []
    for epoch in (1, 2, 3, 1):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    in_order = [
        list(range(i, min(i + size, count))) for i in range(0, count, size)
    ]
    file_order = sample(in_order, durations, options.repeats)
    bucketed = sample(epochs[0], durations, options.repeats)
    where = options.device
    ours = Ours("sequential", folder, where, sizes)
    joint = Ours("joint", folder, where, sizes)
    sides = {
        "released_file_order": (Released(where, sizes), file_order),
        "ours_file_order": (ours, file_order),
        "ours_bucketed": (ours, bucketed),
        "joint_bucketed": (joint, bucketed),
    }
    sides = {n: Turns(step, b, sizes) for n, (step, b) in sides.items()}
    _, facts = timed(sides, options)
    seconds = facts["all_seconds"]
    batches = dict.fromkeys(sides, len(epochs[0]))
    batches |= dict.fromkeys(
        ("released_file_order", "ours_file_order"), len(in_order)
    )
    whole = {n: statistics.mean(seconds[n]) * batches[n] for n in sides}
    released = whole["released_file_order"]
    return {
        "clips": count,
        "batches_file_order": len(in_order),
        "batches_bucketed": len(epochs[0]),
        "padding_file_order": padding_share(durations, in_order),
        "padding_bucketed": max(
            padding_share(durations, epoch) for epoch in epochs
        ),
        "shuffled_every_epoch": epochs[0] != epochs[1] != epochs[2],
        "repeatable_by_seed": epochs[0] == epochs[3],
        **{f"{name}_epoch_s": spent for name, spent in whole.items()},
        "ratio": released / whole["ours_bucketed"],
        "joint_ratio": released / whole["joint_bucketed"],
        "gain_of_buckets": whole["ours_file_order"] / whole["ours_bucketed"],
        **facts,
    }


def main(arguments=None):
    """Measures and prints.

    Arguments
    ---------
    arguments : list
        Command line without the program's name.
    """
    run(measure, options_of("Times an epoch.").parse_args(arguments))


if __name__ == "__main__":
    main()
