"""A model for tests of the page: it does what is written in the clip.

It brings no PyTorch, so that the page's worker starts soon.
"""

import os
import signal
import time
from types import SimpleNamespace

from vavl_sb.utils.errors import VAVLError


class Model:
    """Answers at once, never, or with its own end."""

    hparams = SimpleNamespace()
    mods = ()
    metadata = None
    trained_heads = ("audio", "visual", "audiovisual")

    def analyze(self, path, modality, crops, speaker=None):
        with open(path, "rb") as file:
            word = file.read(20).decode(errors="replace").strip()
        if word == "endless":
            # As C code that no signal but SIGKILL ends.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(10**6)
        if word == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "bad":
            raise VAVLError(f"{path}: not a media file")
        return word


def fail():
    """A model that cannot be had."""
    raise VAVLError("no such model")
