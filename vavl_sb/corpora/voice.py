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
from scipy.signal import lfilter, sosfilt

SAMPLE_RATE = 16000
HOP = 80  # samples of a control frame: 5 ms

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

SENTENCES = {
    "DFA": "d ow n t f @ g E* t @ J A* k @ t",
    "IEO": "I t s I l E* v @ n @ k l o* k",
    "IOM": "ay m o n m ay w ey* t @ D @ m i* t I N",
    "ITH": "ay T I* N k ay h A* v @ d o* k t r z @ p oy* n t m @ n t",
    "ITS": "ay T I* N k ay v s i* n D I s b I f o* r",
    "IWL": "ay w U d l ay* k @ n u* @ l a* r m k l o k",
    "IWW": "ay w ^* n d r w @ t D I* s I z @ b aw* t",
    "MTI": "m ey* b i t @ m o* r ow I t w I l b i k ow* l d",
    "TAI": "D i E* r p l ey n I z o* l m ow s t f U* l",
    "TIE": "D A t I z E g z A* k t l i w @ t h A* p @ n d",
    "TSI": "D @ s r* f @ s I z s l I* k",
    "WSI": "w i l s t o* p I n @ k ^* p @ l @ v m I* n I t s",
}

# Formants 1 to 3 of a man's vowels in Hz, after Peterson & Barney, "Control
# methods used in a study of the vowels", JASA 24(2), 1952; jaw and rounding
# in 0..1.
_VOWELS = {
    "i": (270, 2290, 3010, 0.35, 0.0),
    "I": (390, 1990, 2550, 0.45, 0.0),
    "E": (530, 1840, 2480, 0.7, 0.0),
    "A": (660, 1720, 2410, 0.95, 0.0),
    "a": (730, 1090, 2440, 1.0, 0.1),
    "o": (570, 840, 2410, 0.85, 0.6),
    "U": (440, 1020, 2240, 0.5, 0.6),
    "u": (300, 870, 2240, 0.35, 1.0),
    "^": (640, 1190, 2390, 0.8, 0.1),
    "@": (500, 1500, 2450, 0.55, 0.1),
    "r": (490, 1350, 1690, 0.5, 0.4),
}
_GLIDING = {
    "ey": ("E", "i"),
    "ay": ("a", "i"),
    "oy": ("o", "i"),
    "ow": ("o", "u"),
    "aw": ("a", "u"),
}
# Formants, jaw, rounding, voicing and frication amplitude, noise band.
_CONSONANTS = {
    "m": (250, 1100, 2200, 0.0, 0.1, 0.4, 0.0, None),
    "n": (250, 1600, 2500, 0.2, 0.0, 0.4, 0.0, None),
    "N": (250, 2000, 2700, 0.3, 0.0, 0.4, 0.0, None),
    "l": (360, 1200, 2700, 0.35, 0.0, 0.6, 0.0, None),
    "w": (300, 700, 2200, 0.15, 1.0, 0.5, 0.0, None),
    "b": (250, 900, 2200, 0.0, 0.1, 0.12, 0.5, "p"),
    "d": (250, 1700, 2600, 0.15, 0.0, 0.12, 0.5, "t"),
    "g": (250, 1900, 2500, 0.25, 0.0, 0.12, 0.5, "k"),
    "p": (300, 900, 2200, 0.0, 0.1, 0.0, 0.9, "p"),
    "t": (300, 1700, 2600, 0.15, 0.0, 0.0, 0.9, "t"),
    "k": (300, 1900, 2500, 0.25, 0.0, 0.0, 0.9, "k"),
    "f": (350, 1100, 2300, 0.1, 0.0, 0.0, 0.3, "f"),
    "T": (350, 1400, 2500, 0.2, 0.0, 0.0, 0.25, "f"),
    "v": (300, 1100, 2300, 0.1, 0.0, 0.4, 0.12, "f"),
    "D": (300, 1500, 2500, 0.2, 0.0, 0.4, 0.08, "f"),
    "s": (350, 1700, 2600, 0.12, 0.0, 0.0, 0.5, "s"),
    "z": (300, 1700, 2600, 0.12, 0.0, 0.3, 0.3, "s"),
    "J": (300, 1900, 2600, 0.15, 0.4, 0.1, 0.6, "S"),
    "h": (500, 1500, 2500, 0.5, 0.0, 0.0, 0.25, "k"),
}
_STOPS = set("bdgptkJ")
# Centre and bandwidth of each noise band in Hz.
_BANDS = {
    "p": (900, 1200),
    "t": (4800, 2500),
    "k": (2000, 1200),
    "f": (4500, 5000),
    "s": (5800, 1800),
    "S": (3200, 1500),
}


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
        f0=float((205 if female else 118) * 2 ** rng.normal(0, 0.13)),
        tract=float((1.16 if female else 1.0) * rng.uniform(0.94, 1.06)),
        rate=float(rng.normal(0, 0.06)),
        level=float(rng.normal(0, 1.2)),
        tilt=float(rng.normal(0, 0.7)),
        breath=float(rng.normal(1.5 if female else 0, 1.2)),
        span=float(rng.uniform(2.2, 3.4)),
        noise=float(rng.uniform(-74, -66)),
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


@dataclass
class _Score:
    """What the synthesiser plays: arrays with a row a control frame."""

    formants: np.ndarray
    jaw: np.ndarray
    rounding: np.ndarray
    voicing: np.ndarray
    stress: np.ndarray
    noise: dict


def _segments(sentence):
    """Phones into (targets, length, stressed); gliding vowels into two."""
    for phone in SENTENCES[sentence].split():
        stressed = phone.endswith("*")
        phone = phone.rstrip("*")
        length = 1.45 if stressed else 1.0
        if phone in _GLIDING:
            for part in _GLIDING[phone]:
                yield (
                    phone,
                    (*_VOWELS[part], 1.0, 0.0, None),
                    0.7 * length,
                    stressed,
                )
        elif phone in _VOWELS:
            yield phone, (*_VOWELS[phone], 1.0, 0.0, None), length, stressed
        else:
            yield phone, _CONSONANTS[phone], 0.75, False


def _smooth(track, frames):
    """Moving average along time, the ends held."""
    if frames < 2:
        return track
    kernel = np.hanning(frames + 2)[1:-1]
    kernel /= kernel.sum()
    before = frames // 2
    padded = np.pad(track, (before, frames - 1 - before), mode="edge")
    return np.convolve(padded, kernel, mode="valid")


def _score(sentence, seconds, lead, tail, rng):
    """Lays the sentence out in time: `seconds` of speech between pauses."""
    parts = list(_segments(sentence))
    lengths = np.array([length for _, _, length, _ in parts])
    lengths = lengths * rng.uniform(0.85, 1.15, len(parts))
    edges = (
        lead
        + seconds * np.concatenate([[0], np.cumsum(lengths)]) / lengths.sum()
    )
    frames = round((edges[-1] + tail) * SAMPLE_RATE / HOP)
    edges = np.round(edges * SAMPLE_RATE / HOP).astype(int)
    formants = np.tile([[500.0], [1500.0], [2500.0]], (1, frames))
    jaw, rounding, voicing, stress = np.zeros((4, frames))
    noise = {band: np.zeros(frames) for band in _BANDS}
    for (phone, target, _, stressed), start, end in zip(
        parts, edges[:-1], edges[1:]
    ):
        span = slice(start, end)
        formants[:, span] = np.array(target[:3])[:, None]
        jaw[span], rounding[span], voicing[span] = target[3:6]
        stress[span] = stressed
        if target[7] is not None:
            # A stop is silent until its burst in the last 20 ms.
            first = max(start, end - 4) if phone in _STOPS else start
            noise[target[7]][first:end] = target[6]
    return _Score(
        formants=np.stack([_smooth(row, 12) for row in formants]),
        jaw=_smooth(jaw, 14),
        rounding=_smooth(rounding, 18),
        voicing=_smooth(voicing, 5),
        stress=_smooth(stress, 24),
        noise={
            band: _smooth(row, 3) for band, row in noise.items() if row.any()
        },
    )


def _pitch(score, speaker, style, rng):
    """Pitch of each control frame in Hz."""
    spoken = np.flatnonzero(score.voicing > 0.05)
    place = np.arange(len(score.voicing), dtype=float)
    place = np.clip((place - spoken[0]) / max(np.ptp(spoken), 1), 0, 1) - 0.5
    wander = _smooth(rng.normal(0, 1, len(place)), 40) * 1.2
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
    """Chain of Klatt's resonators whose tuning changes every control frame."""
    frames = formants.shape[1]
    fixed = np.tile([[3300.0], [4250.0], [5400.0]], (1, frames))
    centre = np.clip(np.concatenate([formants, fixed]) * tract, 120, 7300)
    width = np.array([70, 95, 140, 220, 320, 480])[:, None] * (
        1 + centre / 9000
    )
    c = -np.exp(-2 * np.pi * width / SAMPLE_RATE)
    b = 2 * np.sqrt(-c) * np.cos(2 * np.pi * centre / SAMPLE_RATE)
    sections = np.zeros((frames, 6, 6))
    sections[:, :, 0] = (1 - b - c).T
    sections[:, :, 3] = 1
    sections[:, :, 4], sections[:, :, 5] = -b.T, -c.T
    state = np.zeros((6, 2))
    out = np.empty_like(source)
    for frame, section in enumerate(sections):
        span = slice(frame * HOP, (frame + 1) * HOP)
        out[span], state = sosfilt(section, source[span], zi=state)
    return out


def _hiss(score, rng, upsample):
    """Noise of stops and fricatives, band by band."""
    total = 0.0
    for band, amplitude in sorted(score.noise.items()):
        centre, width = _BANDS[band]
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
    score = _score(sentence, seconds, lead, tail, rng)
    frames = len(score.voicing)
    at = (np.arange(frames * HOP) - HOP / 2) / HOP

    def upsample(track):
        return np.interp(at, np.arange(frames), track)

    f0 = _pitch(score, speaker, style, rng)
    bandwidth = 1400 * 2.0 ** ((style["tilt"] + speaker.tilt) / 4)
    pulses = _folds(upsample(f0), bandwidth, style["rough"], rng)
    voicing = upsample(score.voicing)
    shake = np.sin(2 * np.pi * 5.6 * np.arange(frames * HOP) / SAMPLE_RATE)
    voicing = voicing * (1 + 0.25 * max(style["tremor"], 0) * shake)
    breath = 10 ** ((-21 + style["breath"] + speaker.breath) / 20)
    tract = speaker.tract * np.exp(style["spread"])
    # Breath is strongest while the folds are open, between the pulses.
    airy = np.diff(rng.normal(0, 0.7, len(pulses) + 1))
    airy *= 1 - 0.3 * np.tanh(pulses)
    sound = _resonate(voicing * (pulses + breath * airy), score.formants, tract)
    sound = lfilter([1, -0.75], 1, sound)  # radiation from the lips
    loud = np.sqrt(np.mean(sound[voicing > 0.5] ** 2))
    sound = sound / loud + 0.22 * _hiss(score, rng, upsample)
    sound = sound * 10 ** ((-25 + style["level"] + speaker.level) / 20)
    sound += rng.normal(0, 10 ** (speaker.noise / 20), len(sound))
    sound *= min(1.0, 0.95 / np.abs(sound).max())
    return Utterance(
        samples=sound.astype(np.float32),
        f0=f0,
        voiced=score.voicing,
        jaw=np.clip(score.jaw, 0, 1),
        rounding=np.clip(score.rounding, 0, 1),
    )
