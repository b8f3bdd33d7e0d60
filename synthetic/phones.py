"""The twelve sentences of CREMA-D as phones, and their articulation."""

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

# Formants 1 to 3 in Hz of men's vowels, after Peterson & Barney, "Control
# methods used in a study of the vowels", JASA 24(2), 1952; jaw opening (0..1).
VOWELS = {
    "i": (270, 2290, 3010, 0.35),
    "I": (390, 1990, 2550, 0.45),
    "E": (530, 1840, 2480, 0.7),
    "A": (660, 1720, 2410, 0.95),
    "a": (730, 1090, 2440, 1.0),
    "o": (570, 840, 2410, 0.85),
    "U": (440, 1020, 2240, 0.5),
    "u": (300, 870, 2240, 0.35),
    "^": (640, 1190, 2390, 0.8),
    "@": (500, 1500, 2450, 0.55),
    "r": (490, 1350, 1690, 0.5),
}
GLIDES = {"ey": "Ei", "ay": "ai", "oy": "oi", "ow": "ou", "aw": "au"}
# Groups of consonants: formants in Hz, jaw, voicing and hiss (0..1).
CONSONANTS = {
    "mnN": (250, 1500, 2400, 0.1, 0.4, 0.0),
    "lw": (330, 1000, 2500, 0.25, 0.6, 0.0),
    "bdg": (250, 1500, 2500, 0.1, 0.12, 0.5),
    "ptk": (300, 1500, 2500, 0.1, 0.0, 0.9),
    "vDz": (300, 1500, 2500, 0.1, 0.4, 0.2),
    "fTsJh": (330, 1600, 2600, 0.15, 0.0, 0.4),
}
STOPS = "bdgptk"


@dataclass(frozen=True)
class Score:
    """Input of the synthesizer: one value per control frame of ``HOP`` samples.

    Arguments
    ---------
    formants : numpy.ndarray
        Shape (3, frames), Hz.
    jaw, voicing, hiss : numpy.ndarray
        Shape (frames,), 0..1: jaw opening, amplitudes of voicing and hiss.
    stress : numpy.ndarray
        Shape (frames,), 1 in stressed vowels.
    """

    formants: np.ndarray
    jaw: np.ndarray
    voicing: np.ndarray
    hiss: np.ndarray
    stress: np.ndarray


def _segments(sentence):
    """Yields phones as (phone, six targets, length, stressed)."""
    for phone in SENTENCES[sentence].split():
        stressed = phone.endswith("*")
        phone = phone.rstrip("*")
        vowels = GLIDES.get(phone, phone if phone in VOWELS else "")
        length = (1.45 if stressed else 1.0) * (0.7 if len(vowels) > 1 else 1)
        for vowel in vowels:
            yield vowel, (*VOWELS[vowel], 1.0, 0.0), length, stressed
        if not vowels:
            kind = next(kind for kind in CONSONANTS if phone in kind)
            yield phone, CONSONANTS[kind], 0.75, False


def smooth(track, frames):
    """Computes a weighted moving average of a track (n,), with edge padding."""
    kernel = np.hanning(frames + 2)[1:-1]
    before = frames // 2
    padded = np.pad(track, (before, frames - 1 - before), mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def write_score(sentence, seconds, lead, tail, rng):
    """Times the phones of a sentence between two pauses.

    Arguments
    ---------
    sentence : str
        Key of ``SENTENCES``.
    seconds, lead, tail : float
        Durations of the speech and of the pauses before and after it.
    rng : numpy.random.Generator
        Source of random numbers for the lengths of the phones.

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
    edges = lead + seconds * np.r_[0, np.cumsum(lengths)] / lengths.sum()
    frames = round((edges[-1] + tail) * SAMPLE_RATE / HOP)
    edges = np.round(edges * SAMPLE_RATE / HOP).astype(int)
    tracks = np.zeros((6, frames))
    tracks[:3] = np.array([[500.0], [1500.0], [2500.0]])
    stress = np.zeros(frames)
    for (phone, target, _, stressed), start, end in zip(
        parts, edges[:-1], edges[1:], strict=True
    ):
        tracks[:, start:end] = np.array(target)[:, None]
        stress[start:end] = stressed
        if phone in STOPS:  # Silent until its burst in the last 20 ms.
            tracks[5, start : end - 4] = 0
    return Score(
        formants=np.stack([smooth(row, 12) for row in tracks[:3]]),
        jaw=smooth(tracks[3], 14),
        voicing=smooth(tracks[4], 5),
        hiss=smooth(tracks[5], 3),
        stress=smooth(stress, 24),
    )
