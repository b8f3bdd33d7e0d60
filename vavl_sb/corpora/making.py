"""What the synthetic corpora of all layouts share: files made once and whole.

A layout says what the clips of an actor are, what their files are called and
what the tables say; :func:`make_corpus` does the rest.

Authors
 * The vavl_sb authors 2026
"""

import dataclasses
import functools
import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from fractions import Fraction
from pathlib import Path

from tqdm import tqdm

from vavl_sb.corpora.render import (
    FRAME_RATE,
    FRAME_SIZE,
    make_files,
    write_text,
)
from vavl_sb.utils.corpora import SYNTHETIC as RECORD
from vavl_sb.utils.errors import CorpusError

# Raise this when the same seed gives other files than before.
GENERATOR = 1


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a corpus names its files and what its tables say.

    Arguments
    ---------
    name : str
        Its name on the command line.
    top : tuple of str
        What lies at the top of the corpus.
    max_clips : int
        Clips of one actor at the most.
    clips : callable
        Actor, number of clips and seed to a list of Clip.
    files : callable
        Clip to the paths of its sound and its video, below the corpus.
    tables : callable
        List of Clip to the text of each table by its path.
    """

    name: str
    top: tuple
    max_clips: int
    clips: Callable
    files: Callable
    tables: Callable


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
    >>> from vavl_sb.corpora.cremad import cremad_clips
    >>> clips = cremad_clips(1001, 10, seed=0)
    >>> deaf, blind = choose_missing(clips, 0.3, 0.2)
    >>> len(deaf), len(blind), len(deaf & blind)
    (3, 2, 0)
    """
    ranked = sorted(clips, key=lambda clip: clip.chance("missing").random())
    without = min(round(missing_video * len(clips)), len(clips))
    deaf = min(round(missing_audio * len(clips)), len(clips) - without)
    return set(ranked[:deaf]), set(ranked[len(clips) - without :])


def make_corpus(
    folder,
    layout,
    actors,
    clips_per_actor,
    seed,
    missing_audio,
    missing_video,
    num_workers=2,
    frame_rate=FRAME_RATE,
    size=FRAME_SIZE,
    progress=True,
):
    """Makes a synthetic corpus, or what is missing of it.

    Files that are there already are kept. The tables are written last.

    Arguments
    ---------
    folder : str or Path
        Where to; made if need be. A folder that holds anything else than this
        corpus is refused.
    layout : Layout
        Whose names and tables to use.
    actors : list
        Who is in it, as the layout's `clips` takes them.
    clips_per_actor : int
        1 to the layout's `max_clips`.
    seed : int
        Seed, 0 or more.
    missing_audio, missing_video : float
        Shares of the clips whose sound or video file is not written, never
        both of a clip; together at most 1.
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
    """
    folder = Path(folder)
    most = layout.max_clips
    check_numbers(clips_per_actor, most, seed, missing_audio, missing_video)
    frame_rate = check_video(frame_rate, size)
    settings = {
        "generator": GENERATOR,
        "layout": layout.name,
        "actors": actors,
        "clips_per_actor": clips_per_actor,
        "seed": seed,
        "missing_audio": missing_audio,
        "missing_video": missing_video,
        "frame_rate": str(frame_rate),
        "size": list(size),
    }
    clips = [
        clip
        for actor in actors
        for clip in layout.clips(actor, clips_per_actor, seed)
    ]
    deaf, blind = choose_missing(clips, missing_audio, missing_video)
    try:
        check_folder(folder, settings, layout.top)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / RECORD, json.dumps(settings, indent=1) + "\n")
        jobs = _missing_files(folder, layout, clips, deaf, blind)
        run_jobs(jobs, num_workers, frame_rate, tuple(size), progress)
        for name, text in layout.tables(clips).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(folder / name, text)
    except OSError as error:
        raise CorpusError(
            f"{folder} cannot be written ({error}): free space or choose "
            "another folder, then run again"
        ) from error
    return {
        "actors": len(actors),
        "clips": len(clips),
        "audio": len(clips) - len(deaf),
        "video": len(clips) - len(blind),
        "made": len(jobs),
    }


def _missing_files(folder, layout, clips, deaf, blind):
    """Makes the folders and lists what is not there yet."""
    jobs = []
    for clip in clips:
        sound, video = (folder / name for name in layout.files(clip))
        for path in (sound, video):
            path.parent.mkdir(parents=True, exist_ok=True)
        sound = None if clip in deaf or sound.exists() else sound
        video = None if clip in blind or video.exists() else video
        if sound is not None or video is not None:
            jobs.append((clip, sound, video))
    return jobs


def run_jobs(jobs, num_workers, frame_rate, size, progress, make=make_files):
    """Makes all missing files, an actor at a time, with a progress bar.

    Arguments
    ---------
    jobs : list of tuple
        What `make` takes a list of; a Clip comes first.
    num_workers : int
        Processes.
    frame_rate : Fraction
        Frames a second of the videos.
    size : tuple of int
        Width and height of a frame in pixels.
    progress : bool
        Whether to show a progress bar.
    make : callable
        Makes the files of some jobs and returns how many.
    """
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
        count = min(num_workers, len(by_actor))
        with ProcessPoolExecutor(count, mp_context=context) as pool:
            waiting = [pool.submit(work, part) for part in by_actor.values()]
            try:
                for done in as_completed(waiting):
                    bar.update(done.result())
            except BrokenProcessPool:
                raise CorpusError(
                    "a process that makes clips ended at once or was killed: "
                    'in a script, call this below if __name__ == "__main__", '
                    "or give num_workers=1"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)


def check_folder(folder, settings, top):
    """Refuses a folder that holds something else than this very corpus.

    Arguments
    ---------
    folder : Path
        The folder.
    settings : dict
        What makes the corpus what it is, as in its record.
    top : iterable of str
        What lies at the top of such a corpus.
    """
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
    for name in top:
        if (folder / name).exists():
            raise CorpusError(
                f"{folder} already has {name}, which was not made here: "
                "choose another folder, nothing was written"
            )


def check_numbers(clips, most, seed, missing_audio, missing_video):
    """Refuses numbers out of range.

    Arguments
    ---------
    clips, most : int
        Clips of an actor, and how many there are at the most.
    seed : int
        Must not be negative.
    missing_audio, missing_video : float
        Shares of the clips, together at most 1.
    """
    if not 1 <= clips <= most:
        raise CorpusError(f"clips_per_actor is {clips}: it must be 1 to {most}")
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


def check_video(frame_rate, size):
    """Refuses videos that cannot be made.

    Arguments
    ---------
    frame_rate : Fraction or float
        Frames a second.
    size : tuple of int
        Width and height in pixels.

    Returns
    -------
    Fraction
        The rate.
    """
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
