"""Writes clips: audio as WAV, video with audio as FLV, AVI or MP4.

Files are encoded in memory and written atomically, so that a killed run leaves
no incomplete files.
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

# Half of CREMA-D's, for speed; enough for lips and blinks.
FRAME_RATE = Fraction(15000, 1001)
FRAME_SIZE = (480, 360)
# One thread, so that the bytes do not depend on the number of cores.
H264 = {"preset": "ultrafast", "crf": "23", "threads": "1"}


@dataclass(frozen=True)
class Codecs:
    """Encoders of a container's streams.

    Arguments
    ---------
    video, audio : str
        Names of FFmpeg's encoders.
    sample_rate, channels : int
        Sample rate in Hz and channels of the audio stream.
    video_options, audio_options : dict
        Options of the encoders.
    """

    video: str
    audio: str
    sample_rate: int
    channels: int = 1
    video_options: dict = field(default_factory=dict)
    audio_options: dict = field(default_factory=dict)


# By file extension, as in CREMA-D (but not its VP6, which has no free encoder),
# MSP-IMPROV (not H.264, which decoders read a frame late in AVI) and RAVDESS.
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
    """Converts samples in [-1, 1] to 16-bit PCM."""
    return np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")


def write_wav(path, samples):
    """Writes mono 16-bit PCM.

    Arguments
    ---------
    path : str or Path
        Output file.
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
    """Writes video with audio, with the codecs of the path's extension.

    Arguments
    ---------
    path : str or Path
        Output file, .flv, .avi or .mp4.
    frames : iterable of PIL.Image.Image
        RGB frames of `size`.
    samples : numpy.ndarray
        Shape (n,), in [-1, 1] at ``SAMPLE_RATE``.
    frame_rate : Fraction or int
        Frames per second.
    size : tuple of int
        Width and height in pixels, even.

    Raises
    ------
    CorpusError
        If this build of PyAV lacks an encoder.
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
    """Encodes both streams of an open container."""
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
    # Copied to all channels: a mixer would halve the power of each.
    pcm = np.repeat(_to_pcm(samples), codecs.channels)[None]
    sound = av.AudioFrame.from_ndarray(pcm, format="s16", layout=layout)
    sound.sample_rate = SAMPLE_RATE
    sound.pts = 0  # Without it the encoder's delay counts as audio.
    file.mux(audio.encode(sound))
    file.mux(audio.encode(None))
    for index, frame in enumerate(frames):
        yuv = av.VideoFrame.from_ndarray(np.asarray(frame)).reformat(
            format="yuv420p", interpolation="BILINEAR"
        )
        yuv.time_base, yuv.pts = 1 / rate, index
        file.mux(video.encode(yuv))
    file.mux(video.encode(None))
