"""What there is in a media file for a model to work on."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from vavl_sb.faces.tracker import CropBatch, FaceTracker
from vavl_sb.features.extractor import picture_with_face
from vavl_sb.media.demuxing import open_media
from vavl_sb.media.reader import SILENCE_RANGE, decode, probe
from vavl_sb.utils.errors import EncoderError, MediaError


def report_clip(path: str, frame_rate: float = 10.0) -> dict:
    """Streams, duration, frames with a face and loudness of a clip.

    ``frame_rate`` frames a second are looked at. Gives ``file``, ``duration``
    (s), ``streams`` (a dict each), ``used`` and ``left_out`` of what a model
    gets (one line each), ``rms_dbfs`` (of the mono mix; a full-scale square
    wave is 0; None without a sample other than 0), ``silent_track`` (digital
    silence, which is no sound), ``frames`` (that were looked at),
    ``frames_with_face`` (None where no face could be looked for) and ``faults``
    (one line each). MediaError: the file is no media at all.
    """
    info = probe(path)
    report = {
        "file": path,
        "duration": info.duration,
        "streams": _streams(path),
        "used": [],
        "left_out": [],
        "rms_dbfs": None,
        "silent_track": None,
        "frames": 0,
        "frames_with_face": None,
        "faults": [],
    }
    # One after the other: a fault in one must not hide the other.
    tracker = FaceTracker()
    measures: dict[str, Callable] = {
        "audio": _loudness,
        "video": partial(_faces, tracker),
    }
    for kind, measure in measures.items():
        if not getattr(info, f"has_{kind}"):
            continue
        stream = decode(
            path,
            frame_rate=frame_rate,
            audio=kind == "audio",
            video=kind == "video",
            choose_picture=partial(picture_with_face, tracker),
        )
        try:
            report |= measure(stream)
        except (MediaError, EncoderError) as error:
            report["faults"].append(error.text)
            stream.info.leave_out(kind, "see its fault")
        if kind == "audio" and report["silent_track"]:
            stream.info.leave_out(kind, "silent")
        if kind == "video" and report["frames_with_face"] == 0:
            stream.info.leave_out(kind, "no face was found in it")
        report["used"] += stream.info.used.values()
        report["left_out"] += stream.info.left_out
    return report


def _streams(path):
    """All streams of a file, in plain words and numbers."""
    found = []
    with open_media(path) as (container, _):
        for stream in container.streams:
            codec = stream.codec_context
            entry = {
                "kind": stream.type,
                "codec": codec.name if codec is not None else None,
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


def _loudness(stream):
    """Level of the sound, chunk by chunk."""
    energy, count, low, high = 0.0, 0, math.inf, -math.inf
    for chunk in stream:
        samples = chunk.samples.astype(np.float64)
        energy += float(np.square(samples).sum())
        count += len(samples)
        low, high = min(low, samples.min()), max(high, samples.max())
    return {
        "rms_dbfs": 10 * math.log10(energy / count) if energy > 0 else None,
        "silent_track": bool(count == 0 or high - low < SILENCE_RANGE),
    }


def _faces(tracker, stream):
    """Frames, and those of them that show a face."""
    frames = faces = 0

    def batches():
        nonlocal frames
        for batch in stream:
            frames += len(batch.times)
            yield batch

    for item in tracker.track(batches()):
        faces += len(item.times) if isinstance(item, CropBatch) else 0
    return {"frames": frames, "frames_with_face": faces}
