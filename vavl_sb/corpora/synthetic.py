"""A small talking-face corpus, drawn and voiced from a seed.

It needs no download and is laid out as a real corpus is, file names, tables
and quirks included, so that the recipe of the real corpus runs on it
unchanged::

    python -m vavl_sb.corpora.synthetic OUTPUT --actors 12 --seed 0

What is acted and how raters see it is in :mod:`vavl_sb.corpora.acting`. A
clip's content depends on the seed and the clip's name alone: a corpus of fewer
actors has the same files, byte for byte. A killed run goes on where it was.

Authors
 * The vavl_sb authors 2026
"""

import argparse
import re
import sys
from fractions import Fraction

from vavl_sb.corpora.cremad import (
    ACTORS,
    CORPUS_PATHS,
    MAX_CLIPS,
    clip_name,
    cremad_clips,
    tables,
)
from vavl_sb.corpora.making import (  # noqa: F401
    GENERATOR,
    RECORD,
    Layout,
    choose_missing,
    make_corpus,
)
from vavl_sb.corpora.msp_improv import make_msp_improv
from vavl_sb.corpora.ravdess import make_ravdess
from vavl_sb.corpora.render import FRAME_RATE, FRAME_SIZE
from vavl_sb.utils.errors import CorpusError
from vavl_sb.utils.text import say


def choose_actors(actors):
    """Turns the argument `actors` into a list of actor numbers.

    Arguments
    ---------
    actors : None, int or iterable of int
        All 91, the first so many, or these.

    Returns
    -------
    list of int
        Sorted, each once.

    Example
    -------
    >>> choose_actors(2), choose_actors([1090, 1001]), len(choose_actors(None))
    ([1001, 1002], [1001, 1090], 91)
    """
    if actors is None:
        return list(ACTORS)
    if isinstance(actors, int):
        if not 1 <= actors <= len(ACTORS):
            raise CorpusError(
                f"{actors} actors were asked for: there are 1 to {len(ACTORS)}"
            )
        return list(ACTORS[:actors])
    unknown = [actor for actor in actors if actor not in ACTORS]
    chosen = sorted(set(actors) - set(unknown))
    if unknown or not chosen:
        raise CorpusError(
            f"no such actors: {unknown or 'the list is empty'}; "
            f"they are {ACTORS[0]} to {ACTORS[-1]}"
        )
    return chosen


def _cremad_files(clip):
    """The paths of a clip's files below the corpus."""
    name = clip_name(clip)
    return f"AudioWAV/{name}.wav", f"VideoFlash/{name}.flv"


CREMAD = Layout(
    name="crema-d",
    top=CORPUS_PATHS,
    max_clips=MAX_CLIPS,
    clips=cremad_clips,
    files=_cremad_files,
    tables=tables,
)


def make_cremad(
    folder,
    actors=None,
    clips_per_actor=6,
    seed=0,
    missing_audio=0.0,
    missing_video=0.0,
    num_workers=2,
    frame_rate=FRAME_RATE,
    size=FRAME_SIZE,
    progress=True,
):
    """Makes a synthetic corpus in the layout of CREMA-D.

    Files that are there already are kept: call it again to finish a run that
    was stopped. The tables are written last. A clip whose WAV is withheld
    keeps the sound track of its FLV, as a file of the corpus would.

    Arguments
    ---------
    folder : str or Path
        Where to; made if need be. A folder that holds anything else than this
        corpus is refused.
    actors : None, int or iterable of int
        All 91 actors, the first so many, or these (1001..1091).
    clips_per_actor : int
        1..82; see :func:`cremad_clips`.
    seed : int
        Seed, 0 or more.
    missing_audio, missing_video : float
        Shares of the clips whose WAV or FLV is not written, never both of a
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
        Counts: ``actors``, ``clips``, ``audio`` and ``video`` (files that the
        corpus has), ``made`` (clips of which this call made a file).

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     counts = make_cremad(
    ...         folder,
    ...         actors=1,
    ...         clips_per_actor=2,
    ...         missing_video=0.5,
    ...         num_workers=1,
    ...         progress=False,
    ...     )
    >>> counts
    {'actors': 1, 'clips': 2, 'audio': 2, 'video': 1, 'made': 2}
    """
    return make_corpus(
        folder,
        CREMAD,
        choose_actors(actors),
        clips_per_actor=clips_per_actor,
        seed=seed,
        missing_audio=missing_audio,
        missing_video=missing_video,
        num_workers=num_workers,
        frame_rate=frame_rate,
        size=size,
        progress=progress,
    )


# A layout is a function that takes folder, actors, clips_per_actor, seed,
# missing_audio, missing_video and num_workers. One for another corpus maps its
# own names to `Clip` and calls `make_corpus`.
LAYOUTS = {
    "crema-d": make_cremad,
    "msp-improv": make_msp_improv,
    "ravdess": make_ravdess,
}


def _actors_argument(text):
    """ "12" is the first twelve; "1001,1005", "1001" or "F01" are those."""
    actors = [
        part if re.fullmatch(r"[FM]\d+", part) else int(part)
        for part in text.split(",")
    ]
    if len(actors) == 1 and actors[0] in range(len(ACTORS) + 1):
        return actors[0]
    return actors


def main(arguments=None):
    """Command line; ``--help`` tells the options.

    Arguments
    ---------
    arguments : list of str, optional
        Words of the command line; those of the process by default.

    Returns
    -------
    int
        Exit status: 0, or 1 after an error, which is printed as one line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m vavl_sb.corpora.synthetic",
        description="Makes a small synthetic talking-face corpus.",
    )
    parser.add_argument("output", help="folder of the corpus")
    parser.add_argument(
        "--layout",
        choices=sorted(LAYOUTS),
        default="crema-d",
        help="whose names and tables to use",
    )
    parser.add_argument(
        "--actors",
        type=_actors_argument,
        metavar="N|LIST",
        help="how many, or which (1001,1002,... or F01,M01,...); default: all",
    )
    parser.add_argument("--clips-per-actor", type=int, default=6, metavar="K")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--missing-audio",
        type=float,
        default=0.0,
        metavar="P",
        help="share of the clips without a wav",
    )
    parser.add_argument(
        "--missing-video",
        type=float,
        default=0.0,
        metavar="P",
        help="share of the clips without a video file",
    )
    parser.add_argument(
        "--frame-rate",
        type=Fraction,
        default=FRAME_RATE,
        metavar="F",
        help="frames a second; 30000/1001 as in CREMA-D (default: half of it)",
    )
    parser.add_argument("--workers", type=int, default=2, metavar="W")
    chosen = parser.parse_args(arguments)
    try:
        counts = LAYOUTS[chosen.layout](
            chosen.output,
            actors=chosen.actors,
            clips_per_actor=chosen.clips_per_actor,
            seed=chosen.seed,
            missing_audio=chosen.missing_audio,
            missing_video=chosen.missing_video,
            num_workers=chosen.workers,
            frame_rate=chosen.frame_rate,
        )
    except CorpusError as error:
        say(f"error: {error.text}", file=sys.stderr)
        return 1
    say(
        "{clips} clips of {actors} actors in {folder}: {audio} wav, "
        "{video} video; made now: {made}".format(folder=chosen.output, **counts)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
