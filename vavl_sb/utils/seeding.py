"""Choices by chance that depend on a seed and a clip's id alone.

A choice made so is the same in any order of the clips, and for one clip it
does not move when another comes or goes.

Authors
 * The vavl_sb authors 2026
"""

import hashlib

import numpy as np


def shuffled(clips, seed):
    """Ids in an order that depends on the seed and the ids alone.

    Arguments
    ---------
    clips : iterable of str
        Ids, in any order.
    seed : int
        Chooses the order.

    Returns
    -------
    list of str

    Example
    -------
    >>> shuffled(["a", "b", "c"], 1) == shuffled(["c", "a", "b"], 1)
    True
    """
    return sorted(clips, key=lambda clip: _digest(f"{seed}:{clip}"))


def clip_generator(clip, seed, purpose):
    """Random numbers for one clip.

    Arguments
    ---------
    clip : str
        Its id.
    seed : int
        Chooses the numbers.
    purpose : str
        What they are for: two purposes have nothing in common.

    Returns
    -------
    numpy.random.Generator

    Example
    -------
    >>> first = clip_generator("a", 1, "noise").random()
    >>> first == clip_generator("a", 1, "noise").random()
    True
    """
    digest = _digest(f"{seed}:{purpose}:{clip}")
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _digest(text):
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).digest()
