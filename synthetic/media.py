"""Clips into files: sound as WAV, sound and picture as FLV, AVI or MP4.

A file is put together in memory and written whole or not at all: a killed run
leaves no half files.
"""

import io
import wave
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from synthetic.phones import SAMPLE_RATE
from vavl_sb.utils.errors import CorpusError
from vavl_sb.utils.files import write_atomically

# Half of CREMA-D's: enough for lips and blinks at half the time.
FRAME_RATE = Fraction(15000, 1001)
FRAME_SIZE = (480, 360)
# One thread: the same bytes on any number of cores.
H264 = {"preset": "ultrafast", "crf": "23", "threads": "1"}


@dataclass(frozen=True)
class Codecs:
    """How the streams of a container are encoded.

    Arguments
    ---------
    video, audio : str
        Names of FFmpeg's encoders.
    sample_rate, channels : int
        Of the sound.
    video_options, audio_options : dict
        The encoders' options.
    """

    video: str
    audio: str
    sample_rate: int
    channels: int = 1
    video_options: dict = field(default_factory=dict)
    audio_options: dict = field(default_factory=dict)


# By a file's ending: as in CREMA-D (but for its VP6, which nothing free
# encodes), MSP-IMPROV (H.264 in an AVI is read a frame late) and RAVDESS.
CODECS = {
    ".flv": Codecs(
        "libx264", "libmp3lame", 44100, 1, H264,
        {"compression_level": "9", "b": "96000"},
    ),
    ".avi": Codecs(
        "mpeg4", "pcm_s16le", SAMPLE_RATE, 1,
        {"qmin": "3", "qmax": "3", "threads": "1"},
    ),
    ".mp4": Codecs("libx264", "aac", 48000, 2, H264),
}  # fmt: skip


def _to_pcm(samples):
    """16-bit PCM of samples in [-1, 1]."""
    return np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")


def write_wav(path, samples):
    """Writes mono 16-bit PCM.

    Arguments
    ---------
    path : str or Path
        The file.
    samples : numpy.ndarray
        Shape (n,), in [-1, 1] at ``SAMPLE_RATE``.
    """
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(_to_pcm(samples).tobytes())
    write_atomically(path, buffer.getvalue())


def write_video(path, frames, samples, frame_rate=FRAME_RATE, size=FRAME_SIZE):
    """Writes frames and sound; the path's ending says with which codecs.

    Arguments
    ---------
    path : str or Path
        The file, .flv, .avi or .mp4.
    frames : iterable of PIL.Image.Image
        RGB frames of `size`.
    samples : numpy.ndarray
        Shape (n,), in [-1, 1] at ``SAMPLE_RATE``.
    frame_rate : Fraction or int
        Frames a second.
    size : tuple of int
        Width and height in pixels, even.

    Raises
    ------
    CorpusError
        In one line: this build of PyAV lacks an encoder.
    """
    ending, buffer = Path(path).suffix, io.BytesIO()
    try:
        with av.open(buffer, "w", format=ending[1:]) as file:
            _encode(file, CODECS[ending], frames, samples, frame_rate, size)
    except av.codec.codec.UnknownCodecError as error:
        raise CorpusError(
            f"{path} cannot be encoded ({error}): install a build of PyAV that "
            "has libx264 and libmp3lame"
        ) from error
    write_atomically(path, buffer.getvalue())


def _encode(file, codecs, frames, samples, frame_rate, size):
    """Writes both streams of an opened container."""
    rate = Fraction(frame_rate)
    video = file.add_stream(
        codecs.video, rate=rate, options=codecs.video_options
    )
    video.width, video.height = size
    video.pix_fmt = "yuv420p"
    layout = "stereo" if codecs.channels == 2 else "mono"
    audio = file.add_stream(
        codecs.audio,
        rate=codecs.sample_rate,
        layout=layout,
        options=codecs.audio_options,
    )
    # All channels full: a mixer would halve the power of each.
    pcm = np.repeat(_to_pcm(samples), codecs.channels)[None]
    sound = av.AudioFrame.from_ndarray(pcm, format="s16", layout=layout)
    sound.sample_rate = SAMPLE_RATE
    sound.pts = 0  # Without it the encoder's delay is taken for sound.
    file.mux(audio.encode(sound))
    file.mux(audio.encode(None))
    for index, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(np.asarray(frame)).reformat(
            format="yuv420p", interpolation="BILINEAR"
        )
        picture.time_base, picture.pts = 1 / rate, index
        file.mux(video.encode(picture))
    file.mux(video.encode(None))
