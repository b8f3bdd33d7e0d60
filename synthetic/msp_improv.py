"""MSP-IMPROV's names, and its ratings.

Six sessions of a woman and a man, four emotions, and ``Evalution.txt`` as the
release has it (Busso et al., "MSP-IMPROV: An Acted Corpus of Dyadic
Interactions to Study Emotion Perception", IEEE Transactions on Affective
Computing 8(1), 2017): a line a clip, the lines of its raters below it, and
activation with 1 = very active.
"""

import collections

import numpy as np

from synthetic.layout import Layout
from synthetic.performance import EMOTIONS, Clip, perform, rate
from synthetic.phones import SENTENCES

RATINGS = "Evalution.txt"
LETTERS = {"angry": "A", "happy": "H", "neutral": "N", "sad": "S"}
SCENARIOS = "TSRP"
# Arousal, valence and dominance (5 = very) that a rater sees in an emotion.
ANCHORS = {
    "angry": (4.4, 1.5, 4.3),
    "disgust": (3.3, 1.7, 3.5),
    "fear": (4.0, 1.8, 1.8),
    "happy": (4.1, 4.5, 3.6),
    "neutral": (2.6, 3.0, 3.0),
    "sad": (1.6, 1.6, 1.9),
}
WORDS = ("Angry", "Disgusted", "Fearful", "Happy", "Neutral", "Sad")
UNRATED = 0.04  # share of clips whose mean of one attribute is not given


def _clips(speaker, seed):
    """A sentence in the four emotions, then the next."""
    female = speaker[0] == "F"
    return [
        Clip(speaker, female, emotion, sentence, "XX", seed)
        for sentence in SENTENCES
        for emotion in LETTERS
    ]


def clip_name(clip):
    """Name of a clip in MSP-IMPROV.

    Arguments
    ---------
    clip : Clip
        The clip.

    Returns
    -------
    str
        Target sentence and emotion, speaker, scenario, and turn. Read clips
        have FF or MM. Who speaks a target sentence is named first in its
        improvisation; other turns belong to either.
    """
    sex = clip.speaker[0]
    sentence = list(SENTENCES).index(clip.sentence)
    emotion = list(LETTERS).index(clip.emotion)
    scenario = SCENARIOS[(sentence + emotion) % len(SCENARIOS)]
    other = "M" if sex == "F" else "F"
    turn = {"T": sex + other, "R": sex + sex}.get(scenario, "FM")
    target = f"S{sentence + 1:02}{LETTERS[clip.emotion]}"
    return f"MSP-IMPROV-{target}-{clip.speaker}-{scenario}-{turn}01"


def _files(clip):
    """Sound and video."""
    name = clip_name(clip)
    _, _, sentence, speaker, scenario, _ = name.split("-")
    folder = f"session{speaker[-1]}/{sentence}/{scenario}"
    return f"{folder}/{name}.wav", f"{folder}/{name}.avi"


def rate_attributes(clip):
    """What each rater says of a clip.

    A rater sees an emotion, and rates it by that emotion's anchor: the nearer
    to it, the stronger it is acted.

    Arguments
    ---------
    clip : Clip
        The clip.

    Returns
    -------
    seen : numpy.ndarray
        What each rater saw, as indices into ``EMOTIONS``.
    ratings : numpy.ndarray
        Shape (raters, 4), whole numbers from 1 to 5: arousal, valence,
        dominance (5 = very), naturalness.

    Example
    -------
    >>> seen, ratings = rate_attributes(LAYOUT.clips("F01", 0)[0])
    >>> ratings.shape == (len(seen), 4), set(ratings.flat) <= {1, 2, 3, 4, 5}
    (True, True)
    """
    rng = clip.rng("ratings")
    seen = rate(clip)["both"][: rng.integers(5, 9)]
    calm = np.array(ANCHORS["neutral"])
    anchors = np.array([ANCHORS[EMOTIONS[vote]] for vote in seen])
    strength = 0.4 + 0.6 * np.clip(perform(clip).strength.mean(), 0, 1)
    values = np.full((len(seen), 4), 3.6)
    values[:, :3] = calm + strength * (anchors - calm)
    values += rng.normal(0, 0.5, values.shape)
    return seen, np.clip(np.round(values), 1, 5).astype(int)


def _consensus(seen):
    """A, H, N or S as most saw; O for another emotion, X for a tie."""
    letters = [LETTERS.get(EMOTIONS[vote], "O") for vote in seen]
    (letter, most), *others = collections.Counter(letters).most_common(2)
    return "X" if others and others[0][1] == most else letter


def _values(row):
    """Ratings as the release writes them, its stray blanks included."""
    texts = ["NaN" if np.isnan(value) else f"{value:.6f}" for value in row]
    return "A:{}; V:{} ; D:{} ; N:{};".format(*texts)


def _tables(clips):
    """``Evalution.txt``."""
    blocks = []
    for clip in clips:
        seen, ratings = rate_attributes(clip)
        # The corpus has 1 for very active, where everybody else has 5.
        raw = ratings.astype(float)
        raw[:, 0] = 6 - raw[:, 0]
        means, rng = raw.mean(axis=0), clip.rng("unrated")
        if rng.random() < UNRATED:
            means[rng.integers(3)] = np.nan
        name = clip_name(clip).replace("MSP", "UTD")
        lines = [f"{name}.avi; {_consensus(seen)}; {_values(means)}"]
        for number, (vote, row) in enumerate(zip(seen, raw, strict=True), 1):
            rater = f"rater-p{number:03}; {WORDS[vote]}; {_values(row)}"
            lines.append(rater)
        blocks.append("\n".join(lines) + "\n")
    return {RATINGS: "\n".join(blocks)}


# Whole sessions first.
SPEAKERS = tuple(f"{sex}0{number}" for number in range(1, 7) for sex in "FM")
LAYOUT = Layout(SPEAKERS, _clips, _files, _tables)
