"""CREMA-D's names and tables, for clips that simulated raters saw.

Columns, order, number formats and quirks are those of the released files (Cao
et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", IEEE
Transactions on Affective Computing 5(4), 2014): row ids whose first digit is
the condition, tied votes joined by colons, -1 where nobody voted, a last line
without line end.

Authors
 * The vavl_sb authors 2026
"""

import numpy as np

from vavl_sb.corpora.acting import EMOTIONS, Clip, cast, rate

ACTORS = range(1001, 1092)
# The order in which a talker gets sentences beyond the first.
SENTENCE_ORDER = (
    "DFA", "IEO", "IOM", "ITH", "ITS", "IWL",
    "IWW", "MTI", "TAI", "TIE", "TSI", "WSI",
)  # fmt: skip
MAX_CLIPS = 82  # of one actor, as in CREMA-D
# What lies at the top of the corpus.
CORPUS_PATHS = (
    "AudioWAV",
    "VideoFlash",
    "processedResults",
    "VideoDemographics.csv",
    "SentenceFilenames.csv",
)
LETTERS = "ADFHNS"  # in the order of EMOTIONS
CODES = {
    "angry": "ANG",
    "disgust": "DIS",
    "fear": "FEA",
    "happy": "HAP",
    "neutral": "NEU",
    "sad": "SAD",
}
# First digit of a row id in tabulatedVotes.csv: what its raters were shown.
CONDITIONS = {1: "voice", 2: "face", 3: "both"}
_WORDS = ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad")


def clip_name(clip):
    """Name of a clip in CREMA-D: actor, sentence, emotion and level.

    Arguments
    ---------
    clip : Clip
        The clip.

    Returns
    -------
    str

    Example
    -------
    >>> from vavl_sb.corpora.acting import Clip
    >>> clip_name(Clip(1001, "angry", "DFA", "XX", seed=0))
    '1001_DFA_ANG_XX'
    """
    return f"{clip.actor}_{clip.sentence}_{CODES[clip.emotion]}_{clip.level}"


def cremad_clips(actor, clips_per_actor, seed):
    """The clips of one actor, in the order in which they are added.

    The first six are one sentence in the six emotions, so the words tell
    nothing of the emotion; then comes the next sentence. Sentence IEO is acted
    at three levels, as in CREMA-D: two of them come last.

    Arguments
    ---------
    actor : int
        Number of the actor.
    clips_per_actor : int
        How many, 1..82.
    seed : int
        Seed of the corpus.

    Returns
    -------
    list of Clip

    Example
    -------
    >>> [clip_name(clip) for clip in cremad_clips(1001, 2, seed=0)]
    ['1001_DFA_ANG_XX', '1001_DFA_DIS_XX']
    >>> len({clip_name(clip) for clip in cremad_clips(1002, 82, seed=0)})
    82
    """
    levels = ("LO", "MD", "HI")
    first = actor % 3
    plan = []
    for turn in range(len(SENTENCE_ORDER)):
        sentence = SENTENCE_ORDER[turn]
        for emotion in EMOTIONS:
            leveled = sentence == "IEO" and emotion != "neutral"
            plan.append((emotion, sentence, levels[first] if leveled else "XX"))
    for more in (1, 2):
        for emotion in EMOTIONS:
            if emotion != "neutral":
                plan.append((emotion, "IEO", levels[(first + more) % 3]))
    return [Clip(actor, *part, seed=seed) for part in plan[:clips_per_actor]]


def _number(value):
    return f"{value:.15g}"


def _levels(value_lists):
    """Mean of each list as R prints them: two decimals, a common width."""
    means = [f"{np.mean(values):.2f}" for values in value_lists]
    while all(text[-1] == "0" for text in means) and "." in means[0]:
        means = [text[:-1].rstrip(".") for text in means]
        if any("." not in text for text in means):
            break
    return ":".join(means)


def _tally(votes, levels, normed):
    """Cells of one row of tabulatedVotes.csv after the id, and its winners."""
    counts = np.bincount(votes, minlength=len(EMOTIONS))
    winners = np.flatnonzero(counts == counts.max())
    cells = {"counts": counts.tolist(), "winners": winners}

    def means(values):
        per_emotion = [
            _number(values[votes == e].mean()) if counts[e] else "-1"
            for e in range(len(EMOTIONS))
        ]
        return [
            _number(values.mean()),
            *per_emotion,
            _number(np.median(values)),
        ]

    cells["means"] = means(levels) + means(normed)
    cells["agreement"] = _number(counts.max() / len(votes))
    cells["levels"] = _levels([levels[votes == e] for e in winners])
    cells["vote"] = ":".join(LETTERS[e] for e in winners)
    return cells


def tally_clip(clip):
    """All that the tables say of one clip.

    Arguments
    ---------
    clip : Clip
        The clip.

    Returns
    -------
    dict
        For each of "voice", "face" and "both" a dict: ``counts`` (votes in
        the order of ``LETTERS``), ``vote`` (winners' letters joined by ":"),
        ``levels``, ``agreement``, ``means`` (text, ready for the tables).

    Example
    -------
    >>> from vavl_sb.corpora.acting import Clip
    >>> tally = tally_clip(Clip(1001, "angry", "DFA", "XX", seed=0))
    >>> sorted(tally), len(tally["both"]["counts"])
    (['both', 'face', 'voice'], 6)
    """
    rng = clip.chance("levels")
    tally = {}
    for condition, votes in rate(clip).items():
        levels = np.clip(rng.normal(62, 20, len(votes)), 1, 100).round()
        habit = rng.normal(-4, 5, len(votes))
        normed = np.clip(levels + habit, 0, 100)
        tally[condition] = _tally(votes, levels, normed)
    return tally


def tables(clips):
    """The tables of CREMA-D for a list of clips.

    Arguments
    ---------
    clips : list of Clip
        The clips, in the order of the rows.

    Returns
    -------
    dict
        Text of each table by its path in the corpus.

    Example
    -------
    >>> from vavl_sb.corpora.acting import Clip
    >>> made = tables([Clip(1001, "angry", "DFA", "XX", seed=0)])
    >>> made["SentenceFilenames.csv"].splitlines()
    ['"Stimulus_Number","Filename"', '1,"1001_DFA_ANG_XX"']
    >>> len(made["processedResults/tabulatedVotes.csv"].splitlines())
    4
    """
    names = [clip_name(clip) for clip in clips]
    tallies = [tally_clip(clip) for clip in clips]
    actors = {clip.actor: clip.seed for clip in clips}
    numbered = [f'{i},"{name}"' for i, name in enumerate(names, 1)]
    return {
        "processedResults/tabulatedVotes.csv": _votes_table(names, tallies),
        "processedResults/summaryTable.csv": _summary_table(names, tallies),
        "VideoDemographics.csv": _actors_table(actors),
        "SentenceFilenames.csv": "\n".join(
            ['"Stimulus_Number","Filename"', *numbered]
        ),
    }


def _quoted(names):
    return ",".join(f'"{name}"' for name in names)


def _votes_table(names, tallies):
    kinds = [
        f"mean{word}Resp{norm}" if word != "median" else f"medianEmoResp{norm}"
        for norm in ("", "Norm")
        for word in ("Emo", *_WORDS, "median")
    ]
    header = ["", *LETTERS, "fileName", "numResponses", "agreement", "emoVote"]
    lines = [_quoted(header + kinds)]
    for digit, condition in CONDITIONS.items():
        for row, (name, tally) in enumerate(zip(names, tallies), 1):
            cell = tally[condition]
            votes = [str(count) for count in cell["counts"]]
            line = [f'"{digit}{row:05d}"', *votes, f'"{name}"']
            line += [str(sum(cell["counts"])), cell["agreement"]]
            lines.append(",".join([*line, f'"{cell["vote"]}"', *cell["means"]]))
    return "\n".join(lines) + "\n"


def _summary_table(names, tallies):
    header = ["", "FileName"]
    for name in ("Voice", "Face", "MultiModal"):
        header += [f"{name}Vote", f"{name}Level"]
    lines = [_quoted(header)]
    for row, (name, tally) in enumerate(zip(names, tallies), 1):
        cells = [str(row), name]
        for condition in CONDITIONS.values():
            cells += [tally[condition]["vote"], tally[condition]["levels"]]
        lines.append(_quoted(cells))
    return "\n".join(lines) + "\n"


def _actors_table(actors):
    lines = [_quoted(["ActorID", "Age", "Sex", "Race", "Ethnicity"])]
    for actor, seed in sorted(actors.items()):
        talker = cast(seed, actor)
        sex = "Female" if talker.female else "Male"
        # Drawn people have no race; the table has this word for that.
        lines.append(f'{actor},{talker.age},"{sex}","Unknown","Not Hispanic"')
    return "\n".join(lines) + "\n"
