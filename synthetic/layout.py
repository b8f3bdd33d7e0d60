"""File names and tables of a corpus."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """File names and tables of a corpus.

    Arguments
    ---------
    speakers : tuple of str
        Names of all speakers; a smaller corpus has the first of them.
    clips : callable
        Maps a speaker's name and a seed to all clips of the speaker; a smaller
        corpus has the first of them.
    files : callable
        Maps a clip to the paths of its audio and video files.
    tables : callable
        Maps a list of clips to a dict of table paths and texts.
    silent_video : bool
        Whether the audio track of the videos is silent.
    """

    speakers: tuple
    clips: Callable
    files: Callable
    tables: Callable = lambda clips: {}
    silent_video: bool = False
