"""SpeechBrain's Whisper encoder, made safe for batches and for long clips.

The lobe in speechbrain.integrations.huggingface (1.1.2) takes the floor of the
log-mel spectrogram from the whole batch and cuts clips at 30 s. Here the floor
is each window's own (as in OpenAI's code and in WhisperFeatureExtractor), long
clips are taken in consecutive windows, and a clip shorter than a window costs
no more than its own length.
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

# Windows that go through the encoder at a time: bounds memory.
WINDOWS_AT_ONCE = 8


class WindowedWhisper(StrictLobe, Whisper):
    """SpeechBrain's Whisper, encoder only, on clips of any length.

    Of a folder with checked configurations (``plain``) and one with the
    weights; of ``num_layers`` layers, or all.
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
        if self.window <= self._n_fft // 2:  # What its spectrogram mirrors.
            raise EncoderError(
                f"audio encoder {folder}: a window of {self.window} samples is "
                f"too short for spectra of {self._n_fft}"
            )

    def override_config(self, config):
        """Leaves of the decoder, which is not used, as little as can be."""
        config = super().override_config(config)
        config.decoder_layers = 0
        config.vocab_size, config.max_target_positions = 2, 1
        for key in ("pad", "bos", "eos", "decoder_start"):
            setattr(config, f"{key}_token_id", 0)
        config.suppress_tokens = config.begin_suppress_tokens = None
        return config

    def settings(self) -> dict:
        """All that features depend on besides the weights."""
        found = {
            "n_fft": self._n_fft,
            "hop_length": self._hop_length,
            "whisper_window": self.whisper_window,
        }
        return {**super().settings(), **found}

    def prepare_training(
        self, freeze_feature_extractor: bool, spec_augment: bool
    ) -> None:
        """Settings of fine-tuning.

        Whether to keep the convolutions below the transformer as they are;
        Whisper has no ``spec_augment``.
        """
        encoder = self.model.encoder
        # Sinusoids, which OpenAI did not train either.
        encoder.embed_positions.requires_grad_(False)
        if freeze_feature_extractor:
            encoder.conv1.requires_grad_(False)
            encoder.conv2.requires_grad_(False)

    def frames(self, samples: torch.Tensor) -> torch.Tensor:
        """Frames, int64 (B,), that clips of so many samples have begun."""
        return (samples.clamp(min=1) + self.hop - 1) // self.hop

    def forward(
        self, wavs: torch.Tensor, samples: torch.Tensor
    ) -> torch.Tensor:
        """Features (B, T, D) of clips, in windows of 30 s at the most.

        Of 16 kHz mono (B, n), 0 past a clip's end, of so many samples each,
        int64 (B,).
        """
        lengths = samples.clamp(min=1).tolist()
        pieces = []
        for wav, length in zip(wavs, lengths, strict=True):
            pieces += wav[:length].split(self.window) if len(wav) else [wav]
        # One by one: SpeechBrain's floor is that of all it is given.
        mels = map(self._log_mel, pieces)
        # Only windows of one length share a batch: none is padded.
        windows = [
            window
            for _, alike in itertools.groupby(mels, key=lambda mel: mel.shape)
            for batch in torch.stack(list(alike)).split(WINDOWS_AT_ONCE)
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
        """Log-mel (bins, frames) of a window, which may be cut to its sound."""
        if self.whisper_window == "30s":
            return self.log_mel_spectrogram(
                self.pad_or_trim(piece, self.window)
            )
        sound = int(self.frames(torch.tensor(len(piece)))) * self.hop
        # The last frames see zeros behind the clip, as they do in 30 s.
        longer = min(sound + self._n_fft, self.window)
        mel = self.log_mel_spectrogram(self.pad_or_trim(piece, longer))
        return mel[:, : sound // self._hop_length]

    def _encode(self, mel):
        """The last hidden state of windows, or all of them side by side."""
        with self._cut_positions(mel.shape[-1] // 2):
            return self.join_layers(
                self.model.encoder(
                    mel, output_hidden_states=self.output_all_hiddens
                )
            )

    @contextlib.contextmanager
    def _cut_positions(self, count: int) -> Iterator[None]:
        """Lets transformers' encoder take windows of so many frames.

        It refuses any other length than that of its table of positions.
        """
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
        """Weights and configuration, with a decoder of no layers.

        transformers' WhisperModel cannot be without one; zeros of two tokens
        let it load the folder without a warning.
        """
        state, config = super().export_state()
        zeros = torch.zeros(2, config.d_model)
        state["decoder.embed_tokens.weight"] = zeros
        state["decoder.embed_positions.weight"] = zeros[:1].clone()
        state["decoder.layer_norm.weight"] = zeros[0].clone()
        state["decoder.layer_norm.bias"] = zeros[0].clone()
        return state, config
