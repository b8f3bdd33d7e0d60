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
import functools
import json
import multiprocessing
import sys
from fractions import Fraction
from pathlib import Path

from tqdm import tqdm

from vavl_sb.corpora.cremad import (
    ACTORS,
    CORPUS_PATHS,
    MAX_CLIPS,
    clip_name,
    cremad_clips,
    tables,
)
from vavl_sb.corpora.ravdess import make_ravdess
from vavl_sb.corpora.render import (
    FRAME_RATE,
    FRAME_SIZE,
    make_files,
    write_text,
)
from vavl_sb.utils.errors import CorpusError

# Raise this when the same seed gives other files than before.
GENERATOR = 1
RECORD = "synthetic.json"


def choose_missing(clips, missing_audio, missing_video):
    """Chooses which clips lack a file; no clip lacks both.

    Arguments
    ---------
    clips : list of Clip
        All clips.
    missing_audio, missing_video : float
        Shares of the clips, 0..1, together at most 1.

    Returns
    -------
    no_audio, no_video : set of Clip
        Exactly the rounded shares.

    Example
    -------
    >>> clips = cremad_clips(1001, 10, seed=0)
    >>> deaf, blind = choose_missing(clips, 0.3, 0.2)
    >>> len(deaf), len(blind), len(deaf & blind)
    (3, 2, 0)
    """
    ranked = sorted(clips, key=lambda clip: clip.chance("missing").random())
    without = min(round(missing_video * len(clips)), len(clips))
    deaf = min(round(missing_audio * len(clips)), len(clips) - without)
    return set(ranked[:deaf]), set(ranked[len(clips) - without :])


def _run(jobs, num_workers, frame_rate, size, progress, make=make_files):
    """Makes all missing files, an actor at a time, with a progress bar."""
    by_actor = {}
    for job in jobs:
        by_actor.setdefault(job[0].actor, []).append(job)
    work = functools.partial(make, frame_rate=frame_rate, size=size)
    bar = tqdm(total=len(jobs), unit="clip", desc="clips", disable=not progress)
    with bar:
        if num_workers <= 1 or len(by_actor) <= 1:
            for part in by_actor.values():
                bar.update(work(part))
            return
        # Spawned, not forked: forking a process that runs threads (torch,
        # x264) can hang.
        context = multiprocessing.get_context("spawn")
        with context.Pool(min(num_workers, len(by_actor))) as pool:
            for made in pool.imap_unordered(work, by_actor.values()):
                bar.update(made)


def _check_folder(folder, settings, paths=CORPUS_PATHS):
    """Refuses a folder that holds something else than this very corpus."""
    record = folder / RECORD
    if record.exists():
        try:
            found = json.loads(record.read_text())
        except (OSError, ValueError) as error:
            raise CorpusError(
                f"{record} cannot be read ({error}): "
                "delete the folder or choose another"
            ) from error
        if found == settings:
            return
        differ = ", ".join(
            key for key in settings if found.get(key) != settings[key]
        )
        raise CorpusError(
            f"{folder} holds a synthetic corpus of other settings ({differ}): "
            "delete it or choose another folder"
        )
    for name in paths:
        if (folder / name).exists():
            raise CorpusError(
                f"{folder} already has {name}, which was not made here: "
                "choose another folder, nothing was written"
            )


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
    chosen = sorted(set(actors))
    unknown = [actor for actor in chosen if actor not in ACTORS]
    if unknown or not chosen:
        raise CorpusError(
            f"no such actors: {unknown or 'the list is empty'}; "
            f"they are {ACTORS[0]} to {ACTORS[-1]}"
        )
    return chosen


def _check_numbers(
    clips_per_actor, seed, missing_audio, missing_video, most=MAX_CLIPS
):
    if not 1 <= clips_per_actor <= most:
        raise CorpusError(
            f"clips_per_actor is {clips_per_actor}: it must be 1 to {most}"
        )
    if seed < 0:
        raise CorpusError(f"seed is {seed}: it must not be negative")
    for name, share in (
        ("missing_audio", missing_audio),
        ("missing_video", missing_video),
    ):
        if not 0 <= share <= 1:
            raise CorpusError(f"{name} is {share}: it must be from 0 to 1")
    if missing_audio + missing_video > 1:
        raise CorpusError(
            f"missing_audio {missing_audio} and missing_video {missing_video} "
            "make more than 1: a clip cannot lack both"
        )


def _check_video(frame_rate, size):
    """Refuses videos that cannot be made; returns the rate as a fraction."""
    frame_rate = Fraction(frame_rate).limit_denominator(1001)
    if not 1 <= frame_rate <= 60:
        raise CorpusError(
            f"frame_rate is {float(frame_rate):g}: it must be 1 to 60"
        )
    width, height = size
    if 3 * width != 4 * height or width % 2 or height % 2 or height < 60:
        raise CorpusError(
            f"size is {width}x{height}: it must be 4:3 in even numbers, "
            "at least 80x60"
        )
    return frame_rate


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
    folder = Path(folder)
    numbers = choose_actors(actors)
    _check_numbers(clips_per_actor, seed, missing_audio, missing_video)
    frame_rate = _check_video(frame_rate, size)
    settings = {
        "generator": GENERATOR,
        "layout": "crema-d",
        "actors": numbers,
        "clips_per_actor": clips_per_actor,
        "seed": seed,
        "missing_audio": missing_audio,
        "missing_video": missing_video,
        "frame_rate": str(frame_rate),
        "size": list(size),
    }
    clips = [
        clip
        for actor in numbers
        for clip in cremad_clips(actor, clips_per_actor, seed)
    ]
    deaf, blind = choose_missing(clips, missing_audio, missing_video)
    try:
        _check_folder(folder, settings)
        jobs = _prepare_jobs(folder, settings, clips, deaf, blind)
        _run(jobs, num_workers, frame_rate, tuple(size), progress)
        for name, text in tables(clips).items():
            write_text(folder / name, text)
    except OSError as error:
        raise CorpusError(
            f"{folder} cannot be written ({error}): free space or choose "
            "another folder, then run again"
        ) from error
    return {
        "actors": len(numbers),
        "clips": len(clips),
        "audio": len(clips) - len(deaf),
        "video": len(clips) - len(blind),
        "made": len(jobs),
    }


def _prepare_jobs(folder, settings, clips, deaf, blind):
    """Makes the folders and lists what is not there yet."""
    for name in ("AudioWAV", "VideoFlash", "processedResults"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_text(folder / RECORD, json.dumps(settings, indent=1) + "\n")
    jobs = []
    for clip in clips:
        wav = folder / "AudioWAV" / f"{clip_name(clip)}.wav"
        flv = folder / "VideoFlash" / f"{clip_name(clip)}.flv"
        wav = None if clip in deaf or wav.exists() else wav
        flv = None if clip in blind or flv.exists() else flv
        if wav is not None or flv is not None:
            jobs.append((clip, wav, flv))
    return jobs


# A layout is a function that takes folder, actors, clips_per_actor, seed,
# missing_audio, missing_video and num_workers. One for another corpus maps its
# own names to `Clip` and writes what `render` makes under them.
LAYOUTS = {"crema-d": make_cremad, "ravdess": make_ravdess}


def _actors_argument(text):
    """ "12" is the first twelve; "1001,1005" or "1001" are those."""
    numbers = [int(part) for part in text.split(",")]
    if len(numbers) == 1 and numbers[0] <= len(ACTORS):
        return numbers[0]
    return numbers


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
        help="how many, or which (1001,1002,...); default: all",
    )
    parser.add_argument("--clips-per-actor", type=int, default=6, metavar="K")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--missing-audio",
        type=float,
        default=0.0,
        metavar="P",
        help="share of the clips without sound",
    )
    parser.add_argument(
        "--missing-video",
        type=float,
        default=0.0,
        metavar="P",
        help="share of the clips without a picture",
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
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        "{clips} clips of {actors} actors in {folder}: {audio} with sound, "
        "{video} with a picture; made now: {made}".format(
            folder=chosen.output, **counts
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
