"""SpeechBrain's wav2vec 2.0, HuBERT and WavLM, independent of padding.

The lobes in speechbrain.integrations.huggingface (1.1.2) include padding when
they normalise a waveform, and in the GroupNorm over time that some models have
after their first convolution. Both change the features of every clip but the
longest. Here a waveform is normalised over a clip's own samples, and models
with GroupNorm process clips of one length at a time.
"""

from pathlib import Path

import torch
from speechbrain.dataio.dataio import length_to_mask
from speechbrain.integrations.huggingface.hubert import HuBERT
from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
from speechbrain.integrations.huggingface.wavlm import WavLM
from torch import nn
from transformers import (
    HubertModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMModel,
)

from vavl_sb.lobes.hf_base import StrictLobe
from vavl_sb.media.reader import SAMPLE_RATE
from vavl_sb.utils.errors import EncoderError

# Activations of one layer for 30 s, the longest input that is encoded at once:
# four times as many as in the largest encoders.
MOST_NUMBERS = 2**28


class MaskedLobe(StrictLobe):
    """wav2vec 2.0, HuBERT or WavLM for clips of different lengths.

    ``plain`` is a folder with the checked configurations, ``folder`` the one
    with the weights; ``num_layers`` is None for all layers.
    """

    extractor_class = Wav2Vec2FeatureExtractor
    kinds = ("wav2vec2", "hubert", "wavlm")

    def __init__(self, plain: str, folder: Path, num_layers: int | None = None):
        # Before super().__init__(), which calls override_config.
        self._folder, self._num_layers = folder, num_layers
        self.spec_augment = False
        super().__init__(plain, save_path=plain)  # type: ignore[call-arg]
        self.convolutions = list(
            zip(self.config.conv_kernel, self.config.conv_stride, strict=True)
        )
        self.hop, self.receptive_field = 1, 1
        for kernel, stride in reversed(self.convolutions):
            self.hop *= stride
            self.receptive_field = (self.receptive_field - 1) * stride + kernel
        if self.hop < 160 or self.receptive_field > SAMPLE_RATE:
            raise EncoderError(
                f"audio encoder {folder}: a frame each {self.hop} samples, of "
                f"{self.receptive_field}; no encoder of this kind has that"
            )
        self._refuse_wide(folder)

    def _refuse_wide(self, folder):
        """Raises an error if activations or attention scores would exhaust the
        memory, or WavLM's distance buckets are invalid."""
        frames, widest = 30 * SAMPLE_RATE, 0
        for width, (_, stride) in zip(
            self.config.conv_dim, self.convolutions, strict=True
        ):
            frames = -(-frames // stride)
            widest = max(widest, width * frames)
        scores = self.config.num_attention_heads * frames**2
        buckets = getattr(self.config, "num_buckets", 4)
        farthest = getattr(self.config, "max_bucket_distance", 800)
        if max(widest, 2 * scores) > MOST_NUMBERS or 4 * farthest <= buckets:
            raise EncoderError(
                f"audio encoder {folder}: its config.json has convolutions or "
                "attention that no encoder of this kind has"
            )

    def settings(self) -> dict:
        """Returns the settings that features depend on, besides the weights."""
        return {**super().settings(), "do_normalize": self.normalize_wav}

    def prepare_training(
        self, freeze_feature_extractor: bool, spec_augment: bool
    ) -> None:
        """Prepares fine-tuning: optionally freezes the convolutions below the
        transformer, and masks features at random in training."""
        if freeze_feature_extractor:
            # With requires_grad_ alone transformers would still backpropagate.
            self.model.feature_extractor._freeze_parameters()
        self.spec_augment = spec_augment
        # DDP hangs on a parameter that no loss depends on.
        if hasattr(self.model, "masked_spec_embed"):
            self.model.masked_spec_embed.requires_grad_(spec_augment)

    def frames(self, samples: torch.Tensor) -> torch.Tensor:
        """Converts numbers of samples to numbers of whole frames, int64 (B,);
        at least 1."""
        frames = samples.clamp(min=self.receptive_field)
        for kernel, stride in self.convolutions:
            frames = (frames - kernel) // stride + 1
        return frames

    def forward(
        self, wavs: torch.Tensor, samples: torch.Tensor
    ) -> torch.Tensor:
        """Computes features (B, T, D) of 16 kHz mono clips (B, n), 0 past a
        clip's end; ``samples`` are their lengths, int64 (B,)."""
        if self.normalize_wav:
            wavs = normalize(wavs, samples)
        samples = samples.clamp(min=self.receptive_field)
        longest = int(samples.max())
        wavs = nn.functional.pad(wavs, (0, longest - wavs.shape[1]))
        if self.config.feat_extract_norm == "group":
            return self._by_length(wavs, samples)
        if int(samples.min()) == longest:
            return self._transform(wavs)
        mask = length_to_mask(samples, longest, dtype=torch.long)
        return self._transform(wavs, mask)

    def _by_length(
        self, wavs: torch.Tensor, samples: torch.Tensor
    ) -> torch.Tensor:
        """Computes features in batches of clips of equal length."""
        frames = self.frames(samples)
        features = wavs.new_zeros(len(wavs), int(frames.max()), self.output_dim)
        for length in samples.unique().tolist():
            rows = (samples == length).nonzero().squeeze(1)
            encoded = self._transform(wavs[rows, :length])
            features[rows, : encoded.shape[1]] = encoded.to(features.dtype)
        return features

    def _transform(self, wavs, mask=None):
        """Returns the last hidden state, or all of them concatenated."""
        # transformers cannot mask spans longer than the clip.
        frames = self.frames(torch.tensor(wavs.shape[1])).item()
        self.model.config.apply_spec_augment = (
            self.spec_augment and frames >= self.config.mask_time_length
        )
        out = self.model(
            wavs,
            attention_mask=mask,
            output_hidden_states=self.output_all_hiddens,
        )
        return self.join_layers(out)


class MaskedWav2Vec2(MaskedLobe, Wav2Vec2):
    """SpeechBrain's Wav2Vec2, independent of padding."""

    model_class = Wav2Vec2Model


class MaskedHuBERT(MaskedLobe, HuBERT):
    """SpeechBrain's HuBERT, independent of padding."""

    model_class = HubertModel


class MaskedWavLM(MaskedLobe, WavLM):
    """SpeechBrain's WavLM, independent of padding."""

    model_class = WavLMModel
    attention = "eager"


def normalize(wavs: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    """Normalizes each clip (B, n) to zero mean and unit variance over its own
    samples (B,), and to 0 past its end.

    Equals transformers' Wav2Vec2FeatureExtractor with ``do_normalize``,
    including the 1e-7 under the square root.

    Example
    -------
    >>> normalize(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([2])).tolist()
    [[-1.0, 1.0, -0.0]]
    """
    mask = length_to_mask(samples, wavs.shape[1], dtype=wavs.dtype)
    count = samples.clamp(min=1).unsqueeze(1)
    wavs = (wavs - wavs.sum(1, keepdim=True) / count) * mask
    variance = wavs.square().sum(1, keepdim=True) / count
    return wavs / (variance + 1e-7).sqrt()
