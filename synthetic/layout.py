"""What a layout is: how a corpus names its files, and what its tables say."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """How a corpus names its files, and what its tables say.

    Arguments
    ---------
    speakers : tuple of str
        Names of all speakers, in the order in which a smaller corpus has them.
    clips : callable
        Maps a speaker's name and a seed to all clips of the speaker, in the
        order in which a smaller corpus has them.
    files : callable
        Maps a clip to the paths of its sound and of its video in the corpus.
    tables : callable
        Maps a list of clips to the text of each table by its path.
    silent_video : bool
        Whether the sound track of the videos is silent.
    """

    speakers: tuple
    clips: Callable
    files: Callable
    tables: Callable = lambda clips: {}
    silent_video: bool = False
