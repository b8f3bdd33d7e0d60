"""Who says what and how: talkers, performances and the crowd that rates them.

Each emotion has a way of speaking and a face. Three emotions share a manner of
voice (angry, fear and happy are aroused; disgust, neutral and sad are not) and
two share a face (angry and disgust frown; fear and sad lift the inner brows;
happy and neutral do neither). A performance goes from the shared manner
towards the emotion's own by a strength drawn at random for voice and face
apart. Weak voices and weak faces are hence ambiguous, mostly not at once: each
modality says something, and neither says all.

All is drawn from ``(seed, talker)`` and ``(seed, clip)`` alone, so a clip is
the same whatever else is made with it.

Authors
 * The vavl_sb authors 2026
"""

import functools
from dataclasses import dataclass

import numpy as np

from vavl_sb.corpora.look import draw_look
from vavl_sb.corpora.voice import draw_speaker

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad")

# Rows in the order of EMOTIONS, columns in that of VOICE_AXES and FACE_AXES.
_VOICES = np.array(
    [
        # pitch range slope rate level tilt breath rough tremor spread
        [4.0, 0.4, -4.0, 0.10, 8.0, 7.0, -6.0, 0.9, 0.0, 0.0],
        [-2.5, 0.1, -2.0, -0.15, 0.0, 3.0, -4.0, 1.0, 0.0, -0.12],
        [7.0, -0.4, 1.0, 0.25, 0.5, -2.0, 12.0, 0.1, 1.0, 0.0],
        [9.0, 0.9, 3.0, 0.0, 4.0, 1.5, -3.0, 0.0, 0.0, 0.13],
        [0.5, 0.0, -1.0, 0.08, 0.0, 0.0, -4.0, 0.0, 0.0, 0.03],
        [-0.5, -0.6, -3.0, -0.25, -5.0, -5.0, 11.0, 0.1, 0.3, 0.0],
    ]
)
_VOICE_SPREAD = np.array([2.0, 0.4, 2.5, 0.08, 1.2, 0.9, 1.8, 0.45, 0.45, 0.03])
_FACES = np.array(
    [
        # raise inner eye smile stretch gap sneer
        [-0.8, -1.0, 0.3, -0.4, 0.6, 1.0, 0.0],
        [-0.6, -0.7, -0.9, -0.6, -0.3, 0.0, 1.1],
        [1.1, 0.6, 1.1, -0.3, 0.8, 1.1, 0.0],
        [0.2, 0.0, -0.3, 1.0, 0.7, 0.7, 0.0],
        [0.0, 0.0, 0.0, 0.05, -0.1, 0.0, 0.0],
        [0.3, 1.0, -0.6, -1.0, -0.4, 0.0, 0.0],
    ]
)
_FACE_SPREAD = np.array([0.15, 0.15, 0.15, 0.15, 0.15, 0.12, 0.12])
# Which emotions share a manner, as indices into EMOTIONS.
_VOICE_GROUPS = ((0, 2, 3), (1, 4, 5))
_FACE_GROUPS = ((0, 1), (2, 5), (3, 4))

_LEVELS = {"LO": 0.75, "MD": 1.0, "HI": 1.2, "XX": 1.0}
_BLENDS = 0.1  # share of clips that mix two emotions
# How much raters trust what they are shown: set so that as many clips as in
# CREMA-D, or somewhat fewer, end without a majority.
_TRUST = {"voice": 0.5, "face": 0.3, "both": 0.2}
_GUESSES = 0.05  # share of votes that are blind


@dataclass(frozen=True)
class Clip:
    """One clip to make, whatever the corpus it will belong to.

    Arguments
    ---------
    actor : int
        Number of the talker.
    emotion : str
        One of ``EMOTIONS``: what the talker was asked to act.
    sentence : str
        Key of ``vavl_sb.corpora.phones.SENTENCES``.
    level : str
        Asked intensity: "LO", "MD", "HI" or "XX" (none asked).
    seed : int
        Seed of the corpus.
    """

    actor: int
    emotion: str
    sentence: str
    level: str
    seed: int

    def chance(self, purpose):
        """Source of chance for one purpose, from seed and clip alone.

        Arguments
        ---------
        purpose : str
            Name of what the numbers are for.

        Returns
        -------
        numpy.random.Generator

        Example
        -------
        >>> clip = Clip(1001, "happy", "DFA", "XX", seed=0)
        >>> a, b = clip.chance("a").random(), clip.chance("b").random()
        >>> a == clip.chance("a").random(), a == b
        (True, False)
        """
        name = (self.emotion, self.sentence, self.level, purpose)
        return _chance(self.seed, self.actor, *name)


def _chance(seed, *names):
    text = "/".join(str(name) for name in names)
    return np.random.default_rng([seed, *text.encode()])


@dataclass(frozen=True)
class Talker:
    """One person: sex, age, look and voice.

    Arguments
    ---------
    female : bool
        Sex.
    age : int
        Years; for the demographic table only.
    look : Look
        What the person looks like.
    speaker : Speaker
        The person's voice.
    """

    female: bool
    age: int
    look: object
    speaker: object


@functools.lru_cache(maxsize=128)
def cast(seed, actor):
    """The talker of a number.

    Arguments
    ---------
    seed : int
        Seed of the corpus.
    actor : int
        Number of the talker.

    Returns
    -------
    Talker

    Example
    -------
    >>> cast(0, 1001) == cast(0, 1001)
    True
    """
    rng = _chance(seed, actor, "talker")
    female = bool(rng.random() < 0.5)
    return Talker(
        female=female,
        age=int(rng.integers(20, 75)),
        look=draw_look(rng, female),
        speaker=draw_speaker(rng, female),
    )


@dataclass(frozen=True)
class Performance:
    """How a clip is acted.

    Arguments
    ---------
    voice : numpy.ndarray
        ``(10,)`` values of ``VOICE_AXES``.
    face : numpy.ndarray
        ``(7,)`` values of ``FACE_AXES`` at the height of the expression.
    strength : numpy.ndarray
        ``(2,)`` how far voice and face go to the emotion's own manner.
    """

    voice: np.ndarray
    face: np.ndarray
    strength: np.ndarray


def _manner(table, groups, emotion, strength):
    """From what the emotion's group shares (0) to its own manner (1)."""
    shared = next(g for g in groups if emotion in g)
    common = table[list(shared)].mean(axis=0)
    return common + strength * (table[emotion] - common)


def perform(clip):
    """Draws how a clip is acted.

    Arguments
    ---------
    clip : Clip
        The clip.

    Returns
    -------
    Performance

    Example
    -------
    >>> glad = perform(Clip(1001, "happy", "DFA", "XX", seed=0))
    >>> calm = perform(Clip(1001, "sad", "DFA", "XX", seed=0))
    >>> bool(glad.voice[0] > calm.voice[0])  # pitch
    True
    """
    rng = clip.chance("performance")
    emotion = EMOTIONS.index(clip.emotion)
    strong = _LEVELS[clip.level]
    strengths = np.clip(rng.normal((0.66, 0.58), 0.4), 0, 1.1) * strong
    other = (emotion + rng.integers(1, 6)) % 6
    mixed, share = rng.random() < _BLENDS, rng.uniform(0.38, 0.55)
    share = share if mixed else 0.0
    parts = []
    for table, groups, spread, strength in (
        (_VOICES, _VOICE_GROUPS, _VOICE_SPREAD, strengths[0]),
        (_FACES, _FACE_GROUPS, _FACE_SPREAD, strengths[1]),
    ):
        own = _manner(table, groups, emotion, strength)
        if share:
            blend = _manner(table, groups, other, strength)
            own = (1 - share) * own + share * blend
        parts.append(own + rng.normal(0, 1, len(spread)) * spread)
    return Performance(parts[0], parts[1], strengths)


def _evidence(shown, table, groups, spread):
    """Log-likelihood of each emotion for what a modality shows."""
    likely = np.stack(
        [
            [_manner(table, groups, emotion, s) for s in (0.0, 0.5, 1.0)]
            for emotion in range(len(EMOTIONS))
        ]
    )
    distance = (((shown - likely) / (1.6 * spread)) ** 2).sum(axis=-1)
    score = -0.5 * distance
    return np.log(np.exp(score - score.max()).mean(axis=1) + 1e-12)


def rate(clip, performance=None):
    """Lets a crowd rate a clip by its voice, its face, and both.

    A rater weighs what is shown by how each emotion tends to be acted, errs
    somewhat, and at times guesses.

    Arguments
    ---------
    clip : Clip
        The clip.
    performance : Performance, optional
        How it is acted; drawn from `clip` if not given.

    Returns
    -------
    dict
        For "voice", "face" and "both" an ``(r,)`` array of the raters'
        choices as indices into ``EMOTIONS``; 8 to 12 raters each.

    Example
    -------
    >>> votes = rate(Clip(1001, "happy", "DFA", "XX", seed=0))
    >>> sorted(votes), 8 <= len(votes["both"]) <= 12
    (['both', 'face', 'voice'], True)
    """
    acted = performance or perform(clip)
    rng = clip.chance("votes")
    voice = _evidence(acted.voice, _VOICES, _VOICE_GROUPS, _VOICE_SPREAD)
    face = _evidence(acted.face, _FACES, _FACE_GROUPS, _FACE_SPREAD)
    votes = {}
    for name, score in (
        ("voice", voice),
        ("face", face),
        ("both", voice + face),
    ):
        raters = rng.choice([8, 9, 10, 11, 12], p=[0.1, 0.3, 0.5, 0.08, 0.02])
        odds = np.exp(_TRUST[name] * (score - score.max()))
        odds = (1 - _GUESSES) * odds / odds.sum() + _GUESSES / len(odds)
        votes[name] = rng.choice(len(odds), raters, p=odds)
    return votes
