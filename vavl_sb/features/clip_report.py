"""A report on the streams, loudness and faces of a media file."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from vavl_sb.faces.tracker import CropBatch, FaceTracker
from vavl_sb.features.extractor import picture_with_face
from vavl_sb.media.demuxing import open_media
from vavl_sb.media.reader import SILENCE_RANGE, decode, probe
from vavl_sb.utils.errors import EncoderError, MediaError

FRAME_RATE = 10.0  # maximum number of frames per second to analyse


def report_clip(path: str) -> dict:
    """Reports streams, duration, loudness and frames with a face of a clip.

    Returns ``file``; ``duration`` (s); ``streams``, a dict each; ``used`` and
    ``left_out``, one line for each stream or part that a model does or does not
    get; ``rms_dbfs`` of the mono mix (0 for a full-scale square wave, None if
    all samples are 0); ``silent_track``, whether the audio is digital silence;
    ``frames``, the number analysed; ``frames_with_face`` (None if detection was
    not possible); ``faults``, one line each. Raises a MediaError if the file is
    not a media file.
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
    # Separate passes, so that a fault in one stream does not hide the other.
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
            frame_rate=FRAME_RATE,
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
    """Describes all streams of a file, a dict each."""
    streams = []
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
            streams.append(entry)
    return streams


def _loudness(stream):
    """Measures the level of the audio."""
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
    """Counts the frames, and those with a face."""
    frames = faces = 0

    def batches():
        nonlocal frames
        for batch in stream:
            frames += len(batch.times)
            yield batch

    for item in tracker.track(batches()):
        faces += len(item.times) if isinstance(item, CropBatch) else 0
    return {"frames": frames, "frames_with_face": faces}
