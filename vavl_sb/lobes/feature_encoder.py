"""Base class of the audio and visual encoders.

An encoder turns a signal into features. Its fingerprint identifies cached
features and exported models.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn


def hash_state(settings: dict, tensors: dict[str, torch.Tensor]) -> str:
    """Computes the SHA-256 of settings and tensors, as 64 hexadecimal digits.

    Settings are JSON values. The hash depends on the dtype, shape and values of
    the tensors, but not on the order of keys, device or memory format.

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
        # As bytes, because numpy has no bfloat16.
        hashed.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()


class FeatureEncoder(nn.Module):
    """Base class of encoders whose features are cached and that are exported.

    A subclass builds its modules and calls :meth:`set_freeze`; has
    ``output_dim`` (feature size) and, for speech, ``frame_rate`` (frames per
    second); and defines ``forward``, :meth:`settings` and :meth:`export`. See
    :class:`vavl_sb.features.extractor.FeatureExtractor` for the arguments of
    ``forward``.

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
        """Freezes the encoder (no gradients, always in eval mode), or makes it
        trainable."""
        self.freeze = bool(freeze)
        self.requires_grad_(not self.freeze)
        self._fingerprint: tuple[dict | None, str] = (None, "")
        self.train(not self.freeze)

    def train(self, mode: bool = True) -> "FeatureEncoder":
        """Sets the mode; a frozen encoder stays in eval mode.

        A Brain calls ``modules.train()`` on all modules, which would enable
        dropout, layer drop and BatchNorm's updates in a frozen encoder.
        """
        return super().train(mode and not self.freeze)

    @contextlib.contextmanager
    def _features_context(self, device: torch.device) -> Iterator[None]:
        """If frozen: disables gradients and autocast.

        Cached features and those computed at inference must not depend on the
        precision that the network is trained in.
        """
        if not self.freeze:
            yield
            return
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield

    def settings(self) -> dict:
        """Returns the settings that features depend on, besides the weights.

        Strings, numbers, booleans and lists of these; {} for none. Not the
        source of the weights, nor how they are trained.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.settings: must give the arguments that "
            "features depend on, or {} for none"
        )

    def feature_state(self) -> dict[str, torch.Tensor]:
        """Returns the tensors that features depend on, by name; by default all
        of ``state_dict``."""
        return self.state_dict()

    def export(self, folder: Path) -> dict:
        """Writes the encoder's files into an exported model's folder.

        Returns constructor arguments that recreate an encoder of the same
        fingerprint: plain YAML values, and a ``Path`` for each file or folder
        written. By default, writes nothing and returns no arguments.
        :func:`vavl_sb.training.export.export_model` raises an error if the
        recreated encoder's fingerprint differs.
        """
        return {}

    def fingerprint(self) -> str:
        """Returns the SHA-256 of class, settings and weights, as 64 hexadecimal
        digits.

        Equal fingerprints mean equal features, up to the rounding of the
        device. It does not depend on the machine or on paths. It is recomputed
        only if a weight has changed since the last call.
        """
        tensors = self.feature_state()
        # In-place changes increase a tensor's version; moving it to another
        # device or dtype changes its address.
        state = {k: (v.data_ptr(), v._version) for k, v in tensors.items()}
        if self._fingerprint[0] != state:
            settings = {"class": type(self).__name__, **self.settings()}
            self._fingerprint = (state, hash_state(settings, tensors))
        return self._fingerprint[1]
