"""Clips into MP4 files.

Authors
 * The vavl_sb authors 2026
"""

import numpy as np

from vavl_sb.corpora.phones import SAMPLE_RATE
from vavl_sb.corpora.render import FRAME_RATE, FRAME_SIZE, _Whole


def write_mp4(path, frames, samples, frame_rate=FRAME_RATE, size=FRAME_SIZE):
    """Writes frames and sound as MP4, whole or not at all.

    As in RAVDESS: H.264, and AAC of 48 kHz in stereo.

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
    import av

    try:
        with _Whole(path) as hidden, av.open(hidden, "w", format="mp4") as file:
            # One thread: the same bytes on any number of cores.
            fast = {"preset": "ultrafast", "crf": "23", "threads": "1"}
            video = file.add_stream("libx264", rate=frame_rate, options=fast)
            video.width, video.height = size
            video.pix_fmt = "yuv420p"
            audio = file.add_stream("aac", rate=48000, layout="stereo")
            # Both channels full: a mixer would halve the power of each.
            sound = av.AudioFrame.from_ndarray(
                np.stack([samples, samples]), format="fltp", layout="stereo"
            )
            sound.sample_rate = SAMPLE_RATE
            # Without a time the coder's delay is taken for sound.
            sound.pts = 0
            file.mux(audio.encode(sound))
            file.mux(audio.encode(None))
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(np.asarray(frame))
                file.mux(video.encode(picture))
            file.mux(video.encode(None))
    except (av.error.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        from vavl_sb.utils.errors import CorpusError

        raise CorpusError(
            f"{path} cannot be encoded ({error}): is the disk full, or does "
            "this build of PyAV lack libx264?"
        ) from error
