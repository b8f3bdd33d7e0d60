"""What a clip can lose: parts of its sound, faces, a modality; and noise.

Nothing here changes its input. Whatever is chosen by chance depends on a seed
and the clip's id alone.

Authors
 * The vavl_sb authors 2026
"""

import numpy as np
import torch
from speechbrain.processing.signal_processing import (
    compute_amplitude,
    dB_to_amplitude,
)

from vavl_sb.media.reader import read_audio
from vavl_sb.utils.errors import MediaError
from vavl_sb.utils.seeding import clip_generator, shuffled


def silence_middle(samples, percent):
    """Sound whose middle is digital silence; its length stays.

    Arguments
    ---------
    samples : torch.Tensor
        Shape (n,).
    percent : float
        ``round(percent / 100 * n)`` samples become 0, with the same number of
        samples before and after them (one more after, where it is odd).

    Returns
    -------
    torch.Tensor
        Shape (n,).

    Example
    -------
    >>> silence_middle(torch.ones(8), 50).tolist()
    [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    """
    count = _part(len(samples), percent)
    start = (len(samples) - count) // 2
    samples = samples.clone()
    samples[start : start + count] = 0.0
    return samples


def cut_end(samples, percent):
    """Sound that ends early.

    Arguments
    ---------
    samples : torch.Tensor
        Shape (n,).
    percent : float
        ``round(percent / 100 * n)`` samples at the end are cut off.

    Returns
    -------
    torch.Tensor
        Shape (n - cut,).

    Example
    -------
    >>> cut_end(torch.arange(4.0), 25).tolist()
    [0.0, 1.0, 2.0]
    """
    return samples[: len(samples) - _part(len(samples), percent)]


def drop_frames(frames, percent, generator):
    """Features of a face of which some frames are missing.

    They are gone from the sequence, as a frame without a face is. The frames
    that a smaller share takes, a larger one takes as well.

    Arguments
    ---------
    frames : np.ndarray
        Shape (T, D), T at least 1.
    percent : float
        ``round(percent / 100 * T)`` frames are dropped, but never the last
        one that is left.
    generator : numpy.random.Generator
        Chooses them; the same state for each share.

    Returns
    -------
    np.ndarray
        Shape (T - dropped, D), in the order of time.

    Example
    -------
    >>> frames = np.arange(4.0)[:, None]
    >>> len(drop_frames(frames, 50, np.random.default_rng(0)))
    2
    """
    order = generator.permutation(len(frames))
    count = min(_part(len(frames), percent), len(frames) - 1)
    return frames[np.sort(order[count:])]


def add_noise(samples, noise, snr):
    """Sound with noise on top; the sound itself keeps its level.

    The ratio is that of the root mean squares over the whole clip, pauses
    included, as SpeechBrain defines it. (Its ``AddNoise`` also turns down the
    sound, so that the level of the speech would change with the ratio.) The
    sum is not clipped.

    Arguments
    ---------
    samples : torch.Tensor
        Shape (n,).
    noise : torch.Tensor
        Shape (n,), of any level but 0.
    snr : float
        Signal-to-noise ratio, dB.

    Returns
    -------
    torch.Tensor
        Shape (n,).

    Example
    -------
    >>> add_noise(torch.ones(4), torch.tensor([1.0, -1.0, 1.0, -1.0]), 20.0)
    tensor([1.1000, 0.9000, 1.1000, 0.9000])
    """
    level, noise_level = (
        compute_amplitude(x, amp_type="rms").squeeze() for x in (samples, noise)
    )
    return samples + noise * (level / noise_level / dB_to_amplitude(snr))


class WhiteNoise:
    """White Gaussian noise, drawn for each clip.

    Arguments
    ---------
    seed : int
        Chooses the noise, with the clip's id.
    """

    def __init__(self, seed):
        self.seed = seed

    def __call__(self, clip, length):
        """Noise for a clip: the same at each ratio.

        Arguments
        ---------
        clip : str
            Its id.
        length : int
            Samples.

        Returns
        -------
        torch.Tensor
            Shape (length,).
        """
        generator = clip_generator(clip, self.seed, "noise")
        noise = generator.standard_normal(length, dtype=np.float32)
        return torch.from_numpy(noise)


class FileNoise:
    """Noise from a sound file: a part of it, or the file over and over.

    Arguments
    ---------
    path : str or Path
        Any container with sound; read at 16 kHz as clips are.
    seed : int
        Chooses where each clip's noise begins, with the clip's id.

    Raises
    ------
    MediaError
        The file cannot be decoded, or is silent.
    """

    def __init__(self, path, seed):
        samples = read_audio(path)
        if samples is None:
            raise MediaError(f"{path}: no sound in it; give another noise file")
        # So that a part from the beginning is never zeros alone.
        self.samples = samples[samples.nonzero()[0, 0] :]
        self.seed = seed

    def __call__(self, clip, length):
        """Noise for a clip: the same at each ratio.

        Arguments
        ---------
        clip : str
            Its id.
        length : int
            Samples.

        Returns
        -------
        torch.Tensor
            Shape (length,).
        """
        generator = clip_generator(clip, self.seed, "noise")
        start = int(generator.integers(len(self.samples)))
        at = (start + torch.arange(length)) % len(self.samples)
        noise = self.samples[at]
        if not noise.any():  # Zeros cannot be brought to any level.
            noise = self.samples[torch.arange(length) % len(self.samples)]
        return noise


def lose_modality(clips, percent, seed):
    """Chooses clips that lose their sound or their face.

    Which ones depends on the seed and the ids alone. Those that a smaller
    share takes, a larger one takes as well, and they lose the same. Half of
    the chosen clips lose the sound, half the face (one more the sound, where
    their number is odd).

    Arguments
    ---------
    clips : iterable of str
        Ids of clips that have both.
    percent : float
        ``round(percent / 100 * n)`` of the n clips are chosen.
    seed : int
        Chooses them.

    Returns
    -------
    dict
        Id of each chosen clip to what it loses, "audio" or "visual".

    Example
    -------
    >>> sorted(lose_modality(["a", "b", "c", "d"], 50, 1).values())
    ['audio', 'visual']
    """
    order = shuffled(clips, seed)
    chosen = order[: _part(len(order), percent)]
    return {
        clip: ("audio", "visual")[rank % 2] for rank, clip in enumerate(chosen)
    }


def _part(count, percent):
    """How many of ``count`` things a share of them is."""
    return round(percent / 100 * count)
