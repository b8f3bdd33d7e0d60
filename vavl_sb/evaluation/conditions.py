"""The conditions that a model can be scored under, with their grids.

Authors
 * The vavl_sb authors 2026
"""

from collections.abc import Callable
from dataclasses import dataclass

from vavl_sb.evaluation.corruption import (
    add_noise,
    cut_end,
    drop_frames,
    silence_middle,
)
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.seeding import clip_generator


@dataclass(frozen=True)
class Condition:
    """One thing that clips can lose, in several degrees.

    Arguments
    ---------
    name : str
        As on the command line.
    title : str
        What it does, for a table or a plot.
    unit : str
        What a level counts.
    levels : tuple
        The degrees, the clean clip first: 0, or None where no number means
        clean.
    modality : str
        Which input it changes, "audio" or "visual"; None: none, it only
        chooses which inputs the model gets.
    corrupt : callable
        ``(samples or frames, level, clip, seed, noise)`` to the same, changed;
        ``noise(clip, length)`` gives samples.
    """

    name: str
    title: str
    unit: str
    levels: tuple
    modality: str | None = None
    corrupt: Callable | None = None


def _face(frames, percent, clip, seed, noise):
    """Each level with the same generator, so that choices are nested."""
    return drop_frames(frames, percent, clip_generator(clip, seed, "face"))


def _middle(samples, percent, clip, seed, noise):
    return silence_middle(samples, percent)


def _end(samples, percent, clip, seed, noise):
    return cut_end(samples, percent)


def _noise(samples, snr, clip, seed, noise):
    return add_noise(samples, noise(clip, len(samples)), snr)


CONDITIONS = {
    condition.name: condition
    for condition in (
        Condition("modalities", "Inputs the model gets", "", (None,)),
        Condition(
            "missing",
            "Clips without sound or without a face",
            "% of clips",
            (0, 25, 50, 75, 100),
        ),
        Condition(
            "face",
            "Face frames missing",
            "% of frames",
            (0, 25, 50, 75, 90),
            "visual",
            _face,
        ),
        Condition(
            "sound-middle",
            "Middle of the sound silent",
            "% of the sound",
            (0, 25, 50, 75),
            "audio",
            _middle,
        ),
        Condition(
            "sound-end",
            "End of the sound cut off",
            "% of the sound",
            (0, 25, 50, 75),
            "audio",
            _end,
        ),
        Condition(
            "noise",
            "Noise in the sound",
            "SNR in dB",
            (None, 20, 10, 5, 0, -5),
            "audio",
            _noise,
        ),
    )
}


def choose_conditions(names):
    """Conditions by name.

    Arguments
    ---------
    names : list of str
        Names, several in one with commas between them as well; empty for all
        conditions, None for none.

    Returns
    -------
    list of Condition
        Each once, in the order of ``CONDITIONS``.

    Raises
    ------
    VAVLError
        A name is not known.

    Example
    -------
    >>> [c.name for c in choose_conditions(["noise,face", "noise"])]
    ['face', 'noise']
    """
    if names is None:
        return []
    wanted = [name for text in names for name in text.split(",") if name]
    for name in wanted:
        if name not in CONDITIONS:
            raise VAVLError(
                f"--conditions: {name} is not one of {', '.join(CONDITIONS)}"
            )
    return [
        condition
        for name, condition in CONDITIONS.items()
        if name in wanted or not names
    ]
