"""Generates a synthetic corpus in the layout of a real one."""

import argparse
import functools
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
from tqdm import tqdm

from synthetic import cremad, msp_improv, ravdess
from synthetic.face import FacePainter
from synthetic.media import FRAME_RATE, FRAME_SIZE, write_video, write_wav
from synthetic.motion import animate
from synthetic.performance import draw_speaker, perform
from synthetic.phones import SAMPLE_RATE
from synthetic.voice import AXES, speak
from vavl_sb.utils.corpora import SYNTHETIC as RECORD
from vavl_sb.utils.errors import CorpusError, VAVLError
from vavl_sb.utils.files import write_atomically, write_json
from vavl_sb.utils.text import say

LAYOUTS = {
    "crema-d": cremad.LAYOUT,
    "msp-improv": msp_improv.LAYOUT,
    "ravdess": ravdess.LAYOUT,
}
# Increase when the same seed gives other files.
VERSION = 2


def render_voice(clip):
    """Synthesizes the speech of a clip, as an Utterance."""
    style = dict(zip(AXES, perform(clip).voice, strict=True))
    _, voice = draw_speaker(clip.seed, clip.speaker, clip.female)
    return speak(clip.sentence, voice, style, clip.rng("voice"))


@functools.lru_cache(maxsize=2)
def _painter(seed, speaker, female, size):
    """Renders the static parts of a speaker once."""
    appearance, _ = draw_speaker(seed, speaker, female)
    rng = np.random.default_rng([seed, *speaker.encode()])
    return FacePainter(appearance, rng, size)


def render_frames(clip, utterance, frame_rate=FRAME_RATE, size=FRAME_SIZE):
    """Yields the RGB frames of a clip, of the duration of its utterance."""
    seconds = len(utterance.samples) / SAMPLE_RATE
    times = np.arange(round(seconds * frame_rate)) / float(frame_rate)
    painter = _painter(clip.seed, clip.speaker, clip.female, size)
    expression = perform(clip).face
    for frame in animate(utterance, expression, times, clip.rng("face")):
        yield painter.paint(**frame)


def _generate_files(job, frame_rate, size, silent_video):
    """Generates the files of one clip, except paths that are None."""
    clip, wav, video = job
    utterance = render_voice(clip)
    if wav is not None:
        write_wav(wav, utterance.samples)
    if video is not None:
        frames = render_frames(clip, utterance, frame_rate, size)
        sound = 0 * utterance.samples if silent_video else utterance.samples
        write_video(video, frames, sound, frame_rate, size)


def _choose_missing(clips, missing_audio, missing_video):
    """Selects the clips without an audio file and those without a video file.

    No clip lacks both. The shares are exact up to rounding, and the choice does
    not depend on the order of the clips.
    """
    ranked = sorted(clips, key=lambda clip: clip.rng("missing").random())
    kept = len(clips) - round(missing_video * len(clips))
    return set(ranked[: round(missing_audio * len(clips))]), set(ranked[kept:])


def generate_corpus(
    folder,
    layout="crema-d",
    speakers=None,
    clips_per_speaker=6,
    seed=0,
    missing_audio=0.0,
    missing_video=0.0,
    num_workers=2,
    frame_rate=FRAME_RATE,
    size=FRAME_SIZE,
    progress=True,
):
    """Generates a corpus, or its missing files.

    Existing files are kept: call the function again to finish a run that was
    stopped. The tables are written last.

    Arguments
    ---------
    folder : str or Path
        Output folder: new, empty, or with the same corpus.
    layout : str
        Corpus whose names and tables to use, a key of ``LAYOUTS``.
    speakers : None, int or iterable of str
        All speakers, the first N, or the given ones ("1001"; "F01"; "01").
    clips_per_speaker : int
        At most 82 in CREMA-D, 48 in MSP-IMPROV, 22 in RAVDESS.
    seed : int
        Seed, 0 or more.
    missing_audio, missing_video : float
        Shares of the clips whose audio or video file is not written, never both
        of a clip; their sum is at most 1. A video keeps its audio track.
    num_workers : int
        Number of processes.
    frame_rate : Fraction or int
        Frames per second of the videos.
    size : tuple of int
        Width and height of a frame in pixels, 4:3, even.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    dict
        Counts: ``speakers``, ``clips``, ``audio`` and ``video`` (files of the
        corpus), ``generated`` (clips for which this call wrote files).

    Raises
    ------
    CorpusError
        If an argument is invalid or the folder has other content.

    Example
    -------
    >>> generate_corpus(
    ...     getfixture("tmp_path"),
    ...     speakers=1,
    ...     clips_per_speaker=2,
    ...     missing_video=0.5,
    ...     num_workers=1,
    ...     progress=False,
    ... )
    {'speakers': 1, 'clips': 2, 'audio': 2, 'video': 1, 'generated': 2}
    """
    folder, kind = Path(folder), LAYOUTS[layout]
    names = _choose_speakers(kind.speakers, speakers)
    frame_rate = Fraction(frame_rate).limit_denominator(1001)
    most = len(kind.clips(names[0], seed))
    if not 1 <= clips_per_speaker <= most:
        raise CorpusError(
            f"clips_per_speaker is {clips_per_speaker}: give 1 to {most}"
        )
    shares = (missing_audio, missing_video)
    if min(shares) < 0 or sum(shares) > 1:
        raise CorpusError(
            f"missing_audio is {missing_audio} and missing_video "
            f"{missing_video}: give 0 or more, together at most 1"
        )
    settings = {
        "version": VERSION,
        "layout": layout,
        "speakers": names,
        "clips_per_speaker": clips_per_speaker,
        "seed": seed,
        "missing_audio": missing_audio,
        "missing_video": missing_video,
        "frame_rate": str(frame_rate),
        "size": list(size),
    }
    clips = [
        clip
        for name in names
        for clip in kind.clips(name, seed)[:clips_per_speaker]
    ]
    missing = _choose_missing(clips, missing_audio, missing_video)
    generate = functools.partial(
        _generate_files,
        frame_rate=frame_rate,
        size=tuple(size),
        silent_video=kind.silent_video,
    )
    _claim(folder, settings)
    jobs = _missing_files(folder, kind.files, clips, missing)
    _run(generate, jobs, num_workers, progress)
    for name, text in kind.tables(clips).items():
        write_atomically(folder / name, text.encode())
    return {
        "speakers": len(names),
        "clips": len(clips),
        "audio": len(clips) - len(missing[0]),
        "video": len(clips) - len(missing[1]),
        "generated": len(jobs),
    }


def _choose_speakers(all_names, wanted):
    """Returns all speakers, the first N, or the named ones, in the order of the
    corpus."""
    if wanted is None:
        return list(all_names)
    if isinstance(wanted, int):
        unknown = not 1 <= wanted <= len(all_names)
        chosen = all_names[:wanted]
    else:
        wanted = list(wanted)
        unknown = sorted(set(wanted) - set(all_names)) or not wanted
        chosen = [name for name in all_names if name in wanted]
    if unknown:
        raise CorpusError(
            f"speakers is {wanted}: give 1 to {len(all_names)}, or names from "
            f"{all_names[0]} to {all_names[-1]}"
        )
    return list(chosen)


def _claim(folder, settings):
    """Records the settings of a new corpus; raises an error if the folder has
    another corpus or other files."""
    record = folder / RECORD
    if record.exists():
        recorded = json.loads(record.read_text(encoding="utf-8"))
        differ = [k for k in settings if recorded.get(k) != settings[k]]
        if differ:
            raise CorpusError(
                f"{folder} has a synthetic corpus of other settings "
                f"({', '.join(differ)}): delete it or choose another folder"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise CorpusError(
            f"{folder} has other files: choose another folder, nothing was "
            "written"
        )
    write_json(record, settings)


def _missing_files(folder, files, clips, missing):
    """Lists (clip, audio path, video path) of missing files; None for files
    that exist or are not wanted."""
    jobs = []
    for clip in clips:
        paths = []
        for name, without in zip(files(clip), missing, strict=True):
            path = folder / name
            wanted = clip not in without and not path.exists()
            paths.append(path if wanted else None)
        if any(paths):
            jobs.append((clip, *paths))
    return jobs


def _run(generate, jobs, num_workers, progress):
    """Generates all missing files, with a progress bar."""
    show = functools.partial(
        tqdm, total=len(jobs), unit="clip", disable=not progress
    )
    if num_workers <= 1 or len(jobs) <= 1:
        for job in show(jobs):
            generate(job)
        return
    # Spawned, not forked: forking a process that runs threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        try:
            # In chunks, so that a speaker's head is rendered once for several.
            for _ in show(pool.map(generate, jobs, chunksize=6)):
                pass
        finally:
            pool.shutdown(cancel_futures=True)


def main(arguments=None):
    """Runs the command line.

    Arguments
    ---------
    arguments : list of str, optional
        Words of the command line; by default those of the process.

    Returns
    -------
    int
        Exit status: 0, or 1 after an error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m synthetic",
        description="Generates a small synthetic talking-face corpus.",
    )
    add = parser.add_argument
    add("output", help="folder of the corpus")
    add("--layout", choices=sorted(LAYOUTS), default="crema-d")
    add(
        "--speakers",
        metavar="N|LIST",
        help="number, or names (1001,1005 or F01,M01); default: all",
    )
    add("--clips-per-speaker", type=int, default=6, metavar="K")
    add("--seed", type=int, default=0)
    share = "share of the clips without this file"
    add("--missing-audio", type=float, default=0.0, metavar="P", help=share)
    add("--missing-video", type=float, default=0.0, metavar="P", help=share)
    add(
        "--frame-rate",
        type=Fraction,
        default=FRAME_RATE,
        metavar="F",
        help="frames per second; CREMA-D: 30000/1001 (default: half of it)",
    )
    add("--workers", type=int, default=2, metavar="W", dest="num_workers")
    options = vars(parser.parse_args(arguments))
    folder, wanted = options.pop("output"), options.pop("speakers")
    if wanted is not None:
        names = wanted.split(",")
        known = LAYOUTS[options["layout"]].speakers
        by_number = wanted.isdigit() and wanted not in known
        wanted = int(wanted) if by_number else names
    try:
        counts = generate_corpus(folder, speakers=wanted, **options)
    except VAVLError as error:
        say(f"error: {error}", file=sys.stderr)
        return 1
    say(
        "{clips} clips of {speakers} speakers in {folder}: {audio} wav, "
        "{video} video; generated now: {generated}".format(
            folder=folder, **counts
        )
    )
    return 0
