"""What the audio and the visual encoder have in common.

Both turn a signal into features, are frozen unless the user says otherwise,
and are known by a fingerprint that names cached features and exported models.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn


def hash_state(settings: dict, tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of settings and tensors, the same on every machine: 64
    hexadecimal digits.

    Settings are what JSON can hold, in any order of keys; tensors are on any
    device and in any memory format: dtype, shape and values count.

    Example
    -------
    >>> a = hash_state({"hop": 1}, {"w": torch.ones(2, 3)})
    >>> a == hash_state({"hop": 1}, {"w": torch.ones(3, 2).t()})
    True
    >>> a == hash_state({"hop": 1}, {"w": torch.ones(3, 2)})
    False
    """
    hashed = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        hashed.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        # As bytes, because numpy knows no bfloat16.
        hashed.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()


class FeatureEncoder(nn.Module):
    """Base of encoders whose features may be cached and shipped.

    A subclass builds its modules and calls :meth:`set_freeze`; has
    ``output_dim`` (numbers a frame) and, for speech, ``frame_rate`` (frames a
    second); and defines ``forward``, :meth:`settings` and :meth:`export`. See
    :class:`vavl_sb.features.extractor.FeatureExtractor` for what ``forward`` gets.

    Example
    -------
    >>> class Level(FeatureEncoder):
    ...     output_dim, frame_rate = 1, 50.0
    ...
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.set_freeze(True)
    ...
    ...     def settings(self):
    ...         return {}
    ...
    ...     def forward(self, wavs, wav_lens=None):
    ...         return wavs.unfold(1, 320, 320).std(
    ...             dim=-1, keepdim=True
    ...         ), wav_lens
    >>> features, _ = Level()(torch.rand(1, 16000))
    >>> features.shape, len(Level().fingerprint())
    (torch.Size([1, 50, 1]), 64)
    """

    def set_freeze(self, freeze: bool) -> None:
        """Freezes the encoder (no gradients, and always in eval mode), or lets
        it learn."""
        self.freeze = bool(freeze)
        self.requires_grad_(not self.freeze)
        self._fingerprint: tuple[dict | None, str] = (None, "")
        self.train(not self.freeze)

    def train(self, mode: bool = True) -> "FeatureEncoder":
        """Sets the mode; a frozen encoder stays in eval mode.

        A Brain calls ``modules.train()`` on all modules alike. In a frozen
        encoder that would switch on dropout, layer drop and the running
        statistics of BatchNorm, so that its features would change.
        """
        return super().train(mode and not self.freeze)

    @contextlib.contextmanager
    def _features_context(self, device: torch.device) -> Iterator[None]:
        """Frozen: no gradients, and float32 even where the rest runs in bf16.

        Features are cached once and computed anew at inference; they must not
        depend on the precision that the network behind them is trained in.
        """
        if not self.freeze:
            yield
            return
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield

    def settings(self) -> dict:
        """All settings that features depend on, besides the weights.

        Strings, numbers, booleans and lists of these; {} where there are none.
        Not where the weights came from, nor how they are trained.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.settings: must give the arguments that "
            "features depend on, or {} for none"
        )

    def feature_state(self) -> dict[str, torch.Tensor]:
        """All tensors that features depend on, by name; all of ``state_dict``
        unless a subclass says otherwise."""
        return self.state_dict()

    def export(self, folder: Path) -> dict:
        """Writes what it takes to make the encoder anew into an exported
        model's folder.

        Gives arguments that make an encoder of the same fingerprint: what YAML
        can hold, and a ``Path`` for each file or folder that was written. None
        are needed, and nothing is written, unless a subclass says so;
        :func:`vavl_sb.training.export.export_model` refuses an encoder that
        comes back another.
        """
        return {}

    def fingerprint(self) -> str:
        """Fingerprint (SHA-256) of class, settings and weights: 64 hexadecimal
        digits.

        Equal digests mean equal features (up to the rounding of the device). It
        does not depend on the machine or on where files lie. It is computed
        again only if a weight changed since the last call.
        """
        tensors = self.feature_state()
        # Optimizers and load_state_dict count the version of a tensor up,
        # moves to a device or another dtype give it new memory.
        state = {k: (v.data_ptr(), v._version) for k, v in tensors.items()}
        if self._fingerprint[0] != state:
            settings = {"class": type(self).__name__, **self.settings()}
            self._fingerprint = (state, hash_state(settings, tensors))
        return self._fingerprint[1]
