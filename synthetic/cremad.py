"""CREMA-D's names, and its table of votes.

Columns, order, number formats and quirks of the table are those of the
released file (Cao et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors
Dataset", IEEE Transactions on Affective Computing 5(4), 2014): row ids whose
first digit says what was shown, tied votes joined by colons, -1 where nobody
voted.
"""

import numpy as np

from synthetic.layout import Layout
from synthetic.performance import EMOTIONS, Clip, rate
from synthetic.phones import SENTENCES

LETTERS = "ADFHNS"  # in the order of EMOTIONS
CODES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
WORDS = ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad")
# First digit of a row id: what its raters were shown.
SHOWN = {1: "voice", 2: "face", 3: "both"}
VOTES = "processedResults/tabulatedVotes.csv"


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
    >>> clip_name(Clip("1001", True, "angry", "DFA", "XX", seed=0))
    '1001_DFA_ANG_XX'
    """
    code = CODES[EMOTIONS.index(clip.emotion)]
    return f"{clip.speaker}_{clip.sentence}_{code}_{clip.level}"


def _clips(actor, seed):
    """The six emotions in one sentence, then in the next: words tell nothing.

    Sentence IEO is acted at three levels, as in CREMA-D; two of them come last.
    """
    levels = ("LO", "MD", "HI")
    first = int(actor) % 3
    plan = []
    for sentence in SENTENCES:
        for emotion in EMOTIONS:
            leveled = sentence == "IEO" and emotion != "neutral"
            plan.append((emotion, sentence, levels[first] if leveled else "XX"))
    for more in (1, 2):
        for emotion in EMOTIONS:
            if emotion != "neutral":
                plan.append((emotion, "IEO", levels[(first + more) % 3]))
    female = int(actor) % 2 == 0
    return [Clip(actor, female, *part, seed=seed) for part in plan]


def _files(clip):
    """Sound and video."""
    name = clip_name(clip)
    return f"AudioWAV/{name}.wav", f"VideoFlash/{name}.flv"


def _number(value):
    return f"{value:.15g}"


def _row(clip, shown):
    """Votes of the raters who were shown a clip, as cells of the table."""
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
    """The table of votes."""
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
