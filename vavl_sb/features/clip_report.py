"""What there is in a media file for a model to work on.

Authors
 * The vavl_sb authors 2026
"""

import math

import numpy as np

from vavl_sb.faces.tracker import CropBatch, FaceTracker
from vavl_sb.media.demuxing import choose_streams, open_media
from vavl_sb.media.reader import FrameBatch
from vavl_sb.media.reader import SILENCE_RANGE, decode, probe
from vavl_sb.utils.errors import EncoderError, MediaError


def report_clip(path, frame_rate=10.0):
    """Streams, duration, frames with a face and loudness of a clip.

    Arguments
    ---------
    path : str
        The file.
    frame_rate : float
        Frames a second that are looked at.

    Returns
    -------
    dict
        ``file``, ``duration`` (s), ``streams`` (a dict each, ``used`` tells
        which ones a model gets), ``rms_dbfs`` (of the mono mix; a full-scale
        square wave is 0; None without a sample other than 0),
        ``silent_track`` (digital silence, which is no sound), ``frames`` (that
        were looked at), ``frames_with_face`` (None where no face could be
        looked for), ``faults`` (one line each).

    Raises
    ------
    MediaError
        The file is no media at all.
    """
    info = probe(path)
    report = {
        "file": path,
        "duration": info.duration,
        "streams": _streams(path),
        "rms_dbfs": None,
        "silent_track": None,
        "frames": 0,
        "frames_with_face": None,
        "faults": [],
    }
    # One after the other: a fault in one must not hide the other.
    for has, look in (
        (info.has_audio, _listen),
        (info.has_video, _look),
    ):
        if not has:
            continue
        try:
            look(path, frame_rate, report)
        except (MediaError, EncoderError) as error:
            report["faults"].append(error.text)
    return report


def _streams(path):
    """All streams of a file, in plain words and numbers."""
    found = []
    with open_media(path) as container:
        used = {s.index for s in choose_streams(container) if s is not None}
        for stream in container.streams:
            codec = stream.codec_context
            entry = {
                "kind": stream.type,
                "codec": codec.name if codec is not None else None,
                "used": stream.index in used,
            }
            if codec is not None and stream.type == "video":
                rate = stream.average_rate
                entry["size"] = [codec.width, codec.height]
                entry["frame_rate"] = float(rate) if rate else None
            if codec is not None and stream.type == "audio":
                entry["sample_rate"] = codec.sample_rate
                entry["channels"] = codec.layout.nb_channels
            found.append(entry)
    return found


def _listen(path, frame_rate, report):
    """Loudness of the sound, chunk by chunk."""
    del frame_rate
    energy, count, low, high = 0.0, 0, math.inf, -math.inf
    for chunk in decode(path, video=False):
        samples = chunk.samples.astype(np.float64)
        energy += float(np.square(samples).sum())
        count += len(samples)
        low, high = min(low, samples.min()), max(high, samples.max())
    if energy > 0:
        report["rms_dbfs"] = 10 * math.log10(energy / count)
    report["silent_track"] = bool(count == 0 or high - low < SILENCE_RANGE)


def _look(path, frame_rate, report):
    """Frames, and those of them that show a face."""
    counted = []

    def frames():
        for item in decode(path, frame_rate=frame_rate, audio=False):
            if isinstance(item, FrameBatch):
                report["frames"] += len(item.times)
            if not isinstance(item, AudioChunk):
                yield item

    for item in FaceTracker().follow(frames()):
        if isinstance(item, CropBatch):
            counted.append(len(item.times))
    report["frames_with_face"] = sum(counted)
