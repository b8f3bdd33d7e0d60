"""Layout of MSP-IMPROV: file names and ratings.

Six sessions of a woman and a man, four emotions, and ``Evalution.txt`` in the
format of the release (Busso et al., "MSP-IMPROV: An Acted Corpus of Dyadic
Interactions to Study Emotion Perception", IEEE Transactions on Affective
Computing 8(1), 2017): one line per clip, then one per rater, and activation
with 1 = very active.
"""

import collections

import numpy as np

from synthetic.layout import Layout
from synthetic.performance import EMOTIONS, Clip, perform, rate
from synthetic.phones import SENTENCES

RATINGS = "Evalution.txt"
LETTERS = {"angry": "A", "happy": "H", "neutral": "N", "sad": "S"}
SCENARIOS = "TSRP"
# Mean arousal, valence and dominance (5 = very) of ratings of an emotion.
ANCHORS = {
    "angry": (4.4, 1.5, 4.3),
    "disgust": (3.3, 1.7, 3.5),
    "fear": (4.0, 1.8, 1.8),
    "happy": (4.1, 4.5, 3.6),
    "neutral": (2.6, 3.0, 3.0),
    "sad": (1.6, 1.6, 1.9),
}
WORDS = ("Angry", "Disgusted", "Fearful", "Happy", "Neutral", "Sad")
UNRATED = 0.04  # share of clips that lack the mean of one attribute


def _clips(speaker, seed):
    """Returns the clips of a speaker: each sentence in four emotions."""
    female = speaker[0] == "F"
    return [
        Clip(speaker, female, emotion, sentence, "XX", seed)
        for sentence in SENTENCES
        for emotion in LETTERS
    ]


def clip_name(clip):
    """Returns the name of a clip in MSP-IMPROV.

    Arguments
    ---------
    clip : Clip
        The clip.

    Returns
    -------
    str
        Target sentence and emotion, speaker, scenario, and turn: FF or MM in
        read clips, the target speaker first in improvised target sentences, FM
        otherwise.
    """
    sex = clip.speaker[0]
    sentence = list(SENTENCES).index(clip.sentence)
    emotion = list(LETTERS).index(clip.emotion)
    scenario = SCENARIOS[(sentence + emotion) % len(SCENARIOS)]
    partner = "M" if sex == "F" else "F"
    turn = {"T": sex + partner, "R": sex + sex}.get(scenario, "FM")
    target = f"S{sentence + 1:02}{LETTERS[clip.emotion]}"
    return f"MSP-IMPROV-{target}-{clip.speaker}-{scenario}-{turn}01"


def _files(clip):
    """Returns the paths of the audio and video files."""
    name = clip_name(clip)
    _, _, sentence, speaker, scenario, _ = name.split("-")
    folder = f"session{speaker[-1]}/{sentence}/{scenario}"
    return f"{folder}/{name}.wav", f"{folder}/{name}.avi"


def rate_attributes(clip):
    """Generates the ratings of a clip.

    A rater perceives an emotion and rates it near that emotion's anchor; the
    stronger it is acted, the nearer.

    Arguments
    ---------
    clip : Clip
        The clip.

    Returns
    -------
    seen : numpy.ndarray
        Emotion that each rater perceives, as indices into ``EMOTIONS``.
    ratings : numpy.ndarray
        Shape (raters, 4), integers from 1 to 5: arousal, valence, dominance
        (5 = very), naturalness.

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
    """Returns the majority's A, H, N or S; O for other emotions, X for a
    tie."""
    letters = [LETTERS.get(EMOTIONS[vote], "O") for vote in seen]
    (letter, most), *second = collections.Counter(letters).most_common(2)
    return "X" if second and second[0][1] == most else letter


def _values(row):
    """Formats ratings as in the release, including its stray blanks."""
    texts = ["NaN" if np.isnan(value) else f"{value:.6f}" for value in row]
    return "A:{}; V:{} ; D:{} ; N:{};".format(*texts)


def _tables(clips):
    """Returns ``Evalution.txt`` by its path."""
    blocks = []
    for clip in clips:
        seen, ratings = rate_attributes(clip)
        # In the release 1 means very active.
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
