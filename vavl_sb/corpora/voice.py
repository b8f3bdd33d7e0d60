"""A source-filter voice that says the twelve sentences of CREMA-D.

A pulse train and noise (the source: folds and breath) pass a chain of formant
resonators (the filter: tongue and lips), after Klatt, "Software for a
cascade/parallel formant synthesizer", JASA 67(3), 1980. It is not meant to be
understood word by word; it has what carries emotion in a voice: pitch and its
movement, loudness, tempo, spectral tilt, breath, roughness and tremor.

Authors
 * The vavl_sb authors 2026
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from vavl_sb.corpora.phones import (
    BANDS,
    HOP,
    SAMPLE_RATE,
    SENTENCES,
    smooth,
    write_score,
)

_FFT = 1024  # the filters ring for less than the 44 ms beyond a window

# Axis of a speaking style: unit. All are 0 in a plain voice.
VOICE_AXES = (
    "pitch",  # semitones above the speaker's own
    "range",  # octaves by which the speaker's pitch range grows
    "slope",  # semitones from the first to the last sound
    "rate",  # natural logarithm of the tempo
    "level",  # dB
    "tilt",  # brightness, 4 a doubling of the source's bandwidth
    "breath",  # dB of aspiration noise
    "rough",  # 0..1: uneven cycles
    "tremor",  # 0..1: pitch and loudness shake at about 6 Hz
    "spread",  # lips: natural logarithm by which they raise the formants
)


@dataclass(frozen=True)
class Speaker:
    """The voice of one talker.

    Arguments
    ---------
    f0 : float
        Mean pitch in Hz.
    tract : float
        Formants relative to a man's of mean size (0.92..1.25).
    rate, level, tilt, breath : float
        Offsets on the axes of the same name (``VOICE_AXES``).
    span : float
        Pitch range of the talker in semitones.
    noise : float
        Level of the room's noise in dB below full scale.
    """

    f0: float
    tract: float
    rate: float
    level: float
    tilt: float
    breath: float
    span: float
    noise: float


def draw_speaker(rng, female):
    """Draws a speaker at random.

    Arguments
    ---------
    rng : numpy.random.Generator
        Source of chance.
    female : bool
        Pitch around 205 rather than 118 Hz, shorter vocal tract.

    Returns
    -------
    Speaker

    Example
    -------
    >>> draw_speaker(np.random.default_rng(0), female=True).f0 > 150
    True
    """
    return Speaker(
        f0=float((205 if female else 118) * 2 ** rng.normal(0, 0.11)),
        tract=float((1.16 if female else 1.0) * rng.uniform(0.95, 1.05)),
        rate=float(rng.normal(0, 0.06)),
        level=float(rng.normal(0, 1.2)),
        tilt=float(rng.normal(0, 0.7)),
        breath=float(rng.normal(1.5 if female else 0, 1.2)),
        span=float(rng.uniform(2.2, 3.4)),
        noise=float(rng.uniform(-80, -72)),
    )


@dataclass(frozen=True)
class Utterance:
    """One spoken sentence.

    Arguments
    ---------
    samples : numpy.ndarray
        ``(n,)`` float32 in [-1, 1] at ``SAMPLE_RATE``.
    f0 : numpy.ndarray
        ``(frames,)`` pitch in Hz of each control frame of ``HOP`` samples.
    voiced : numpy.ndarray
        ``(frames,)`` amplitude of voicing, 0..1.
    jaw, rounding : numpy.ndarray
        ``(frames,)`` opening of the mouth and rounding of the lips, 0..1.
    """

    samples: np.ndarray
    f0: np.ndarray
    voiced: np.ndarray
    jaw: np.ndarray
    rounding: np.ndarray


def _pitch(score, speaker, style, rng):
    """Pitch of each control frame in Hz."""
    spoken = np.flatnonzero(score.voicing > 0.05)
    place = np.arange(len(score.voicing), dtype=float)
    place = np.clip((place - spoken[0]) / max(np.ptp(spoken), 1), 0, 1) - 0.5
    wander = smooth(rng.normal(0, 1, len(place)), 40) * 1.2
    span = speaker.span * 2.0 ** style["range"]
    moved = span * (score.stress - 0.35 + wander) + style["slope"] * place
    shake = np.sin(2 * np.pi * 6.2 * np.arange(len(place)) * HOP / SAMPLE_RATE)
    moved += 0.9 * max(style["tremor"], 0) * shake
    pitch = speaker.f0 * 2.0 ** ((style["pitch"] + moved) / 12)
    return np.clip(pitch, 60, 600)


def _folds(pitch, bandwidth, rough, rng):
    """Pulse train of unit power, its harmonics falling as exp(-f/bandwidth).

    The series ``sum r^k cos(k phase)`` has the closed form used here, so the
    pulses have no edges and hardly alias.
    """
    rough = np.clip(rough, 0, 1.5)
    cycles = np.floor(np.cumsum(pitch) / SAMPLE_RATE).astype(int)
    count = cycles[-1] + 2
    jitter = rng.normal(0, 0.006 + 0.025 * rough, count)
    pitch = pitch * (1 + jitter[cycles])
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    shimmer = 1 + rng.normal(0, 0.03 + 0.12 * rough, count)
    shimmer[::2] *= 1 - 0.3 * rough
    r = np.exp(-pitch / bandwidth)
    pulse = (r * np.cos(phase) - r**2) / (1 - 2 * r * np.cos(phase) + r**2)
    power = np.sqrt(0.5 * r**2 / (1 - r**2))
    smooth = np.interp(phase / (2 * np.pi), np.arange(count) + 0.5, shimmer)
    return smooth * pulse / power


def _resonate(source, formants, tract):
    """Chain of Klatt's resonators whose tuning moves with the control frames.

    The source is cut into windows that overlap and add up to it; each is
    filtered in the frequency domain by the tuning at its middle. Retuning a
    recursive filter step by step would crackle.
    """
    frames = formants.shape[1]
    fixed = np.tile([[3300.0], [4250.0], [5400.0]], (1, frames))
    center = np.clip(np.concatenate([formants, fixed]) * tract, 120, 7300)
    width = np.array([70, 95, 140, 220, 320, 480])[:, None]
    width = width * (1 + center / 9000)
    c = -np.exp(-2 * np.pi * width / SAMPLE_RATE)
    b = 2 * np.sqrt(-c) * np.cos(2 * np.pi * center / SAMPLE_RATE)
    delay = np.exp(-2j * np.pi * np.arange(_FFT // 2 + 1) / _FFT)
    response = np.ones((frames, len(delay)), complex)
    for b_, c_ in zip(b[:, :, None], c[:, :, None], strict=True):
        response *= (1 - b_ - c_) / (1 - b_ * delay - c_ * delay**2)
    # The windows overlap fourfold; such Hann windows add up to 2.
    length = 4 * HOP
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    before = (length - HOP) // 2
    padded = np.pad(source, (before, length))
    at = np.arange(frames)[:, None] * HOP + np.arange(length)
    spectra = np.fft.rfft(padded[at] * (window / 2), _FFT) * response
    out = np.zeros(frames * HOP + _FFT)
    for frame, part in enumerate(np.fft.irfft(spectra, _FFT)):
        out[frame * HOP : frame * HOP + _FFT] += part
    return out[before : before + len(source)]


def _hiss(score, rng, upsample):
    """Noise of stops and fricatives, band by band."""
    total = 0.0
    for band, amplitude in sorted(score.noise.items()):
        centre, width = BANDS[band]
        c = np.exp(-np.pi * width / SAMPLE_RATE)
        pole = [1, -2 * c * np.cos(2 * np.pi * centre / SAMPLE_RATE), c**2]
        noise = lfilter(
            [1, 0, -1], pole, rng.normal(0, 1, len(amplitude) * HOP)
        )
        total = total + noise / noise.std() * upsample(amplitude)
    return total


def speak(sentence, speaker, style, rng):
    """Says a sentence.

    Arguments
    ---------
    sentence : str
        One of ``SENTENCES``.
    speaker : Speaker
        Whose voice.
    style : dict
        Values of ``VOICE_AXES``; those not given are 0.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    Utterance
        Of 1.3 to 2.2 seconds, with short pauses at both ends.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> said = speak("DFA", draw_speaker(rng, True), {"pitch": 3.0}, rng)
    >>> 1.3 <= len(said.samples) / SAMPLE_RATE <= 2.2
    True
    >>> len(said.samples) == len(said.f0) * HOP
    True
    """
    style = {axis: float(style.get(axis, 0.0)) for axis in VOICE_AXES}
    lead, tail = rng.uniform(0.1, 0.2, 2)
    seconds = 0.95 + 0.024 * len(SENTENCES[sentence].split())
    seconds *= np.exp(-style["rate"] - speaker.rate)
    seconds = np.clip(seconds, 1.3 - lead - tail, 2.19 - lead - tail)
    score = write_score(sentence, seconds, lead, tail, rng)
    frames = len(score.voicing)
    at = (np.arange(frames * HOP) - HOP / 2) / HOP

    def upsample(track):
        return np.interp(at, np.arange(frames), track)

    f0 = _pitch(score, speaker, style, rng)
    bandwidth = 1900 * 2.0 ** ((style["tilt"] + speaker.tilt) / 4)
    pulses = _folds(upsample(f0), bandwidth, style["rough"], rng)
    voicing = upsample(score.voicing)
    shake = np.sin(2 * np.pi * 5.6 * np.arange(frames * HOP) / SAMPLE_RATE)
    voicing = voicing * (1 + 0.25 * max(style["tremor"], 0) * shake)
    breath = 10 ** ((-14 + style["breath"] + speaker.breath) / 20)
    tract = speaker.tract * np.exp(style["spread"])
    # Breath is strongest while the folds are open, between the pulses.
    airy = np.diff(rng.normal(0, 0.7, len(pulses) + 1))
    airy *= 1 - 0.3 * np.tanh(pulses)
    sound = _resonate(voicing * (pulses + breath * airy), score.formants, tract)
    sound = lfilter([1, -0.94], 1, sound)  # radiation from the lips
    loud = np.sqrt(np.mean(sound[voicing > 0.5] ** 2))
    sound = sound / loud + 0.22 * _hiss(score, rng, upsample)
    sound = sound * 10 ** ((-33 + style["level"] + speaker.level) / 20)
    sound += rng.normal(0, 10 ** (speaker.noise / 20), len(sound))
    sound *= min(1.0, 0.95 / np.abs(sound).max())
    return Utterance(
        samples=sound.astype(np.float32),
        f0=f0,
        voiced=score.voicing,
        jaw=np.clip(score.jaw, 0, 1),
        rounding=np.clip(score.rounding, 0, 1),
    )
