"""The twelve sentences of CREMA-D as phones, and phones as movements.

Authors
 * The vavl_sb authors 2026
"""

from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 16000
HOP = 80  # samples of a control frame: 5 ms

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
BANDS = {
    "p": (900, 1200),
    "t": (4800, 2500),
    "k": (2000, 1200),
    "f": (4500, 5000),
    "s": (5800, 1800),
    "S": (3200, 1500),
}


@dataclass(frozen=True)
class Score:
    """What the synthesiser plays, one value a control frame of ``HOP`` samples.

    Arguments
    ---------
    formants : numpy.ndarray
        ``(3, frames)`` Hz.
    jaw, rounding : numpy.ndarray
        ``(frames,)``, 0..1.
    voicing : numpy.ndarray
        ``(frames,)`` amplitude, 0..1.
    stress : numpy.ndarray
        ``(frames,)``, 1 in stressed vowels.
    noise : dict
        ``(frames,)`` amplitude of each band of ``BANDS`` that is used.
    """

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


def smooth(track, frames):
    """Weighted moving average along time, the ends held.

    Arguments
    ---------
    track : numpy.ndarray
        ``(frames,)``.
    frames : int
        Length of the window.

    Returns
    -------
    numpy.ndarray
        ``(frames,)``.

    Example
    -------
    >>> smooth(np.array([0.0, 0.0, 4.0, 0.0, 0.0]), 3).tolist()
    [0.0, 1.0, 2.0, 1.0, 0.0]
    """
    if frames < 2:
        return track
    kernel = np.hanning(frames + 2)[1:-1]
    kernel /= kernel.sum()
    before = frames // 2
    padded = np.pad(track, (before, frames - 1 - before), mode="edge")
    return np.convolve(padded, kernel, mode="valid")


def write_score(sentence, seconds, lead, tail, rng):
    """Lays a sentence out in time, between two pauses.

    Arguments
    ---------
    sentence : str
        One of ``SENTENCES``.
    seconds, lead, tail : float
        Length of the speech, and of the pauses before and after it.
    rng : numpy.random.Generator
        Source of chance for the lengths of the phones.

    Returns
    -------
    Score

    Example
    -------
    >>> score = write_score("DFA", 1.0, 0.2, 0.2, np.random.default_rng(0))
    >>> score.formants.shape, float(score.voicing[0])
    ((3, 280), 0.0)
    """
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
    noise = {band: np.zeros(frames) for band in BANDS}
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
    return Score(
        formants=np.stack([smooth(row, 12) for row in formants]),
        jaw=smooth(jaw, 14),
        rounding=smooth(rounding, 18),
        voicing=smooth(voicing, 5),
        stress=smooth(stress, 24),
        noise={
            band: smooth(row, 3) for band, row in noise.items() if row.any()
        },
    )
