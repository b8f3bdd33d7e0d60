"""Batches of clips of similar length."""

import numpy as np
import pytest
from speechbrain.dataio.dataset import DynamicItemDataset

from vavl_sb.dataio.buckets import (
    bucket_sampler,
    padding_share,
    train_loader_opts,
)


def clips(count=2000, seed=0):
    """A dataset with durations like CREMA-D's, and the durations."""
    durations = np.random.default_rng(seed).normal(2.5, 0.5, count)
    durations = durations.clip(1.3, 5.0).round(2).tolist()
    data = {f"{i:05}": {"duration": d} for i, d in enumerate(durations)}
    return DynamicItemDataset(data), durations


def test_each_clip_comes_once_an_epoch_with_little_padding():
    dataset, durations = clips()
    sampler = bucket_sampler(dataset, 32, seed=0)
    in_order = [range(i, min(i + 32, 2000)) for i in range(0, 2000, 32)]
    assert padding_share(durations, in_order) > 0.25
    for epoch in (1, 2, 3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert sorted(sum(batches, [])) == list(range(2000))
        assert max(map(len, batches)) == 32
        # Nearly all are full: a bucket leaves one smaller batch at the most.
        assert sum(len(batch) < 32 for batch in batches) <= 20
        assert padding_share(durations, batches) < 0.08


def test_the_order_is_that_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = bucket_sampler(clips()[0], 16, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)
    # Long and short batches take turns, and clips change their batch-mates.
    _, durations = clips()
    longest = [max(durations[i] for i in batch) for batch in order(1, 1)]
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.3
    mates = [
        next(set(batch) for batch in order(1, epoch) if 7 in batch)
        for epoch in (1, 2)
    ]
    assert len(mates[0] & mates[1]) < 12


@pytest.mark.parametrize("count", [1, 5, 40])
def test_few_clips_and_equal_lengths(count):
    data = {f"{i}": {"duration": 2.0} for i in range(count)}
    batches = list(bucket_sampler(DynamicItemDataset(data), 8, seed=0))
    assert sorted(sum(batches, [])) == list(range(count))
    assert len(batches) == -(-count // 8)


def test_the_switch_of_the_recipes():
    dataset, _ = clips(100)
    given = {"batch_size": 8, "shuffle": True, "num_workers": 2}
    plain = train_loader_opts(given, dataset, False, seed=1)
    assert plain == given
    found = train_loader_opts(given, dataset, True, seed=1)
    assert set(found) == {"num_workers", "batch_sampler"}
    assert max(map(len, found["batch_sampler"])) == 8
    assert given["batch_size"] == 8  # The YAML's own is left as it is.
