"""The synthetic corpus in the layout of RAVDESS.

Files are named as RAVDESS names them (Livingstone & Russo, "The Ryerson
Audio-Visual Database of Emotional Speech and Song (RAVDESS)", PLoS ONE
13(5):e0196391, 2018)::

    python -m vavl_sb.corpora.synthetic OUTPUT --layout ravdess --actors 12

Even actors are women. What is said are two of the twelve sentences that the
synthetic talkers know; calm and surprised, song and second repetitions are not
made.

Authors
 * The vavl_sb authors 2026
"""

import functools
import itertools
import json
from pathlib import Path

from vavl_sb.corpora.acting import Clip, cast
from vavl_sb.corpora.making import (
    GENERATOR,
    RECORD,
    check_folder,
    check_numbers,
    check_video,
    choose_missing,
    run_jobs,
)
from vavl_sb.corpora.mp4 import write_mp4
from vavl_sb.corpora.render import (
    FRAME_RATE,
    FRAME_SIZE,
    render_frames,
    render_voice,
    write_text,
    write_wav,
)
from vavl_sb.utils.errors import CorpusError

ACTORS = range(1, 25)
# Audio and video, video only, audio only.
PARTS = {"01": "mp4", "02": "mp4", "03": "wav"}
CODES = {
    "neutral": "01",
    "happy": "03",
    "sad": "04",
    "angry": "05",
    "fear": "06",
    "disgust": "07",
}
STATEMENTS = {"DFA": "01", "IWW": "02"}
INTENSITIES = {"MD": "01", "HI": "02"}  # normal and strong
MAX_CLIPS = 22  # of one actor: neutral is never strong
# Talkers of other layouts have numbers below; a multiple of 24.
_FIRST_TALKER = 24000


@functools.lru_cache(maxsize=128)
def talker_number(actor, seed):
    """The number of a talker who has the sex that an actor's number tells.

    Arguments
    ---------
    actor : int
        1..24.
    seed : int
        Seed of the corpus.

    Returns
    -------
    int
        For :func:`vavl_sb.corpora.acting.cast`; no two actors share one.

    Example
    -------
    >>> cast(0, talker_number(1, 0)).female, cast(0, talker_number(2, 0)).female
    (False, True)
    """
    female = actor % 2 == 0
    for number in itertools.count(_FIRST_TALKER + actor, len(ACTORS)):
        if cast(seed, number).female == female:
            return number


def actor_of(clip):
    """The actor of a clip.

    Arguments
    ---------
    clip : Clip
        One of :func:`ravdess_clips`.

    Returns
    -------
    int
        1..24.
    """
    return (clip.actor - 1) % len(ACTORS) + 1


def file_path(clip, part):
    """Where a file of a clip lies in the corpus.

    Arguments
    ---------
    clip : Clip
        One of :func:`ravdess_clips`.
    part : str
        "01", "02" or "03".

    Returns
    -------
    str

    Example
    -------
    >>> file_path(ravdess_clips(12, 1, seed=0)[0], "03")
    'Actor_12/03-01-01-01-01-01-12.wav'
    """
    code, actor = CODES[clip.emotion], f"{actor_of(clip):02d}"
    name = (part, "01", code, INTENSITIES[clip.level])
    name += (STATEMENTS[clip.sentence], "01", actor)
    return f"Actor_{actor}/{'-'.join(name)}.{PARTS[part]}"


def ravdess_clips(actor, clips_per_actor, seed):
    """The clips of one actor, in the order in which they are added.

    First come the six emotions in one sentence, so that the words tell nothing
    of the emotion, then in the other, then both with strong intensity.

    Arguments
    ---------
    actor : int
        1..24.
    clips_per_actor : int
        How many, 1..22.
    seed : int
        Seed of the corpus.

    Returns
    -------
    list of Clip

    Example
    -------
    >>> [clip.emotion for clip in ravdess_clips(1, 3, seed=0)]
    ['neutral', 'happy', 'sad']
    """
    plan = [
        (emotion, sentence, level)
        for level in INTENSITIES
        for sentence in STATEMENTS
        for emotion in CODES
        if (emotion, level) != ("neutral", "HI")
    ]
    number = talker_number(actor, seed)
    return [Clip(number, *part, seed=seed) for part in plan[:clips_per_actor]]


def make_ravdess(
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
    parts=("02", "03"),
):
    """Makes a synthetic corpus in the layout of RAVDESS.

    Files that are there already are kept: call it again to finish a run that
    was stopped.

    Arguments
    ---------
    folder : str or Path
        Where to; made if need be. A folder that holds anything else than this
        corpus is refused.
    actors : None, int or iterable of int
        All 24 actors, the first so many, or these (1..24).
    clips_per_actor : int
        1..22; see :func:`ravdess_clips`.
    seed : int
        Seed, 0 or more.
    missing_audio : float
        Share of the clips that only have their 02- file, which is silent.
    missing_video : float
        Share of the clips that only have their 03- file; together at most 1.
    num_workers : int
        Processes.
    frame_rate : Fraction or int
        Frames a second of the videos.
    size : tuple of int
        Width and height of a frame in pixels, 4:3, even; RAVDESS itself is
        16:9.
    progress : bool
        Whether to show a progress bar.
    parts : iterable of str
        Which files the other clips have: "01" picture and sound, "02" picture
        and a silent sound track, "03" sound.

    Returns
    -------
    dict
        Counts: ``actors``, ``clips``, ``audio`` and ``video`` (clips with
        sound, with a picture), ``made`` (clips of which this call made a
        file).

    Example
    -------
    >>> import tempfile
    >>> few = {"actors": 1, "clips_per_actor": 2, "num_workers": 1}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_ravdess(folder, parts=["03"], progress=False, **few)
    {'actors': 1, 'clips': 2, 'audio': 2, 'video': 0, 'made': 2}
    """
    folder = Path(folder)
    numbers = choose_actors(actors)
    check_numbers(
        clips_per_actor, MAX_CLIPS, seed, missing_audio, missing_video
    )
    frame_rate = check_video(frame_rate, size)
    parts = _check_parts(parts, missing_audio, missing_video)
    settings = {
        "generator": GENERATOR,
        "layout": "ravdess",
        "actors": numbers,
        "clips_per_actor": clips_per_actor,
        "seed": seed,
        "missing_audio": missing_audio,
        "missing_video": missing_video,
        "frame_rate": str(frame_rate),
        "size": list(size),
        "parts": parts,
    }
    clips = [
        clip
        for actor in numbers
        for clip in ravdess_clips(actor, clips_per_actor, seed)
    ]
    deaf, blind = choose_missing(clips, missing_audio, missing_video)
    parts_of = dict.fromkeys(clips, parts)
    parts_of.update(dict.fromkeys(deaf, ["02"]))
    parts_of.update(dict.fromkeys(blind, ["03"]))
    own = [f"Actor_{actor:02d}" for actor in ACTORS]
    try:
        check_folder(folder, settings, own)
        jobs = _prepare_jobs(folder, settings, parts_of)
        run_jobs(
            jobs, num_workers, frame_rate, tuple(size), progress, make_files
        )
    except OSError as error:
        raise CorpusError(
            f"{folder} cannot be written ({error}): free space or choose "
            "another folder, then run again"
        ) from error
    with_sound, with_picture = (
        sum(bool(kinds & set(parts_of[clip])) for clip in clips)
        for kinds in ({"01", "03"}, {"01", "02"})
    )
    return {
        "actors": len(numbers),
        "clips": len(clips),
        "audio": with_sound,
        "video": with_picture,
        "made": len(jobs),
    }


def choose_actors(actors):
    """Turns the argument `actors` into a list of actor numbers.

    Arguments
    ---------
    actors : None, int or iterable of int
        All 24, the first so many, or these.

    Returns
    -------
    list of int
        Sorted, each once.

    Example
    -------
    >>> choose_actors(2), choose_actors([24, 1]), len(choose_actors(None))
    ([1, 2], [1, 24], 24)
    """
    if actors is None:
        return list(ACTORS)
    if isinstance(actors, int):
        # Slicing would take too many for all, and a negative number for some.
        actors = range(1, actors + 1)
    chosen = sorted(set(actors))
    unknown = [actor for actor in chosen if actor not in ACTORS]
    if unknown or not chosen:
        raise CorpusError(
            f"no such actors: {unknown or 'the list is empty'}; RAVDESS has 1 "
            f"to {len(ACTORS)}"
        )
    return chosen


def _check_parts(parts, missing_audio, missing_video):
    """The parts, sorted; refuses what cannot be made."""
    parts = sorted(set(parts))
    if not parts or not set(parts) <= set(PARTS):
        raise CorpusError(
            f"parts are {parts}: they must be some of {', '.join(PARTS)}"
        )
    for name, share, needed in (
        ("missing_audio", missing_audio, "02"),
        ("missing_video", missing_video, "03"),
    ):
        if share and needed not in parts:
            raise CorpusError(
                f"{name} is {share}: such clips only have a {needed}- file, "
                f"but parts are {', '.join(parts)}"
            )
    return parts


def _prepare_jobs(folder, settings, parts_of):
    """Makes the folders and lists what is not there yet."""
    for actor in settings["actors"]:
        (folder / f"Actor_{actor:02d}").mkdir(parents=True, exist_ok=True)
    write_text(folder / RECORD, json.dumps(settings, indent=1) + "\n")
    jobs = []
    for clip, parts in parts_of.items():
        paths = {part: folder / file_path(clip, part) for part in parts}
        wanted = {k: path for k, path in paths.items() if not path.exists()}
        if wanted:
            jobs.append((clip, wanted))
    return jobs


def make_files(jobs, frame_rate=FRAME_RATE, size=FRAME_SIZE):
    """Makes the files of some clips; the work of one process.

    Arguments
    ---------
    jobs : list of tuple
        ``(clip, paths)``: a Clip and {part: path} of the files to write.
    frame_rate : Fraction
        Frames a second.
    size : tuple of int
        Width and height in pixels.

    Returns
    -------
    int
        Number of clips.

    Example
    -------
    >>> make_files([])
    0
    """
    for clip, paths in jobs:
        said = render_voice(clip)
        if "03" in paths:
            write_wav(paths["03"], said.samples)
        for part in ("01", "02"):
            if part in paths:
                # A silent track, not none, is what the real files have.
                sound = said.samples if part == "01" else 0 * said.samples
                frames = render_frames(clip, said, frame_rate, size)
                write_mp4(paths[part], frames, sound, frame_rate, size)
    return len(jobs)
