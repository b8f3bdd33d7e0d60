"""A synthetic corpus in the layout of MSP-IMPROV, ratings included.

Six sessions of a woman and a man, four emotions, and ``Evalution.txt`` as the
release has it (Busso et al., "MSP-IMPROV: An Acted Corpus of Dyadic
Interactions to Study Emotion Perception", IEEE Transactions on Affective
Computing 8(1), 2017): a line a clip, the lines of its raters below it, and
activation with 1 = very active.

Authors
 * The vavl_sb authors 2026
"""

import collections

import numpy as np

from vavl_sb.corpora.acting import EMOTIONS, Clip, cast, perform, rate
from vavl_sb.corpora.cremad import SENTENCE_ORDER
from vavl_sb.corpora.making import Layout, make_corpus
from vavl_sb.corpora.render import FRAME_RATE, FRAME_SIZE
from vavl_sb.utils.errors import CorpusError

# In the order in which a corpus of fewer takes them: whole sessions first.
SPEAKERS = tuple(f"{sex}0{n}" for n in range(1, 7) for sex in "FM")
RATINGS = "Evalution.txt"
TARGETS = ("angry", "happy", "neutral", "sad")
LETTERS = {"angry": "A", "happy": "H", "neutral": "N", "sad": "S"}
SCENARIOS = "TSRP"
MAX_CLIPS = len(TARGETS) * len(SENTENCE_ORDER)

# Arousal, valence and dominance (5 = very) that a rater sees in an emotion.
ANCHORS = {
    "angry": (4.4, 1.5, 4.3),
    "disgust": (3.3, 1.7, 3.5),
    "fear": (4.0, 1.8, 1.8),
    "happy": (4.1, 4.5, 3.6),
    "neutral": (2.6, 3.0, 3.0),
    "sad": (1.6, 1.6, 1.9),
}
_WORDS = {
    "angry": "Angry",
    "happy": "Happy",
    "neutral": "Neutral",
    "sad": "Sad",
    "disgust": "Disgusted",
    "fear": "Fearful",
}
_UNRATED = 0.04  # share of clips whose mean of one attribute is not given


def speaker_number(speaker, seed):
    """The number of a talker of the right sex.

    Arguments
    ---------
    speaker : str
        "F01" to "F06", "M01" to "M06".
    seed : int
        Seed of the corpus.

    Returns
    -------
    int
        For :func:`vavl_sb.corpora.acting.cast`.

    Example
    -------
    >>> cast(0, speaker_number("F03", 0)).female
    True
    """
    first = (2000 if speaker[0] == "F" else 3000) + 100 * int(speaker[1:])
    return next(
        number
        for number in range(first, first + 100)
        if cast(seed, number).female == (speaker[0] == "F")
    )


def msp_improv_clips(speaker, clips_per_actor, seed):
    """The clips of one speaker, in the order in which they are added.

    Arguments
    ---------
    speaker : str
        "F01" to "F06", "M01" to "M06".
    clips_per_actor : int
        How many, 1 to 48: a sentence in the four emotions, then the next.
    seed : int
        Seed of the corpus.

    Returns
    -------
    list of Clip

    Example
    -------
    >>> [clip_name(clip) for clip in msp_improv_clips("M02", 2, seed=0)]
    ['MSP-IMPROV-S01A-M02-T-MF01', 'MSP-IMPROV-S01H-M02-S-FM01']
    """
    number = speaker_number(speaker, seed)
    plan = [(goal, text) for text in SENTENCE_ORDER for goal in TARGETS]
    return [
        Clip(number, goal, text, "XX", seed=seed)
        for goal, text in plan[:clips_per_actor]
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
    sex, session = "F" if clip.actor < 3000 else "M", clip.actor // 100 % 10
    sentence = SENTENCE_ORDER.index(clip.sentence)
    goal = TARGETS.index(clip.emotion)
    scenario = SCENARIOS[(sentence + goal) % len(SCENARIOS)]
    other = "M" if sex == "F" else "F"
    turn = {"T": sex + other, "R": sex + sex}.get(scenario, "FM")
    return (
        f"MSP-IMPROV-S{sentence + 1:02}{LETTERS[clip.emotion]}-{sex}0{session}-"
        f"{scenario}-{turn}01"
    )


def clip_files(clip):
    """The paths of a clip's files below the corpus.

    Arguments
    ---------
    clip : Clip
        The clip.

    Returns
    -------
    tuple of str
        Sound and video.
    """
    name = clip_name(clip)
    _, _, sentence, speaker, scenario, _ = name.split("-")
    folder = f"session{speaker[-1]}/{sentence}/{scenario}"
    return f"{folder}/{name}.wav", f"{folder}/{name}.avi"


def rate_clip(clip):
    """What each rater says of a clip.

    A rater sees an emotion, and rates it by that emotion's anchor: the nearer
    to it, the stronger it is acted.

    Arguments
    ---------
    clip : Clip
        The clip.

    Returns
    -------
    seen : list of str
        One of ``EMOTIONS`` for each rater.
    ratings : numpy.ndarray
        ``(raters, 4)`` whole numbers from 1 to 5: arousal, valence,
        dominance (5 = very), naturalness.

    Example
    -------
    >>> seen, ratings = rate_clip(msp_improv_clips("F01", 1, 0)[0])
    >>> ratings.shape == (len(seen), 4), set(ratings.flat) <= {1, 2, 3, 4, 5}
    (True, True)
    """
    rng = clip.chance("ratings")
    acted = perform(clip)
    votes = rate(clip, acted)["both"][: rng.integers(5, 9)]
    seen = [EMOTIONS[vote] for vote in votes]
    anchors = np.array([ANCHORS[name] for name in seen])
    calm = np.array(ANCHORS["neutral"])
    strength = 0.4 + 0.6 * np.clip(acted.strength.mean(), 0, 1)
    values = calm + strength * (anchors - calm)
    natural = np.full((len(seen), 1), 3.6)
    values = np.hstack([values, natural]) + rng.normal(0, 0.5, (len(seen), 4))
    return seen, np.clip(np.round(values), 1, 5).astype(int)


def consensus(seen):
    """The letter of a clip: what most raters saw.

    Arguments
    ---------
    seen : list of str
        What each rater saw.

    Returns
    -------
    str
        A, H, N or S; O for another emotion; X if two are as frequent.

    Example
    -------
    >>> consensus(["sad", "sad", "happy"]), consensus(["sad", "happy"])
    ('S', 'X')
    >>> consensus(["fear", "fear", "happy"])
    'O'
    """
    counts = collections.Counter(LETTERS.get(name, "O") for name in seen)
    (letter, most), *others = counts.most_common(2)
    return "X" if others and others[0][1] == most else letter


def ratings_table(clips):
    """``Evalution.txt`` for a list of clips.

    Arguments
    ---------
    clips : list of Clip
        The clips, in the order of their lines.

    Returns
    -------
    dict
        The text, by the file's path in the corpus.

    Example
    -------
    >>> text = ratings_table(msp_improv_clips("F01", 1, 0))["Evalution.txt"]
    >>> text.splitlines()[0].split("; ")[0]
    'UTD-IMPROV-S01A-F01-T-FM01.avi'
    """
    blocks = []
    for clip in clips:
        seen, ratings = rate_clip(clip)
        # The corpus has 1 for very active, where everybody else has 5.
        raw = ratings.astype(float)
        raw[:, 0] = 6 - raw[:, 0]
        means = raw.mean(axis=0)
        rng = clip.chance("unrated")
        if rng.random() < _UNRATED:
            means[rng.integers(3)] = np.nan
        name = clip_name(clip).replace("MSP", "UTD")
        lines = [f"{name}.avi; {consensus(seen)}; {_values(means)}"]
        for number, (word, row) in enumerate(zip(seen, raw), 1):
            rater = f"rater-p{number:03}; {_WORDS[word]}; {_values(row)}"
            lines.append(rater)
        blocks.append("\n".join(lines) + "\n")
    return {RATINGS: "\n".join(blocks)}


def _values(row):
    """Ratings as the release writes them, its stray blanks included."""
    texts = ["NaN" if np.isnan(value) else f"{value:.6f}" for value in row]
    return "A:{}; V:{} ; D:{} ; N:{};".format(*texts)


LAYOUT = Layout(
    name="msp-improv",
    top=(RATINGS, *(f"session{number}" for number in range(1, 7))),
    max_clips=MAX_CLIPS,
    clips=msp_improv_clips,
    files=clip_files,
    tables=ratings_table,
)


def choose_speakers(speakers):
    """Turns the argument `actors` into a list of speakers.

    Arguments
    ---------
    speakers : None, int or iterable of str
        All 12, the first so many (F01, M01, F02, ...), or these.

    Returns
    -------
    list of str
        In that order, each once.

    Example
    -------
    >>> choose_speakers(3), choose_speakers(["M04"]), len(choose_speakers(None))
    (['F01', 'M01', 'F02'], ['M04'], 12)
    """
    if speakers is None:
        return list(SPEAKERS)
    if isinstance(speakers, int):
        if not 1 <= speakers <= len(SPEAKERS):
            raise CorpusError(
                f"{speakers} actors were asked for: there are 1 to "
                f"{len(SPEAKERS)}"
            )
        return list(SPEAKERS[:speakers])
    wanted = list(speakers)
    unknown = [name for name in wanted if name not in SPEAKERS]
    if unknown or not wanted:
        raise CorpusError(
            f"no such actors: {unknown or 'the list is empty'}; they are F01 "
            "to F06 and M01 to M06"
        )
    return [name for name in SPEAKERS if name in wanted]


def make_msp_improv(
    folder,
    actors=None,
    clips_per_actor=8,
    seed=0,
    missing_audio=0.0,
    missing_video=0.0,
    num_workers=2,
    frame_rate=FRAME_RATE,
    size=FRAME_SIZE,
    progress=True,
):
    """Makes a synthetic corpus in the layout of MSP-IMPROV.

    Files that are there already are kept: call it again to finish a run that
    was stopped.

    Arguments
    ---------
    folder : str or Path
        Where to; made if need be. A folder that holds anything else than this
        corpus is refused.
    actors : None, int or iterable of str
        All 12 speakers, the first so many, or these ("F01" to "M06").
    clips_per_actor : int
        1 to 48; see :func:`msp_improv_clips`.
    seed : int
        Seed, 0 or more.
    missing_audio, missing_video : float
        Shares of the clips whose WAV or AVI is not written, never both of a
        clip; together at most 1.
    num_workers : int
        Processes.
    frame_rate : Fraction or int
        Frames a second of the videos.
    size : tuple of int
        Width and height of a frame in pixels, 4:3, even.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    dict
        Counts, as :func:`vavl_sb.corpora.making.make_corpus` gives them.
    """
    return make_corpus(
        folder,
        LAYOUT,
        choose_speakers(actors),
        clips_per_actor=clips_per_actor,
        seed=seed,
        missing_audio=missing_audio,
        missing_video=missing_video,
        num_workers=num_workers,
        frame_rate=frame_rate,
        size=size,
        progress=progress,
    )
