"""A source-filter synthesizer for the twelve sentences of CREMA-D.

A pulse train and noise (source: vocal folds and breath) are filtered by a chain
of formant resonators (tongue and lips), after Klatt, "Software for a
cascade/parallel formant synthesizer", JASA 67(3), 1980. Words are not always
intelligible; the voice has the acoustic cues of emotion.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from synthetic.phones import HOP, SAMPLE_RATE, SENTENCES, smooth, write_score

# Axes of a speaking style; 0 is neutral.
AXES = (
    "pitch",  # semitones above the speaker's own
    "range",  # octaves by which the speaker's pitch range grows
    "rate",  # natural logarithm of the tempo
    "level",  # dB
    "tilt",  # brightness; 4 doubles the source's bandwidth
    "breath",  # dB of aspiration noise
    "spread",  # lips: natural logarithm of the factor on the formants
)
FFT = 1024  # the filters ring for less than the 44 ms after a window


@dataclass(frozen=True)
class Voice:
    """The voice of one speaker.

    Arguments
    ---------
    f0 : float
        Mean pitch in Hz.
    tract : float
        Factor of the formants, 1 for the mean man (0.95..1.25).
    level, tilt, breath : float
        Offsets on the axes of the same name (``AXES``).
    """

    f0: float
    tract: float
    level: float = 0.0
    tilt: float = 0.0
    breath: float = 0.0


def draw_voice(rng, female):
    """Draws a voice at random.

    Arguments
    ---------
    rng : numpy.random.Generator
        Source of random numbers.
    female : bool
        True: pitch around 205 instead of 118 Hz, shorter vocal tract.

    Returns
    -------
    Voice

    Example
    -------
    >>> draw_voice(np.random.default_rng(0), female=True).f0 > 150
    True
    """
    return Voice(
        f0=float((205 if female else 118) * 2 ** rng.normal(0, 0.1)),
        tract=float((1.16 if female else 1.0) * rng.uniform(0.96, 1.04)),
        level=float(rng.normal(0, 1)),
        tilt=float(rng.normal(0, 0.6)),
        breath=float(rng.normal(0, 1)),
    )


@dataclass(frozen=True)
class Utterance:
    """A spoken sentence.

    Arguments
    ---------
    samples : numpy.ndarray
        Shape (n,), float32 in [-1, 1] at ``SAMPLE_RATE``.
    f0, voicing, jaw : numpy.ndarray
        Shape (frames,), one value per ``HOP`` samples: pitch in Hz, amplitude
        of voicing (0..1) and jaw opening (0..1).
    """

    samples: np.ndarray
    f0: np.ndarray
    voicing: np.ndarray
    jaw: np.ndarray


def _pitch(score, voice, style, rng):
    """Computes the pitch of each control frame in Hz."""
    frames = len(score.voicing)
    wander = 1.2 * smooth(rng.normal(0, 1, frames), 40)
    fall = 0.5 - np.arange(frames) / frames  # a statement ends lower
    span = 2.8 * 2.0 ** style["range"]
    semitones = style["pitch"] + span * (score.stress - 0.35 + wander)
    pitch = voice.f0 * 2.0 ** ((semitones + 2 * fall) / 12)
    return np.clip(pitch, 60, 600)


def _pulses(pitch, bandwidth, rng):
    """Generates a pulse train of unit power with harmonics that decay as
    exp(-f/bandwidth).

    It is the closed form of the series ``sum r^k cos(k phase)``, so that the
    pulses are smooth and have little aliasing.
    """
    pitch = pitch * (1 + 0.01 * smooth(rng.normal(0, 1, len(pitch)), 160))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    r = np.exp(-pitch / bandwidth)
    pulse = (r * np.cos(phase) - r**2) / (1 - 2 * r * np.cos(phase) + r**2)
    return pulse / np.sqrt(0.5 * r**2 / (1 - r**2))


def _resonate(source, formants, tract):
    """Applies Klatt's resonators with formants that vary over control frames.

    Overlap-add: each window is filtered in the frequency domain by the formants
    at its middle. Changing a recursive filter step by step would crackle.
    """
    frames = formants.shape[1]
    fixed = np.tile([[3300.0], [4250.0], [5400.0]], (1, frames))
    centre = np.clip(np.concatenate([formants, fixed]) * tract, 120, 7300)
    width = np.array([70, 95, 140, 220, 320, 480])[:, None]
    c = -np.exp(-2 * np.pi * width / SAMPLE_RATE) * np.ones_like(centre)
    b = 2 * np.sqrt(-c) * np.cos(2 * np.pi * centre / SAMPLE_RATE)
    delay = np.exp(-2j * np.pi * np.arange(FFT // 2 + 1) / FFT)
    response = np.ones((frames, len(delay)), complex)
    for b_, c_ in zip(b[:, :, None], c[:, :, None], strict=True):
        response *= (1 - b_ - c_) / (1 - b_ * delay - c_ * delay**2)
    # Hann windows that overlap fourfold sum to 2.
    length = 4 * HOP
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    before = (length - HOP) // 2
    padded = np.pad(source, (before, length))
    at = np.arange(frames)[:, None] * HOP + np.arange(length)
    spectra = np.fft.rfft(padded[at] * (window / 2), FFT) * response
    out = np.zeros(frames * HOP + FFT)
    for frame, part in enumerate(np.fft.irfft(spectra, FFT)):
        out[frame * HOP : frame * HOP + FFT] += part
    return out[before : before + len(source)]


def speak(sentence, voice, style, rng):
    """Synthesizes a sentence.

    Arguments
    ---------
    sentence : str
        Key of ``SENTENCES``.
    voice : Voice
        Voice of the speaker.
    style : dict
        Values of ``AXES``, by default 0.
    rng : numpy.random.Generator
        Source of random numbers.

    Returns
    -------
    Utterance
        1.3 to 2.2 seconds long, with short pauses at both ends.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> utterance = speak("DFA", draw_voice(rng, True), {"pitch": 3.0}, rng)
    >>> 1.3 <= len(utterance.samples) / SAMPLE_RATE <= 2.2
    True
    """
    style = {axis: float(style.get(axis, 0.0)) for axis in AXES}
    lead, tail = rng.uniform(0.1, 0.2, 2)
    seconds = 0.95 + 0.024 * len(SENTENCES[sentence].split())
    seconds *= np.exp(-style["rate"])
    seconds = np.clip(seconds, 1.3 - lead - tail, 2.19 - lead - tail)
    score = write_score(sentence, seconds, lead, tail, rng)
    frames = len(score.voicing)
    at = (np.arange(frames * HOP) - HOP / 2) / HOP

    def upsample(track):
        return np.interp(at, np.arange(frames), track)

    f0 = _pitch(score, voice, style, rng)
    bandwidth = 1900 * 2.0 ** ((style["tilt"] + voice.tilt) / 4)
    voicing = upsample(score.voicing)
    breath = 10 ** ((-14 + style["breath"] + voice.breath) / 20)
    noise = np.diff(rng.normal(0, 0.7, len(voicing) + 1))
    source = voicing * (_pulses(upsample(f0), bandwidth, rng) + breath * noise)
    tract = voice.tract * np.exp(style["spread"])
    sound = _resonate(source, score.formants, tract)
    sound = lfilter([1, -0.94], 1, sound)  # radiation from the lips
    loudness = np.sqrt(np.mean(sound[voicing > 0.5] ** 2))
    hiss = np.diff(rng.normal(0, 0.7, len(voicing) + 1))
    sound = sound / loudness + 0.22 * hiss * upsample(score.hiss)
    sound *= 10 ** ((-33 + style["level"] + voice.level) / 20)
    sound += rng.normal(0, 10 ** (-76 / 20), len(sound))  # the room
    sound *= min(1.0, 0.95 / np.abs(sound).max())
    return Utterance(sound.astype(np.float32), f0, score.voicing, score.jaw)
