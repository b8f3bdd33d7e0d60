"""Speed perturbation: more training clips, spoken faster and slower.

Each training clip gets copies whose sound is resampled (Ko et al., "Audio augmentation
for speech recognition", Interspeech 2015), which moves pitch and formants as
another speaker would. The picture of a copy is that of the clip: the same
faces, shown faster or slower. Copies stand beside the clips, as in Kaldi, so
that features of a frozen encoder are computed once.

Authors
 * The vavl_sb authors 2026
"""

import math
from numbers import Real

import torchaudio

from vavl_sb.utils.errors import VAVLError

SLOWEST, FASTEST = 50, 200
# Each costs a pass of the speech encoder.
MOST = 10
# What tells a copy in the entries of a training set: percent.
FIELD = "speed_change"


def add_speeds(entries, speeds, taken=()):
    """Adds a copy of each clip, for each speed.

    A clip without sound is copied as it is, so that all clips train equally
    often.

    Arguments
    ---------
    entries : dict
        Clip id to entry: the training clips. Not changed.
    speeds : list of number
        Percent of the clip's own speed, 50 to 200; 100 adds nothing.
    taken : collection of str
        Ids of other clips, of validation and test.

    Returns
    -------
    dict
        Clip id to entry: the clips, then the copies. A copy of ``clip`` at 90
        percent is ``clip_sp0.9``; it lasts as much longer as it is slower.

    Raises
    ------
    VAVLError
        In one line: a speed is none, or a copy's id is that of a clip.

    Example
    -------
    >>> clip = {"wav": "a.wav", "video": None, "duration": 1.8}
    >>> copies = add_speeds({"a": clip}, [90, 100])
    >>> {id: entry["duration"] for id, entry in copies.items()}
    {'a': 1.8, 'a_sp0.9': 2.0}
    """
    result = dict(entries)
    for speed in check_speeds(speeds):
        for id, entry in entries.items():
            copy = f"{id}_sp{speed / 100:g}"
            if copy in result or copy in taken:
                raise VAVLError(
                    f"speed_changes: {copy} is the id of a clip already; "
                    "rename that clip, or leave speed_changes out"
                )
            duration = entry["duration"] * 100 / speed
            result[copy] = {**entry, "duration": duration, FIELD: speed}
    return result


def check_speeds(speeds, option="speed_changes"):
    """The speeds of an hparams file that change something.

    Arguments
    ---------
    speeds : list of number
        As for :func:`add_speeds`.
    option : str
        What an error calls them.

    Returns
    -------
    list of number
        Without 100, and int where they are whole, by which features are
        named. VAVLError, in one line, where a speed is none.
    """
    if not isinstance(speeds, (list, tuple)):
        raise VAVLError(
            f"{option}: must be a list of percentages such as [90, 110], "
            f"not {speeds!r}"
        )
    if len(speeds) > MOST:
        raise VAVLError(
            f"{option}: give {MOST} speeds at the most, not {len(speeds)}"
        )
    for speed in speeds:
        number = isinstance(speed, Real) and not isinstance(speed, bool)
        if not (
            number
            and SLOWEST <= speed <= FASTEST
            and math.isclose(10 * speed, round(10 * speed))
        ):
            raise VAVLError(
                f"{option}: {speed!r} is no speed; give percentages from "
                f"{SLOWEST} to {FASTEST}, in tenths at the finest, such as "
                "[90, 110]"
            )
    if len(set(speeds)) < len(speeds):
        raise VAVLError(f"{option}: a speed stands twice in {list(speeds)}")
    return [
        int(speed) if speed == int(speed) else speed
        for speed in speeds
        if speed != 100
    ]


def change_speed(samples, speed):
    """Sound that is faster or slower, and so higher or lower.

    Arguments
    ---------
    samples : torch.Tensor
        Shape (n,), at any sample rate.
    speed : number
        Percent of what it is, in tenths at the finest.

    Returns
    -------
    torch.Tensor
        Shape (ceil(100 n / speed),), at the same sample rate.

    Example
    -------
    >>> import torch
    >>> change_speed(torch.rand(1000), 80).shape
    torch.Size([1250])
    """
    if speed == 100 or len(samples) == 0:
        return samples
    # In tenths of a percent, since both rates must be whole numbers.
    return torchaudio.functional.resample(samples, round(10 * speed), 1000)
