"""SpeechBrain's Whisper encoder, independent of the batch, for long clips too.

The lobe in speechbrain.integrations.huggingface (1.1.2) computes the floor of
the log-mel spectrogram over the whole batch, and truncates clips to 30 s. Here
each window has its own floor (as in OpenAI's code and WhisperFeatureExtractor),
long clips are split into consecutive windows, and clips shorter than a window
are not padded to its length.
"""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from speechbrain.integrations.huggingface.whisper import Whisper
from torch import nn
from transformers import WhisperFeatureExtractor, WhisperModel

from vavl_sb.lobes.hf_base import StrictLobe
from vavl_sb.utils.errors import EncoderError

# Windows per forward pass: limits memory.
WINDOWS_AT_ONCE = 8


class WindowedWhisper(StrictLobe, Whisper):
    """SpeechBrain's Whisper encoder for clips of any length.

    ``plain`` is a folder with the checked configurations, ``folder`` the one
    with the weights; ``num_layers`` is None for all layers.
    """

    model_class = WhisperModel
    extractor_class = WhisperFeatureExtractor
    layers_key = "encoder_layers"
    kinds = ("whisper",)
    prefix = "encoder."
    output_dim_key = "d_model"
    # "clip" or "30s": see AudioEncoder.
    whisper_window = "clip"

    def __init__(self, plain: str, folder: Path, num_layers: int | None = None):
        self._folder, self._num_layers = folder, num_layers
        super().__init__(plain, save_path=plain, encoder_only=True)
        if self.feature_extractor.feature_size != self.config.num_mel_bins:
            raise EncoderError(
                f"audio encoder {folder}: its two configurations have "
                "different numbers of mel bins; copy or download it again"
            )
        # The second convolution takes every second log-mel frame.
        self.hop = 2 * self._hop_length
        self.window = self.config.max_source_positions * self.hop
        if self.window <= self._n_fft // 2:  # Reflection padding of the STFT.
            raise EncoderError(
                f"audio encoder {folder}: a window of {self.window} samples is "
                f"too short for spectra of {self._n_fft}"
            )

    def override_config(self, config):
        """Shrinks the decoder, which is not used, to its minimum."""
        config = super().override_config(config)
        config.decoder_layers = 0
        config.vocab_size, config.max_target_positions = 2, 1
        for key in ("pad", "bos", "eos", "decoder_start"):
            setattr(config, f"{key}_token_id", 0)
        config.suppress_tokens = config.begin_suppress_tokens = None
        return config

    def settings(self) -> dict:
        """Returns the settings that features depend on, besides the weights."""
        return {
            **super().settings(),
            "n_fft": self._n_fft,
            "hop_length": self._hop_length,
            "whisper_window": self.whisper_window,
        }

    def prepare_training(
        self, freeze_feature_extractor: bool, spec_augment: bool
    ) -> None:
        """Prepares fine-tuning: optionally freezes the convolutions below the
        transformer; ``spec_augment`` has no effect."""
        encoder = self.model.encoder
        # Fixed sinusoids in OpenAI's training, too.
        encoder.embed_positions.requires_grad_(False)
        if freeze_feature_extractor:
            encoder.conv1.requires_grad_(False)
            encoder.conv2.requires_grad_(False)

    def frames(self, samples: torch.Tensor) -> torch.Tensor:
        """Converts numbers of samples to numbers of frames, int64 (B,), rounded
        up."""
        return (samples.clamp(min=1) + self.hop - 1) // self.hop

    def forward(
        self, wavs: torch.Tensor, samples: torch.Tensor
    ) -> torch.Tensor:
        """Computes features (B, T, D) of 16 kHz mono clips (B, n), 0 past a
        clip's end, in windows of at most 30 s; ``samples`` are the lengths of
        the clips, int64 (B,)."""
        lengths = samples.clamp(min=1).tolist()
        pieces = []
        for wav, length in zip(wavs, lengths, strict=True):
            pieces += wav[:length].split(self.window) if len(wav) else [wav]
        # One by one: SpeechBrain computes one floor per call.
        mels = map(self._log_mel, pieces)
        # Batches of windows of equal length, so that no window is padded.
        windows = [
            window
            for _, group in itertools.groupby(mels, key=lambda mel: mel.shape)
            for batch in torch.stack(list(group)).split(WINDOWS_AT_ONCE)
            for window in self._encode(batch)
        ]
        frames = self.frames(samples)
        counts = -(-frames // self.config.max_source_positions)
        ends = counts.cumsum(0).tolist()
        clips = [
            torch.cat(windows[end - count : end])[:length]
            for count, end, length in zip(
                counts.tolist(), ends, frames.tolist(), strict=True
            )
        ]
        return nn.utils.rnn.pad_sequence(clips, batch_first=True)

    def _log_mel(self, piece):
        """Computes the log-mel spectrogram (bins, frames) of a window: of 30 s,
        or cut to the window's samples."""
        if self.whisper_window == "30s":
            return self.log_mel_spectrogram(
                self.pad_or_trim(piece, self.window)
            )
        sound = int(self.frames(torch.tensor(len(piece)))) * self.hop
        # With zeros after the clip, its last frames are the same as in 30 s.
        longer = min(sound + self._n_fft, self.window)
        mel = self.log_mel_spectrogram(self.pad_or_trim(piece, longer))
        return mel[:, : sound // self._hop_length]

    def _encode(self, mel):
        """Returns the last hidden state of windows, or all concatenated."""
        with self._cut_positions(mel.shape[-1] // 2):
            return self.join_layers(
                self.model.encoder(
                    mel, output_hidden_states=self.output_all_hiddens
                )
            )

    @contextlib.contextmanager
    def _cut_positions(self, count: int) -> Iterator[None]:
        """Cuts the position embeddings to ``count`` frames: transformers'
        encoder accepts no other length than theirs."""
        encoder = self.model.encoder
        config, positions = encoder.config, encoder.embed_positions
        whole = config.max_source_positions
        try:
            config.max_source_positions = count
            encoder.embed_positions = nn.Embedding.from_pretrained(
                positions.weight[:count]
            )
            yield
        finally:
            config.max_source_positions = whole
            encoder.embed_positions = positions

    def export_state(self) -> tuple:
        """Returns the weights and configuration, with a decoder of no layers.

        transformers' WhisperModel requires one; zeros for two tokens let it
        load the folder without a warning.
        """
        state, config = super().export_state()
        zeros = torch.zeros(2, config.d_model)
        state["decoder.embed_tokens.weight"] = zeros
        state["decoder.embed_positions.weight"] = zeros[:1].clone()
        state["decoder.layer_norm.weight"] = zeros[0].clone()
        state["decoder.layer_norm.bias"] = zeros[0].clone()
        return state, config
