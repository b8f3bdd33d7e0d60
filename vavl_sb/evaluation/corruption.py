"""What a clip can lose, and in which degrees: the conditions of a test.

Nothing here changes its input. What is chosen at random depends on a seed and
the clip's id alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from speechbrain.processing.signal_processing import (
    compute_amplitude,
    dB_to_amplitude,
)

from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.media.reader import read_audio
from vavl_sb.utils.errors import MediaError, VAVLError
from vavl_sb.utils.seeding import clip_generator, shuffled


def _silence_middle(samples, percent, *_):
    """Sound (n,) of the same length with digital silence in its middle.

    There are as many samples before as after it (or one more after).
    """
    count = _part(len(samples), percent)
    start = (len(samples) - count) // 2
    samples = samples.clone()
    samples[start : start + count] = 0.0
    return samples


def _cut_end(samples, percent, *_):
    """Sound (n,) without its end."""
    return samples[: len(samples) - _part(len(samples), percent)]


def _drop_frames(frames, percent, clip, seed, _):
    """Features of a face (T, D) without some frames, as if it was not seen.

    One is always left. What a smaller share drops, a larger one drops as well,
    since the generator is the same.
    """
    order = clip_generator(clip, seed, "face").permutation(len(frames))
    count = min(_part(len(frames), percent), len(frames) - 1)
    return frames[np.sort(order[count:])]


def _add_noise(samples, snr, clip, _, noise):
    """Sound (n,) with noise on top, at a signal-to-noise ratio in dB.

    The ratio is that of the root mean squares over the whole clip, pauses
    included, as SpeechBrain defines it. (Its ``AddNoise`` also turns down the
    sound, so that the level of the speech would change with the ratio.) The
    sum is not clipped.
    """
    noise = noise(clip, len(samples))
    level, noise_level = (
        compute_amplitude(x, amp_type="rms").squeeze() for x in (samples, noise)
    )
    return samples + noise * (level / noise_level / dB_to_amplitude(snr))


def make_noise(seed: int, path: str | Path | None = None) -> Callable:
    """A source of noise: white, or parts of a file, repeated where short.

    The seed chooses each clip's noise, or where in the file (any container with
    sound) it begins. Gives a function of clip id and n that gives samples (n,)
    at 16 kHz, the same at each call. MediaError: the file cannot be decoded, or
    is silent.
    """

    def white(clip, length):
        generator = clip_generator(clip, seed, "noise")
        noise = generator.standard_normal(length, dtype=np.float32)
        return torch.from_numpy(noise)

    if path is None:
        return white
    sound = read_audio(path)
    if sound is None:
        raise MediaError(f"{path}: no sound in it; give another noise file")
    # So that a part from the beginning is never zeros alone.
    sound = sound[sound.nonzero()[0, 0] :]

    def part(clip, length):
        start = clip_generator(clip, seed, "noise").integers(len(sound))
        noise = sound[(int(start) + torch.arange(length)) % len(sound)]
        if not noise.any():  # Zeros have no level that could be changed.
            noise = sound[torch.arange(length) % len(sound)]
        return noise

    return part


def lose_modality(clips: Iterable[str], percent: float, seed: int) -> dict:
    """Chooses clips, of ids that have both, that lose their sound or face.

    ``round(percent / 100 * n)`` of the n clips: id to "audio" or "visual",
    what it loses. Which ones depends on the seed and the ids alone. Those that
    a smaller share takes, a larger one takes as well, and they lose the same.
    Half of the chosen clips lose the sound, half the face (one more the sound,
    where their number is odd).

    Example
    -------
    >>> sorted(lose_modality(["a", "b", "c", "d"], 50, 1).values())
    ['audio', 'visual']
    """
    order = shuffled(clips, seed)
    chosen = order[: _part(len(order), percent)]
    return {clip: MODALITIES[rank % 2] for rank, clip in enumerate(chosen)}


def _part(count, percent):
    """How many of ``count`` things a share of them is."""
    return round(percent / 100 * count)


@dataclass(frozen=True)
class Condition:
    """One thing that clips can lose, in several degrees."""

    name: str  # as on the command line
    title: str  # what it does, for a table or a plot
    unit: str  # what a level counts
    # The degrees, the clean clip first: 0, or None where no number means clean.
    levels: tuple
    # Which input it changes; None: it only chooses which inputs there are.
    modality: str | None = None
    # (samples or frames, level, clip id, seed, noise) to the same, changed,
    # with noise from make_noise.
    corrupt: Callable | None = None


SOUND, SNR = "% of the sound", "SNR in dB"
SHARES, RATIOS = (0, 25, 50, 75), (None, 20, 10, 5, 0, -5)
ALL = (
    Condition("modalities", "Inputs the model gets", "", (None,)),
    Condition(
        *("missing", "Clips without sound or without a face", "% of clips"),
        (*SHARES, 100),
    ),
    Condition(
        *("face", "Face frames missing", "% of frames", (*SHARES, 90)),
        *("visual", _drop_frames),
    ),
    Condition(
        *("sound-middle", "Middle of the sound silent", SOUND, SHARES),
        *("audio", _silence_middle),
    ),
    Condition(
        *("sound-end", "End of the sound cut off", SOUND, SHARES),
        *("audio", _cut_end),
    ),
    Condition("noise", "Noise in the sound", SNR, RATIOS, "audio", _add_noise),
)
CONDITIONS = {condition.name: condition for condition in ALL}


def choose_conditions(names: list | None) -> list:
    """Conditions by name, each once, in the order of ``CONDITIONS``.

    A text may hold several names with commas between them. An empty list is
    for all conditions, None for none. VAVLError if there is no such condition.

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
    return [c for n, c in CONDITIONS.items() if n in wanted or not names]
