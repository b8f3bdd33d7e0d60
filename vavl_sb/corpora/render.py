"""Clips into files: the sound as WAV, the talking face as FLV or AVI.

A file appears under its name only when it is whole: it is written beside it
under a hidden name and then renamed, so a killed run leaves no half files.

Authors
 * The vavl_sb authors 2026
"""

import functools
import os
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np

from vavl_sb.corpora.acting import cast, perform
from vavl_sb.corpora.drawn_face import FacePainter
from vavl_sb.corpora.motion import animate
from vavl_sb.corpora.phones import SAMPLE_RATE
from vavl_sb.corpora.voice import VOICE_AXES, speak

# Half of CREMA-D's: enough for lips and blinks at half the time.
FRAME_RATE = Fraction(15000, 1001)
FRAME_SIZE = (480, 360)
# LAME puts so much silence before the sound (seconds); the picture waits for
# it, as it does in CREMA-D, whose first frames are at 0.027 s.
_MP3_DELAY = Fraction(1105, 44100)


def render_voice(clip):
    """Voices a clip.

    Arguments
    ---------
    clip : Clip
        The clip.

    Returns
    -------
    Utterance

    Example
    -------
    >>> from vavl_sb.corpora.acting import Clip
    >>> said = render_voice(Clip(1001, "angry", "DFA", "XX", seed=0))
    >>> said.samples.dtype.name
    'float32'
    """
    style = dict(zip(VOICE_AXES, perform(clip).voice, strict=True))
    speaker = cast(clip.seed, clip.actor).speaker
    return speak(clip.sentence, speaker, style, clip.chance("voice"))


@functools.lru_cache(maxsize=2)
def _painter(seed, actor, size):
    talker = cast(seed, actor)
    return FacePainter(talker.look, np.random.default_rng([seed, actor]), size)


def render_frames(clip, utterance, frame_rate=FRAME_RATE, size=FRAME_SIZE):
    """Draws the frames of a clip.

    Arguments
    ---------
    clip : Clip
        The clip.
    utterance : Utterance
        What is said in it.
    frame_rate : Fraction
        Frames a second.
    size : tuple of int
        Width and height in pixels.

    Yields
    ------
    PIL.Image.Image
        RGB frames; as many as the sound is long.

    Example
    -------
    >>> from vavl_sb.corpora.acting import Clip
    >>> clip = Clip(1001, "angry", "DFA", "XX", seed=0)
    >>> next(render_frames(clip, render_voice(clip))).size
    (480, 360)
    """
    seconds = len(utterance.samples) / SAMPLE_RATE
    times = np.arange(round(seconds * frame_rate)) / float(frame_rate)
    track = animate(clip, perform(clip), utterance, times)
    painter = _painter(clip.seed, clip.actor, size)
    for index in range(len(times)):
        yield painter.paint(track, index)


class _Whole:
    """Gives a hidden name to write to; renames it if nothing went wrong."""

    def __init__(self, path):
        self.path = Path(path)
        self.hidden = self.path.with_name(f".{self.path.name}.part")

    def __enter__(self):
        return str(self.hidden)

    def __exit__(self, kind, *_):
        if kind is None:
            os.replace(self.hidden, self.path)
        else:
            self.hidden.unlink(missing_ok=True)


def write_text(path, text):
    """Writes a text file, whole or not at all.

    Arguments
    ---------
    path : str or Path
        The file.
    text : str
        Its content; line ends are written as they are.
    """
    with _Whole(path) as hidden:
        Path(hidden).write_bytes(text.encode())


def write_wav(path, samples):
    """Writes mono 16-bit PCM, whole or not at all.

    Arguments
    ---------
    path : str or Path
        The file.
    samples : numpy.ndarray
        ``(n,)`` in [-1, 1] at ``SAMPLE_RATE``.
    """
    pcm = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    with _Whole(path) as hidden, wave.open(hidden, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm.tobytes())


def write_flv(path, frames, samples, frame_rate=FRAME_RATE, size=FRAME_SIZE):
    """Writes frames and sound as Flash video, whole or not at all.

    As in CREMA-D the sound is MP3 at 44.1 kHz; the picture is H.264, since
    nothing free encodes CREMA-D's VP6.

    Arguments
    ---------
    path : str or Path
        The file.
    frames : iterable of PIL.Image.Image
        RGB frames of `size`.
    samples : numpy.ndarray
        ``(n,)`` in [-1, 1] at ``SAMPLE_RATE``.
    frame_rate : Fraction
        Frames a second.
    size : tuple of int
        Width and height in pixels.
    """
    _write_video(path, "flv", frames, samples, frame_rate, size)


def write_avi(path, frames, samples, frame_rate=FRAME_RATE, size=FRAME_SIZE):
    """Writes frames and sound as AVI, whole or not at all.

    The picture is MPEG-4, since H.264 in an AVI is read a frame late; the
    sound is 16-bit PCM at ``SAMPLE_RATE``.

    Arguments
    ---------
    path : str or Path
        The file.
    frames : iterable of PIL.Image.Image
        RGB frames of `size`.
    samples : numpy.ndarray
        ``(n,)`` in [-1, 1] at ``SAMPLE_RATE``.
    frame_rate : Fraction
        Frames a second.
    size : tuple of int
        Width and height in pixels.
    """
    _write_video(path, "avi", frames, samples, frame_rate, size)


WRITERS = {".flv": write_flv, ".avi": write_avi}


def _write_video(path, container, frames, samples, frame_rate, size):
    """Writes a video file; an encoder that is not there is one line."""
    import av

    encode = {"flv": _encode, "avi": _encode_avi}[container]
    rate = Fraction(frame_rate)
    try:
        with _Whole(path) as hidden:
            with av.open(hidden, "w", format=container) as file:
                encode(file, frames, samples, rate, size)
    except (av.error.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        # Not at the top: it brings torch, which no worker needs.
        from vavl_sb.utils.errors import CorpusError

        raise CorpusError(
            f"{path} cannot be encoded ({error}): is the disk full, or does "
            "this build of PyAV lack libx264 or libmp3lame?"
        ) from error


def _encode_avi(file, frames, samples, frame_rate, size):
    """Writes the streams of an opened AVI, whose clock ticks once a frame."""
    import av

    fine = {"qmin": "3", "qmax": "3", "threads": "1"}
    video = file.add_stream("mpeg4", rate=frame_rate, options=fine)
    video.width, video.height = size
    video.pix_fmt = "yuv420p"
    audio = file.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
    pcm = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    sound = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    sound.sample_rate = SAMPLE_RATE
    file.mux(audio.encode(sound))
    file.mux(audio.encode(None))
    for index, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(np.asarray(frame)).reformat(
            format="yuv420p", interpolation="BILINEAR"
        )
        picture.time_base, picture.pts = 1 / frame_rate, index
        file.mux(video.encode(picture))
    file.mux(video.encode(None))


def _encode(file, frames, samples, frame_rate, size):
    """Writes the streams of an opened FLV."""
    import av

    # A clock that resolves the wait before the first frame too.
    clock = Fraction(1, 100 * frame_rate.numerator)
    step = 100 * frame_rate.denominator
    # One thread: the same bytes on any number of cores.
    fast = {"preset": "ultrafast", "crf": "23", "threads": "1"}
    video = file.add_stream("libx264", rate=frame_rate, options=fast)
    video.width, video.height = size
    video.pix_fmt = "yuv420p"
    video.codec_context.time_base = clock
    quick = {"compression_level": "9"}
    audio = file.add_stream(
        "libmp3lame", rate=44100, layout="mono", options=quick
    )
    audio.bit_rate = 96000
    sound = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples[None]), format="fltp", layout="mono"
    )
    sound.sample_rate = SAMPLE_RATE
    file.mux(audio.encode(sound))
    file.mux(audio.encode(None))
    for index, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(np.asarray(frame)).reformat(
            format="yuv420p", interpolation="BILINEAR"
        )
        picture.time_base = clock
        picture.pts = round(_MP3_DELAY / clock) + index * step
        file.mux(video.encode(picture))
    file.mux(video.encode(None))


def make_files(jobs, frame_rate=FRAME_RATE, size=FRAME_SIZE):
    """Makes the files of some clips; the work of one process.

    Arguments
    ---------
    jobs : list of tuple
        ``(clip, wav, video)``: a Clip and the paths to write, None for a file
        that is not wanted; the video's ending chooses its container.
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
    for clip, wav, video in jobs:
        said = render_voice(clip)
        if wav is not None:
            write_wav(wav, said.samples)
        if video is not None:
            frames = render_frames(clip, said, frame_rate, size)
            write = WRITERS[Path(video).suffix]
            write(video, frames, said.samples, frame_rate, size)
    return len(jobs)
