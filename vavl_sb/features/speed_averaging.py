"""A sound heard at several speeds: the mean of its features.

What one speed says by chance of a voice and its pitch averages out. This is
test-time augmentation, of features instead of predictions, in training as well
as in use. The speeds are those of :mod:`vavl_sb.features.speed`.

Authors
 * The vavl_sb authors 2026
"""

import numpy as np

from vavl_sb.features.speed import change_speed

# What is kept at the most of a sound at its speeds, for copies at the same.
KEPT_BYTES = 2**26


def mean_over_speeds(
    encode, samples, speeds, sample_rate, frame_rate, heard=None
):
    """Features of a sound, averaged over speeds.

    Arguments
    ---------
    encode : callable
        From samples (n,) to features, float32, shape (T, D).
    samples : torch.Tensor
        Shape (n,).
    speeds : sequence of number
        Percent. The frames are those at the first of them; the others' are
        interpolated to the same times. A speed at which the sound is too short
        to have a frame does not count.
    sample_rate, frame_rate : float
        Samples and frames a second.
    heard : dict
        What is found at each speed is kept in it, up to ``KEPT_BYTES``, and
        what it holds is not computed; None to keep nothing.

    Returns
    -------
    np.ndarray
        float32, shape (T, D).
    """
    total, count, own_times = 0.0, 0, None
    for speed in speeds:
        features = None if heard is None else heard.get(speed)
        if features is None:
            features = encode(change_speed(samples, speed))
            _keep(heard, speed, features)
        seconds = len(samples) / sample_rate * 100 / speed
        centres = frame_centres(len(features), frame_rate, seconds)
        times = centres * speed / 100
        if own_times is None:
            own_times = times
        elif len(features) > 0:
            features = at_times(features, times, own_times)
        else:
            continue
        total = total + features
        count += 1
    return total / count


def _keep(heard, speed, features):
    """Adds features to a dict, unless it then holds too much."""
    if heard is None:
        return
    kept = sum(found.nbytes for found in heard.values())
    if kept + features.nbytes <= KEPT_BYTES:
        heard[speed] = features


def frame_centres(count, frame_rate, seconds):
    """When the middle of each frame is.

    The last frame may hold less than the others, such as the mean of what is
    left.

    Arguments
    ---------
    count : int
        Frames.
    frame_rate : float
        Frames a second.
    seconds : float
        Length of the sound.

    Returns
    -------
    np.ndarray
        Seconds, shape (count,), rising.

    Example
    -------
    >>> frame_centres(3, frame_rate=1.0, seconds=2.5).tolist()
    [0.5, 1.5, 2.25]
    """
    starts = np.arange(count) / frame_rate
    ends = np.clip(starts + 1 / frame_rate, starts, np.maximum(starts, seconds))
    return (starts + ends) / 2


def at_times(features, times, wanted):
    """Features at other times: linear between frames, constant beyond them.

    Arguments
    ---------
    features : np.ndarray
        Shape (T, D), T above 0.
    times : np.ndarray
        Of the frames, rising, shape (T,).
    wanted : np.ndarray
        Shape (n,).

    Returns
    -------
    np.ndarray
        Shape (n, D), of the features' type.

    Example
    -------
    >>> ramp = np.array([[0.0], [2.0]])
    >>> at_times(ramp, [1.0, 2.0], [0.5, 1.5, 9.0]).ravel().tolist()
    [0.0, 1.0, 2.0]
    """
    if len(features) == 1:
        return features.repeat(len(wanted), axis=0)
    times, wanted = np.asarray(times), np.asarray(wanted)
    after = np.searchsorted(times, wanted).clip(1, len(times) - 1)
    gap = times[after] - times[after - 1]
    share = ((wanted - times[after - 1]) / gap).clip(0, 1)
    share = share[:, None].astype(features.dtype)
    return (1 - share) * features[after - 1] + share * features[after]
