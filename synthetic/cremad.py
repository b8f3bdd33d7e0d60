"""Layout of CREMA-D: file names and the table of votes.

Columns, order, number formats and quirks of the table are those of the
released file (Cao et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors
Dataset", IEEE Transactions on Affective Computing 5(4), 2014): the first digit
of a row id is the modality shown, tied votes are joined by colons, and -1 means
no votes.
"""

import numpy as np

from synthetic.layout import Layout
from synthetic.performance import EMOTIONS, Clip, rate
from synthetic.phones import SENTENCES

LETTERS = "ADFHNS"  # in the order of EMOTIONS
CODES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
WORDS = ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad")
# First digit of a row id: the modality that its raters were shown.
SHOWN = {1: "voice", 2: "face", 3: "both"}
VOTES = "processedResults/tabulatedVotes.csv"


def clip_name(clip):
    """Returns the name of a clip in CREMA-D: actor, sentence, emotion, level.

    Arguments
    ---------
    clip : Clip
        The clip.

    Returns
    -------
    str

    Example
    -------
    >>> clip_name(Clip("1001", True, "angry", "DFA", "XX", seed=0))
    '1001_DFA_ANG_XX'
    """
    code = CODES[EMOTIONS.index(clip.emotion)]
    return f"{clip.speaker}_{clip.sentence}_{code}_{clip.level}"


def _clips(actor, seed):
    """Returns the clips of an actor: each sentence in all six emotions, so that
    words do not depend on emotion.

    Sentence IEO has three levels, as in CREMA-D; two of them come last.
    """
    levels = ("LO", "MD", "HI")
    first = int(actor) % 3
    plan = []
    for sentence in SENTENCES:
        for emotion in EMOTIONS:
            leveled = sentence == "IEO" and emotion != "neutral"
            plan.append((emotion, sentence, levels[first] if leveled else "XX"))
    for offset in (1, 2):
        for emotion in EMOTIONS:
            if emotion != "neutral":
                plan.append((emotion, "IEO", levels[(first + offset) % 3]))
    female = int(actor) % 2 == 0
    return [Clip(actor, female, *part, seed=seed) for part in plan]


def _files(clip):
    """Returns the paths of the audio and video files."""
    name = clip_name(clip)
    return f"AudioWAV/{name}.wav", f"VideoFlash/{name}.flv"


def _number(value):
    return f"{value:.15g}"


def _row(clip, shown):
    """Returns the cells of the table for the votes of one group of raters."""
    votes, rng = rate(clip)[shown], clip.rng(f"levels {shown}")
    counts = np.bincount(votes, minlength=len(EMOTIONS))
    winners = np.flatnonzero(counts == counts.max())
    levels = np.clip(rng.normal(62, 20, len(votes)), 1, 100).round()
    normed = np.clip(levels + rng.normal(-4, 5, len(votes)), 0, 100)
    cells = [*map(str, counts), f'"{clip_name(clip)}"', str(len(votes))]
    cells += [_number(counts.max() / len(votes))]
    cells += ['"' + ":".join(LETTERS[winner] for winner in winners) + '"']
    for values in (levels, normed):
        cells.append(_number(values.mean()))
        cells += [
            _number(values[votes == e].mean()) if counts[e] else "-1"
            for e in range(len(EMOTIONS))
        ]
        cells.append(_number(np.median(values)))
    return cells


def _tables(clips):
    """Returns the table of votes by its path."""
    means = [
        f"{kind}Resp{norm}"
        for norm in ("", "Norm")
        for kind in ("meanEmo", *(f"mean{w}" for w in WORDS), "medianEmo")
    ]
    header = ["", *LETTERS, "fileName", "numResponses", "agreement", "emoVote"]
    lines = [",".join(f'"{name}"' for name in header + means)]
    for digit, shown in SHOWN.items():
        for number, clip in enumerate(clips, 1):
            cells = [f'"{digit}{number:05d}"', *_row(clip, shown)]
            lines.append(",".join(cells))
    return {VOTES: "\n".join(lines) + "\n"}


LAYOUT = Layout(tuple(map(str, range(1001, 1092))), _clips, _files, _tables)
