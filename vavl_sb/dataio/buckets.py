"""Batches of clips of similar length: less padding, as random as can be.

Authors
 * The vavl_sb authors 2026
"""

import numpy as np
from speechbrain.dataio.sampler import DynamicBatchSampler


def bucket_sampler(dataset, batch_size, seed, num_buckets=20, epoch=0):
    """SpeechBrain's sampler by length, with batches of a fixed size.

    The clips are split by their duration into buckets of about as many clips
    each; every epoch shuffles each bucket, cuts it into batches and shuffles
    the batches of all buckets. Each clip comes once an epoch. The order is
    that of seed and epoch (``set_epoch``, which the brain calls).

    Arguments
    ---------
    dataset : DynamicItemDataset
        Its manifest has ``duration``, seconds above 0.
    batch_size : int
        Clips in a batch; what is left of a bucket makes a smaller one.
    seed : int
        Of the order.
    num_buckets : int
        At the most; no bucket is smaller than a batch where there are enough
        clips for one.
    epoch : int
        Whose order to start with.

    Returns
    -------
    DynamicBatchSampler
        To be given to a loader as ``batch_sampler``.

    Example
    -------
    >>> from speechbrain.dataio.dataset import DynamicItemDataset
    >>> data = {f"{i}": {"duration": 1.0 + i % 2} for i in range(8)}
    >>> batches = list(bucket_sampler(DynamicItemDataset(data), 4, seed=1))
    >>> sorted(sorted(batch) for batch in batches)
    [[0, 2, 4, 6], [1, 3, 5, 7]]
    """
    durations = [dataset.data[id]["duration"] for id in dataset.data_ids]
    count = max(1, min(num_buckets, len(durations) // batch_size))
    # Right ends of the buckets; the last one is that of the longest clip.
    ends = np.quantile(durations, np.arange(1, count + 1) / count)
    ends = np.unique(ends).tolist()
    return DynamicBatchSampler(
        dataset,
        # So long that the number of clips alone limits a batch.
        max_batch_length=(batch_size + 1) * max(durations),
        max_batch_ex=batch_size,
        bucket_boundaries=ends,
        length_func=lambda entry: entry["duration"],
        seed=seed,
        epoch=epoch,
    )


def train_loader_opts(options, dataset, bucket_batches, seed):
    """Loader options of training: in buckets where the YAML says so.

    Arguments
    ---------
    options : dict
        The YAML's ``train_dataloader_opts``; is left as it is.
    dataset : DynamicItemDataset
        The training clips.
    bucket_batches : bool
        Whether to use :func:`bucket_sampler`.
    seed : int
        Of its order.

    Returns
    -------
    dict
        For ``Brain.fit``.
    """
    options = dict(options)
    if not bucket_batches:
        return options
    options.pop("shuffle")  # A sampler of batches brings its own order.
    sampler = bucket_sampler(dataset, options.pop("batch_size"), seed)
    return {**options, "batch_sampler": sampler}


def padding_share(lengths, batches):
    """Share of a batch's frames that hold no clip, over all batches.

    Arguments
    ---------
    lengths : sequence
        Of each clip.
    batches : iterable of sequence of int
        Places of the clips in ``lengths``.

    Returns
    -------
    float
        In [0, 1).

    Example
    -------
    >>> round(padding_share([1.0, 2.0, 2.0], [[0, 1], [2]]), 3)  # of 6: 1
    0.167
    """
    held = total = 0.0
    for batch in batches:
        found = [lengths[place] for place in batch]
        held += sum(found)
        total += max(found) * len(found)
    return 1.0 - held / total
