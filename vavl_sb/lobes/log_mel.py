"""Log-mel features on a fixed scale."""

import os

import torch
from speechbrain.lobes.features import Fbank
from torch import nn

from vavl_sb.media.reader import SAMPLE_RATE
from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.files import write_json


class LogMel(nn.Module):
    """Log-mel features on a fixed scale: SpeechBrain's Fbank without its
    floor at 80 dB below the loudest moment.

    80 triangular mel bands over 0 to 8 kHz, a 25 ms Hamming window, frames
    centred on multiples of the hop. SpeechBrain takes the floor from the
    loudest of all frames; here it is fixed, so that a frame depends only on
    its own 25 ms: -80 dB, where the quantisation noise of 16-bit audio lies
    (-81 to -69 dB in these bands), so that digital silence looks no different
    from the quietest recording. The loudest possible signal (full-scale
    square wave) reaches 45 dB. The output is (dB + 35) / 20, that is -2.25 to
    4.0: real speech has mean and deviation in dB of -30 and 17 (12 clips of
    CREMA-D) and -46 and 23 (55 of RAVDESS, which is quieter), so the network
    gets numbers of mean near 0 and deviation near 1, and nothing is estimated
    from a batch.

    Arguments
    ---------
    hop_ms : int
        10 or 20, in ms.

    Example
    -------
    >>> LogMel(10)(torch.zeros(1, 1600), torch.tensor([1600])).shape
    torch.Size([1, 11, 80])
    """

    output_dim = 80
    floor_db = -80.0
    centre_db = -35.0
    scale_db = 20.0

    def __init__(self, hop_ms: int = 20):
        super().__init__()
        if hop_ms not in (10, 20):
            raise EncoderError(
                f"logmel: a hop of {hop_ms} ms is not offered; give 10 or 20"
            )
        self.hop_ms = int(hop_ms)
        self.hop = SAMPLE_RATE * self.hop_ms // 1000
        # With 400 points the lowest of 80 bands hold one bin or hardly one,
        # and differ by 6 dB for white noise; with 1024 they are even.
        self.fbank = Fbank(
            sample_rate=SAMPLE_RATE,
            n_fft=1024,
            n_mels=self.output_dim,
            win_length=25,
            hop_length=self.hop_ms,
        )
        self.fbank.compute_fbanks.amin = 10 ** (self.floor_db / 10)
        self.fbank.compute_fbanks.top_db = float("inf")

    def settings(self) -> dict:
        """All that the features depend on."""
        return {
            "kind": "logmel",
            "hop_ms": self.hop_ms,
            "version": 1,  # Counts up when the same hop gives other features.
        }

    def feature_state(self) -> dict:
        """No weights."""
        return {}

    def frames(self, samples: torch.Tensor) -> torch.Tensor:
        """Frames of clips of so many samples.

        Arguments
        ---------
        samples : torch.Tensor
            Samples of each clip, int64, shape (B,).

        Returns
        -------
        torch.Tensor
            int64, shape (B,).
        """
        return samples // self.hop + 1

    def forward(
        self, wavs: torch.Tensor, samples: torch.Tensor
    ) -> torch.Tensor:
        """Features of clips.

        Arguments
        ---------
        wavs : torch.Tensor
            16 kHz mono, shape (B, n), 0 past a clip's end.
        samples : torch.Tensor
            Samples of each clip, int64, shape (B,).

        Returns
        -------
        torch.Tensor
            Shape (B, T, 80).
        """
        wavs = nn.functional.pad(wavs, (0, max(0, 1 - wavs.shape[1])))
        return (self.fbank(wavs) - self.centre_db) / self.scale_db

    def write(self, folder: str) -> None:
        """Writes the settings as config.json.

        Arguments
        ---------
        folder : str
            An existing folder.
        """
        config = {"model_type": "vavl_logmel", "hop_ms": self.hop_ms}
        write_json(os.path.join(folder, "config.json"), config)
