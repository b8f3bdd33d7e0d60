"""Corruptions of clips, and the levels at which models are tested with them.

Inputs are not modified in place. Random choices depend only on the seed and the
id of the clip.
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
    """Replaces the middle of samples (n,) by zeros."""
    count = _part(len(samples), percent)
    start = (len(samples) - count) // 2
    samples = samples.clone()
    samples[start : start + count] = 0.0
    return samples


def _cut_end(samples, percent, *_):
    """Cuts off the end of samples (n,)."""
    return samples[: len(samples) - _part(len(samples), percent)]


def _drop_frames(frames, percent, clip, seed, _):
    """Drops random frames of visual features (T, D), but at least one is kept.

    The seed is the same at all levels, so that a higher level also drops the
    frames of a lower one.
    """
    order = clip_generator(clip, seed, "face").permutation(len(frames))
    count = min(_part(len(frames), percent), len(frames) - 1)
    return frames[np.sort(order[count:])]


def _add_noise(samples, snr, clip, _, noise):
    """Adds noise to samples (n,) at a signal-to-noise ratio in dB.

    The ratio is that of the RMS over the whole clip, pauses included, as in
    SpeechBrain, whose ``AddNoise`` would also lower the level of the speech.
    The sum is not clipped.
    """
    noise = noise(clip, len(samples))
    level, noise_level = (
        compute_amplitude(x, amp_type="rms").squeeze() for x in (samples, noise)
    )
    return samples + noise * (level / noise_level / dB_to_amplitude(snr))


def make_noise(seed: int, path: str | Path | None = None) -> Callable:
    """Returns a function of clip id and n that returns noise (n,) at 16 kHz.

    It is white noise, or a part of an audio file, repeated if it is too short.
    The seed and the clip id determine the noise, or where in the file it
    begins. Raises MediaError if the file cannot be decoded or is silent.
    """

    def white(clip, length):
        generator = clip_generator(clip, seed, "noise")
        noise = generator.standard_normal(length, dtype=np.float32)
        return torch.from_numpy(noise)

    if path is None:
        return white
    sound = read_audio(path)
    if sound is None:
        raise MediaError(f"{path}: contains no audio; give another noise file")
    # So that a part from the beginning is never zeros alone.
    sound = sound[sound.nonzero()[0, 0] :]

    def part(clip, length):
        start = clip_generator(clip, seed, "noise").integers(len(sound))
        noise = sound[(int(start) + torch.arange(length)) % len(sound)]
        if not noise.any():  # Digital silence cannot be scaled to a level.
            noise = sound[torch.arange(length) % len(sound)]
        return noise

    return part


def lose_modality(clips: Iterable[str], percent: float, seed: int) -> dict:
    """Chooses clips that lose a modality, among ids of clips that have both.

    Returns id to the modality lost, "audio" or "visual", for
    ``round(percent / 100 * n)`` of the n clips: half of them each, and the odd
    one "audio". The choice depends only on the seed and the ids. A higher
    percentage includes the choices of a lower one.

    Example
    -------
    >>> sorted(lose_modality(["a", "b", "c", "d"], 50, 1).values())
    ['audio', 'visual']
    """
    order = shuffled(clips, seed)
    chosen = order[: _part(len(order), percent)]
    return {clip: MODALITIES[rank % 2] for rank, clip in enumerate(chosen)}


def _part(count, percent):
    """Returns a percentage of ``count``, rounded."""
    return round(percent / 100 * count)


@dataclass(frozen=True)
class Condition:
    """A corruption and its levels."""

    name: str  # on the command line
    title: str  # in tables and figures
    unit: str  # of the levels
    levels: tuple  # the clean one first: 0, or None
    modality: str | None = None  # that it changes; None: it withholds inputs
    # (samples or frames, level, clip id, seed, noise) to samples or frames,
    # with noise from make_noise.
    corrupt: Callable | None = None


SOUND, SNR = "% of the sound", "SNR in dB"
SHARES, RATIOS = (0, 25, 50, 75), (None, 20, 10, 5, 0, -5)
ALL = (
    Condition("modalities", "Inputs the model gets", "", (None,)),
    Condition(
        "missing",
        "Clips without sound or without a face",
        "% of clips",
        (*SHARES, 100),
    ),
    Condition(
        "face",
        "Face frames missing",
        "% of frames",
        (*SHARES, 90),
        "visual",
        _drop_frames,
    ),
    Condition(
        "sound-middle",
        "Middle of the sound silent",
        SOUND,
        SHARES,
        "audio",
        _silence_middle,
    ),
    Condition(
        "sound-end",
        "End of the sound cut off",
        SOUND,
        SHARES,
        "audio",
        _cut_end,
    ),
    Condition("noise", "Noise in the sound", SNR, RATIOS, "audio", _add_noise),
)
CONDITIONS = {condition.name: condition for condition in ALL}


def choose_conditions(names: list | None) -> list:
    """Returns conditions by name, without duplicates, in the order of
    ``CONDITIONS``.

    A name may be a comma-separated list. An empty list means all conditions,
    None none. Raises VAVLError for an unknown name.

    Example
    -------
    >>> [c.name for c in choose_conditions(["noise,face", "noise"])]
    ['face', 'noise']
    """
    if names is None:
        return []
    chosen = [name for text in names for name in text.split(",") if name]
    for name in chosen:
        if name not in CONDITIONS:
            raise VAVLError(
                f"--conditions: {name} is not one of {', '.join(CONDITIONS)}"
            )
    return [c for n, c in CONDITIONS.items() if n in chosen or not names]
