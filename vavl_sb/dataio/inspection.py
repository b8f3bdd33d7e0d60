"""A look into each media file of a corpus, before its path goes in a manifest.

A file that cannot be used must not stop a preparation, nor a training run
hours later: it is named in the report, and its clip does without.

Authors
 * The vavl_sb authors 2026
"""

import concurrent.futures
import dataclasses
import math
import os

from tqdm import tqdm

from vavl_sb.utils.errors import MediaError

# What a clone without Git LFS leaves in place of each file.
LFS_POINTER = b"version https://git-lfs"


@dataclasses.dataclass(frozen=True)
class MediaCheck:
    """What :func:`inspect_media` found.

    Arguments
    ---------
    duration : float or None
        Seconds of the stream that was asked for; None if it cannot be used.
    fault : str or None
        Why it cannot be used, in words that are the same for all such files.
    detail : str
        What holds for this file, in one line that names it.
    """

    duration: float | None
    fault: str | None = None
    detail: str = ""


def inspect_media(path, kind):
    """Tells whether a file has sound audio, or sound video.

    Arguments
    ---------
    path : str or Path
        A media file.
    kind : str
        "audio" or "video": the stream that is wanted of it.

    Returns
    -------
    MediaCheck
        Never an error: a file that cannot be used has a `fault`.
    """
    from vavl_sb.media import reader as media

    try:
        with open(path, "rb") as file:
            start = file.read(len(LFS_POINTER))
        if not start:
            return MediaCheck(None, f"{kind} file is empty", f"{path}: 0 bytes")
        if start == LFS_POINTER:
            return MediaCheck(
                None,
                f"{kind} file is a Git LFS pointer",
                f"{path}: run `git lfs pull` in the corpus",
            )
        info = media.probe(path)
    except (OSError, MediaError) as error:
        detail = " ".join(str(error).split())
        if os.fspath(path) not in detail:
            detail = f"{path}: {detail}"
        return MediaCheck(None, f"{kind} file is unreadable", detail)

    has_stream = info.has_audio if kind == "audio" else info.has_video
    if not has_stream:
        fault = f"{kind} file has no {kind} stream"
        return MediaCheck(None, fault, f"{path}: no {kind} stream")
    duration = info.audio_duration if kind == "audio" else info.video_duration
    if duration is None or not math.isfinite(duration) or duration <= 0:
        fault = f"{kind} file has no length"
        return MediaCheck(None, fault, f"{path}: {duration} s of {kind}")
    if info.truncated:
        fault = f"{kind} file is truncated"
        return MediaCheck(None, fault, f"{path}: ends after {duration:.2f} s")
    return MediaCheck(float(duration))


def inspect_all(files, num_workers=None):
    """Inspects many files in parallel threads, with a progress bar.

    Reading and demuxing happen outside Python's lock, so threads suffice.

    Arguments
    ---------
    files : list of tuple
        ``(path, kind)``, as :func:`inspect_media` takes them.
    num_workers : int, optional
        Threads; None takes twice the processors, since disks are slow.

    Returns
    -------
    list of MediaCheck
        One for each file, in the same order.
    """
    from vavl_sb.media.demuxing import import_av

    # A missing decoder is one error, not a fault of each file.
    import_av()
    if num_workers is None:
        num_workers = min(32, 2 * (os.cpu_count() or 1))
    pool = concurrent.futures.ThreadPoolExecutor(max(1, num_workers))
    try:
        checks = pool.map(lambda file: inspect_media(*file), files)
        # disable=None: no bar where nobody sees it, as in a log file.
        bar = tqdm(
            checks, total=len(files), desc="media", unit="file", disable=None
        )
        return list(bar)
    finally:
        # A run that is stopped does not wait for the files in the queue.
        pool.shutdown(cancel_futures=True)
