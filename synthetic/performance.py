"""Clips, speakers, performances and ratings.

Each emotion has a manner of voice and of face. Groups of three emotions share a
voice (angry, fear and happy are aroused; disgust, neutral and sad are not), and
pairs share a face (angry and disgust frown; fear and sad lift the inner brows;
happy and neutral do neither). A performance interpolates from the shared manner
to the emotion's own, by random strengths for voice and face. A weak voice or
face is therefore ambiguous, but seldom both at once, so that the modalities
complement each other.
"""

import functools
from dataclasses import dataclass

import numpy as np

from synthetic.appearance import draw_appearance
from synthetic.voice import draw_voice

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad")

# Rows in the order of EMOTIONS, columns in that of voice.AXES and face.AXES.
VOICES = np.array(
    [
        # pitch range rate level tilt breath spread
        [4.0, 0.4, 0.10, 11.0, 8.0, -6.0, 0.0],
        [-3.0, 0.1, -0.15, 1.0, 5.0, -4.0, -0.16],
        [7.0, -0.4, 0.25, -1.0, -3.0, 15.0, -0.05],
        [9.0, 0.9, 0.0, 5.0, 1.0, -4.0, 0.17],
        [0.5, 0.0, 0.08, 0.0, -1.0, -4.0, 0.04],
        [-0.5, -0.6, -0.25, -8.0, -6.0, 13.0, 0.0],
    ]
)
VOICE_SPREAD = np.array([1.5, 0.3, 0.06, 1.0, 0.8, 1.5, 0.025])
FACES = np.array(
    [
        # brow_raise brow_inner eye_open smile gap sneer
        [-0.9, -1.0, 0.4, -0.4, 1.0, 0.0],
        [-0.6, -0.7, -0.9, -0.6, 0.0, 1.1],
        [1.1, 0.7, 1.1, -0.3, 1.2, 0.0],
        [0.2, 0.0, -0.3, 1.1, 0.7, 0.0],
        [0.0, 0.0, 0.0, 0.05, 0.0, 0.0],
        [0.3, 1.0, -0.6, -1.1, 0.0, 0.0],
    ]
)
FACE_SPREAD = np.array([0.15, 0.15, 0.15, 0.15, 0.12, 0.12])
# Groups of emotions with a shared manner, as indices into EMOTIONS.
VOICE_GROUPS = ((0, 2, 3), (1, 4, 5))
FACE_GROUPS = ((0, 1), (2, 5), (3, 4))

# Mean and deviation of the interpolation to the emotion's own manner (0 to 1.1)
# for voice and face, and factors for the acted intensity.
STRENGTH = (0.62, 0.52), 0.42
LEVELS = {"LO": 0.75, "MD": 1.0, "HI": 1.2, "XX": 1.0}
# Weight of the evidence in the raters' votes, and share of random votes.
TRUST = {"voice": 0.3, "face": 0.2, "both": 0.11}
GUESSES = 0.05


@dataclass(frozen=True)
class Clip:
    """A clip to generate, independent of the corpus layout.

    Arguments
    ---------
    speaker : str
        Name of the speaker.
    female : bool
        The speaker's sex.
    emotion : str
        Acted emotion, one of ``EMOTIONS``.
    sentence : str
        Key of ``synthetic.phones.SENTENCES``.
    level : str
        Acted intensity: "LO", "MD", "HI" or "XX" (unspecified).
    seed : int
        Seed of the corpus.
    """

    speaker: str
    female: bool
    emotion: str
    sentence: str
    level: str
    seed: int

    def rng(self, purpose):
        """Creates a random generator that depends on seed, clip and purpose.

        Arguments
        ---------
        purpose : str
            Name of the purpose of the numbers.

        Returns
        -------
        numpy.random.Generator

        Example
        -------
        >>> clip = Clip("1001", True, "happy", "DFA", "XX", seed=0)
        >>> a, b = clip.rng("a").random(), clip.rng("b").random()
        >>> a == clip.rng("a").random(), a == b
        (True, False)
        """
        name = (self.speaker, self.emotion, self.sentence, self.level, purpose)
        return _rng(self.seed, *name)


def _rng(seed, *names):
    """Creates a random generator from a seed and names."""
    return np.random.default_rng([seed, *"/".join(names).encode()])


@functools.lru_cache(maxsize=128)
def draw_speaker(seed, name, female):
    """Draws the appearance and voice of a speaker, determined by the arguments.

    Arguments
    ---------
    seed : int
        Seed of the corpus.
    name : str
        Name of the speaker.
    female : bool
        Sex.

    Returns
    -------
    appearance : Appearance
    voice : Voice

    Example
    -------
    >>> appearance, voice = draw_speaker(0, "1001", True)
    >>> voice.f0 > 150
    True
    """
    rng = _rng(seed, name, "speaker")
    return draw_appearance(rng, female), draw_voice(rng, female)


@dataclass(frozen=True)
class Performance:
    """Voice and face of a clip.

    Arguments
    ---------
    voice : numpy.ndarray
        Shape (7,): values of ``voice.AXES``.
    face : numpy.ndarray
        Shape (6,): values of ``face.AXES`` at the peak of the expression.
    strength : numpy.ndarray
        Shape (2,): interpolation of voice and face to the emotion's own manner.
    """

    voice: np.ndarray
    face: np.ndarray
    strength: np.ndarray


def _manner(table, groups, emotion, strength):
    """Interpolates from the group's manner (0) to the emotion's own (1)."""
    group = next(g for g in groups if emotion in g)
    shared = table[list(group)].mean(axis=0)
    return shared + strength * (table[emotion] - shared)


def perform(clip):
    """Draws the voice and face of a clip.

    Arguments
    ---------
    clip : Clip
        The clip.

    Returns
    -------
    Performance

    Example
    -------
    >>> happy = perform(Clip("1001", True, "happy", "DFA", "XX", seed=0))
    >>> sad = perform(Clip("1001", True, "sad", "DFA", "XX", seed=0))
    >>> bool(happy.voice[0] > sad.voice[0])  # pitch
    True
    """
    rng = clip.rng("performance")
    emotion = EMOTIONS.index(clip.emotion)
    strength = np.clip(rng.normal(*STRENGTH), 0, 1.1) * LEVELS[clip.level]
    voice = _manner(VOICES, VOICE_GROUPS, emotion, strength[0])
    face = _manner(FACES, FACE_GROUPS, emotion, strength[1])
    return Performance(
        voice=rng.normal(voice, VOICE_SPREAD),
        face=rng.normal(face, FACE_SPREAD),
        strength=strength,
    )


def _evidence(shown, table, groups, spread):
    """Computes the log-likelihood of each emotion given a voice or face."""
    likely = np.stack(
        [
            [_manner(table, groups, emotion, s) for s in (0.0, 0.5, 1.0)]
            for emotion in range(len(EMOTIONS))
        ]
    )
    score = -0.5 * (((shown - likely) / (1.6 * spread)) ** 2).sum(axis=-1)
    return np.log(np.exp(score - score.max()).mean(axis=1) + 1e-12)


def rate(clip):
    """Simulates raters of a clip's voice, its face, and both.

    Votes are drawn from tempered likelihoods of the emotions, with some random
    votes.

    Arguments
    ---------
    clip : Clip
        The clip.

    Returns
    -------
    dict
        For "voice", "face" and "both": votes of 8 to 12 raters, as indices into
        ``EMOTIONS``, shape (n,).

    Example
    -------
    >>> votes = rate(Clip("1001", True, "happy", "DFA", "XX", seed=0))
    >>> sorted(votes), 8 <= len(votes["both"]) <= 12
    (['both', 'face', 'voice'], True)
    """
    acted, rng = perform(clip), clip.rng("votes")
    voice = _evidence(acted.voice, VOICES, VOICE_GROUPS, VOICE_SPREAD)
    face = _evidence(acted.face, FACES, FACE_GROUPS, FACE_SPREAD)
    evidence = {"voice": voice, "face": face, "both": voice + face}
    votes = {}
    for shown, score in evidence.items():
        odds = np.exp(TRUST[shown] * (score - score.max()))
        odds = (1 - GUESSES) * odds / odds.sum() + GUESSES / len(odds)
        votes[shown] = rng.choice(len(odds), rng.integers(8, 13), p=odds)
    return votes
