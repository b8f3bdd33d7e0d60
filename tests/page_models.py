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
    trained_heads = ("audio", "visual", "audiovisual")

    def __init__(self):
        # What draws is there, as from the second clip on.
        import matplotlib.figure  # noqa: F401

    def analyze(self, path, modality, crops, speaker=None):
        word = self._read(path) if speaker is None else speaker
        answer = {"label": word, "probabilities": {word: 1.0}}
        emotion = SimpleNamespace(
            modality="audio", per_modality={"audio": answer}
        )
        return SimpleNamespace(
            emotion=emotion,
            timeline=[],
            crops=[],
            profile={"decode": 0.5},
            duration=3.0,
        )

    def _read(self, path):
        """The word in a clip."""
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


class ModelOfSpeakers(Model):
    """The same, but answers with the words of the speaker's other clips."""

    mods = {"speaker_normalizer": None}

    def clip_features(self, clip, most):
        return [self._read(clip)]

    def enrol_features(self, clips):
        return "_".join(clips)


def label(model, path, modality):
    """What the model hears, without a page."""
    emotion = model.analyze(path, modality, crops=0).emotion
    return emotion.per_modality["audio"]["label"]


def fail():
    """A model that cannot be had."""
    raise VAVLError("no such model")
