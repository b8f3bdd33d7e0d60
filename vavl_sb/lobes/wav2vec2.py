"""SpeechBrain's wav2vec 2.0, HuBERT and WavLM, made safe for padding.

The lobes in speechbrain.integrations.huggingface (1.1.2) normalise the
waveform over its padding too, and run models whose first convolution has a
GroupNorm over time on padded batches, which changes the features of each clip
but the longest. Here a waveform is normalised over a clip's own samples, and
such models see clips of one length at a time.
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

# Numbers of one layer for half a minute, the longest that is encoded at once:
# four times what the largest encoders have.
MOST_NUMBERS = 2**28


class MaskedLobe(StrictLobe):
    """wav2vec 2.0, HuBERT or WavLM on clips of different lengths.

    Of a folder with checked configurations (``plain``) and one with the
    weights; of ``num_layers`` layers, or all.
    """

    extractor_class = Wav2Vec2FeatureExtractor
    kinds = ("wav2vec2", "hubert", "wavlm")

    def __init__(self, plain: str, folder: Path, num_layers: int | None = None):
        # Plain values may stand before Module.__init__, which calls
        # override_config.
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
        """Refuses layers and scores that would fill any memory, and buckets
        of distances that WavLM cannot count."""
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
                f"audio encoder {folder}: its config.json asks for convolutions "
                "or attention that no encoder of this kind has"
            )

    def settings(self) -> dict:
        """All that features depend on besides the weights."""
        return {**super().settings(), "do_normalize": self.normalize_wav}

    def prepare_training(
        self, freeze_feature_extractor: bool, spec_augment: bool
    ) -> None:
        """Settings of fine-tuning.

        Whether to keep the convolutions below the transformer as they are, and
        whether to mask features at random in training.
        """
        if freeze_feature_extractor:
            # Not requires_grad_: transformers would still go back through it.
            self.model.feature_extractor._freeze_parameters()
        self.spec_augment = spec_augment
        # DDP hangs on a parameter that no loss depends on.
        if hasattr(self.model, "masked_spec_embed"):
            self.model.masked_spec_embed.requires_grad_(spec_augment)

    def frames(self, samples: torch.Tensor) -> torch.Tensor:
        """Frames, int64 (B,), that lie wholly within clips of so many samples,
        and at least one."""
        frames = samples.clamp(min=self.receptive_field)
        for kernel, stride in self.convolutions:
            frames = (frames - kernel) // stride + 1
        return frames

    def forward(
        self, wavs: torch.Tensor, samples: torch.Tensor
    ) -> torch.Tensor:
        """Features (B, T, D) of clips: 16 kHz mono (B, n), 0 past a clip's end,
        of so many samples each, int64 (B,)."""
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
        """Like forward, but clips of unequal length never meet."""
        frames = self.frames(samples)
        features = wavs.new_zeros(len(wavs), int(frames.max()), self.output_dim)
        for length in samples.unique().tolist():
            rows = (samples == length).nonzero().squeeze(1)
            found = self._transform(wavs[rows, :length])
            features[rows, : found.shape[1]] = found.to(features.dtype)
        return features

    def _transform(self, wavs, mask=None):
        """The model's last hidden state, or all of them side by side."""
        # transformers cannot mask spans that are longer than the clip.
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
    """SpeechBrain's Wav2Vec2, safe for padding."""

    model_class = Wav2Vec2Model


class MaskedHuBERT(MaskedLobe, HuBERT):
    """SpeechBrain's HuBERT, safe for padding."""

    model_class = HubertModel


class MaskedWavLM(MaskedLobe, WavLM):
    """SpeechBrain's WavLM, safe for padding."""

    model_class = WavLMModel
    attention = "eager"


def normalize(wavs: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance of each clip (B, n) over its own samples
    (B,), and 0 past its end.

    As transformers' Wav2Vec2FeatureExtractor with ``do_normalize``, its 1e-7
    under the root included.

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
