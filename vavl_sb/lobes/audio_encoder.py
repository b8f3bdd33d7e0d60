"""Speech encoders: from a waveform to a sequence of features.

Pretrained encoders (wav2vec 2.0, HuBERT, WavLM, Whisper) based on SpeechBrain's
lobes, or log-mel features, which need no download. A clip's features do not
depend on its batch or padding.
"""

import contextlib
import os
import tempfile
import warnings
from pathlib import Path

import torch
from speechbrain.dataio.dataio import length_to_mask
from speechbrain.lobes.features import Fbank
from torch import nn

from vavl_sb.lobes.feature_encoder import FeatureEncoder
from vavl_sb.lobes.hf_base import find_folder
from vavl_sb.lobes.hf_config import read_config, read_preprocessor
from vavl_sb.media.reader import SAMPLE_RATE
from vavl_sb.utils.errors import EncoderError, first_line
from vavl_sb.utils.files import write_json

WHISPER_WINDOWS = ("clip", "30s")


class AudioEncoder(FeatureEncoder):
    """A speech encoder, frozen or fine-tuned.

    A pretrained transformer keeps its first ``num_layers`` layers. Features are
    the output of the last layer kept, after the encoder's final LayerNorm if it
    has one (Whisper; wav2vec 2.0, HuBERT and WavLM with
    ``do_stable_layer_norm``, such as the "large" variants). VAVL (arXiv
    2305.07216) uses wav2vec2-large-robust cut to 12 of its 24 layers, after
    Wagner et al. (arXiv 2203.07378).

    Arguments
    ---------
    source : str or Path
        "logmel"; a local folder in the Hugging Face layout (config.json,
        preprocessor_config.json, model.safetensors), such as :meth:`export`
        writes; or the name of a model on the hub. Model types: wav2vec2,
        hubert, wavlm, whisper.
    num_layers : int
        Number of transformer layers to keep; None for all. If the model has
        fewer, all are kept and a message is logged. No effect on a folder
        written by :meth:`export`.
    freeze : bool
        True: no gradients, always in eval mode. Log-mel features have no
        parameters and are always frozen.
    save_path : str or Path
        Download folder; None for Hugging Face's cache.
    hop_ms : int
        Hop between frames in ms, 10 or 20; for "logmel" only.
    freeze_feature_extractor : bool
        With ``freeze=False``, keep the convolutions below the transformer
        frozen, as is usual.
    output_all_hiddens : bool
        Concatenate the outputs of all layers kept, so that the network's
        projection can weight them; no effect on "logmel". The middle layers of
        a speech recogniser contain more about emotion than its last.
    whisper_window : str
        For Whisper: the encoder's input for a clip shorter than 30 s. "clip":
        log-mel and positions cut to the clip's length. "30s": the clip padded
        with zeros to the 30 s that Whisper was trained on, many times slower.
        Longer clips are split every 30 s.
    average : int
        Number of consecutive frames averaged into one; a clip's last frame
        averages the remainder. Speech encoders have 50 frames per second, and
        the cost of attention falls with the square of this number.
    spec_augment : bool
        With ``freeze=False``, mask features at random in training, as in the
        model's configuration (SpecAugment; not for Whisper).

    Raises
    ------
    EncoderError
        If the source cannot be read or is not a supported encoder.

    Example
    -------
    >>> encoder = AudioEncoder("logmel")
    >>> wavs, lens = torch.rand(2, 16000), torch.tensor([1.0, 0.5])
    >>> features, lens = encoder(wavs, lens)
    >>> features.shape, (lens * 51).round().tolist()
    (torch.Size([2, 51, 80]), [51.0, 26.0])
    """

    def __init__(
        self,
        source: str | Path,
        num_layers: int | None = 12,
        freeze: bool = True,
        save_path: str | Path | None = None,
        hop_ms: int = 20,
        freeze_feature_extractor: bool = True,
        spec_augment: bool = False,
        output_all_hiddens: bool = False,
        average: int = 1,
        whisper_window: str = "clip",
    ):
        super().__init__()
        self.source = os.fspath(source)
        self.average = average
        for name, number in (("average", average), ("num_layers", num_layers)):
            if number is not None and number < 1:
                raise EncoderError(
                    f"audio encoder {source}: {name} is {number}; give a "
                    "positive integer"
                )
        if whisper_window not in WHISPER_WINDOWS:
            raise EncoderError(
                f"audio encoder {source}: whisper_window is {whisper_window}; "
                f"give {' or '.join(WHISPER_WINDOWS)}"
            )
        self.whisper_window = whisper_window
        if self.source == "logmel":
            self.encoder = LogMel(hop_ms)
        else:
            folder = find_folder(self.source, save_path)
            config = read_config(folder)
            if config["model_type"] == "vavl_logmel":
                self.encoder = LogMel(config.get("hop_ms", hop_ms))
            else:
                self.encoder = _load_lobe(folder, config, num_layers)
        is_logmel = isinstance(self.encoder, LogMel)
        self.output_all_hiddens = bool(output_all_hiddens) and not is_logmel
        if not is_logmel:
            self.encoder.output_all_hiddens = self.output_all_hiddens
            if hasattr(self.encoder, "whisper_window"):
                self.encoder.whisper_window = whisper_window
        self.set_freeze(freeze or is_logmel)
        if not self.freeze:
            self.encoder.prepare_training(
                freeze_feature_extractor, spec_augment
            )

    @property
    def output_dim(self) -> int:
        """Numbers per frame."""
        return self.encoder.output_dim

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return SAMPLE_RATE / self.encoder.hop / self.average

    def settings(self) -> dict:
        """Returns the settings that features depend on, besides the weights."""
        return {**self.encoder.settings(), "average": self.average}

    def feature_state(self) -> dict[str, torch.Tensor]:
        """Returns the tensors that features depend on; empty for log-mel."""
        return self.encoder.feature_state()

    def forward(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes the features of a batch of clips.

        Arguments
        ---------
        wavs : torch.Tensor
            16 kHz mono in [-1, 1], shape (B, n). Clips shorter than a frame are
            padded with zeros.
        wav_lens : torch.Tensor
            Lengths relative to n, shape (B,); None: no padding.

        Returns
        -------
        features : torch.Tensor
            float32, shape (B, T, output_dim), where T is the length of the
            longest clip; 0 past a clip's end.
        lens : torch.Tensor
            Lengths relative to T, float32, shape (B,).
        """
        samples = _absolute(wav_lens, wavs)
        longest = int(samples.max())
        wavs = wavs[:, :longest].float()
        # Samples in the padding must not change the features.
        wavs = wavs.masked_fill(
            ~length_to_mask(samples, longest, dtype=torch.bool), 0.0
        )
        with self._features_context(wavs.device):
            features = self.encoder(wavs, samples).float()
        frames = self.encoder.frames(samples)
        mask = length_to_mask(
            frames, features.shape[1], dtype=torch.bool
        ).unsqueeze(-1)
        features = features.masked_fill(~mask, 0.0)
        if self.average > 1:
            features, frames = average_frames(features, frames, self.average)
        return features, frames / frames.max()

    def export(self, folder: str | Path) -> dict:
        """Writes the subfolder ``audio_encoder`` of an exported model.

        For a pretrained encoder it is a Hugging Face folder of the model cut to
        ``num_layers``. Returns arguments of :class:`AudioEncoder` for the same
        features and fingerprint.
        """
        source = Path(folder) / "audio_encoder"
        source.mkdir(parents=True, exist_ok=True)
        self.encoder.write(os.fspath(source))
        return {
            "source": source,
            "num_layers": None,
            "output_all_hiddens": self.output_all_hiddens,
            "average": self.average,
            "whisper_window": self.whisper_window,
        }


class LogMel(nn.Module):
    """Log-mel features: SpeechBrain's Fbank with a fixed floor and scale.

    80 triangular mel bands over 0 to 8 kHz, a 25 ms Hamming window, frames
    centred on multiples of the hop. SpeechBrain's floor is 80 dB below the
    loudest frame. Here it is fixed, so that a frame depends only on its own 25
    ms: -80 dB, the level of the quantisation noise of 16-bit audio (-81 to -69
    dB in these bands), so that digital silence equals the quietest recording.
    The loudest possible signal (full-scale square wave) reaches 45 dB. The
    output is (dB + 35) / 20, between -2.25 and 4.0: real speech has mean and
    deviation in dB of -30 and 17 (12 clips of CREMA-D) and -46 and 23 (55 of
    RAVDESS, which is quieter), so the output has a mean near 0 and a deviation
    near 1 without statistics of a batch.

    Arguments
    ---------
    hop_ms : int
        Hop between frames in ms, 10 or 20.

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
        # With a 400-point FFT the lowest of 80 bands contain at most one bin
        # and differ by 6 dB for white noise; with 1024 points they are even.
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
        """Returns the settings that features depend on."""
        return {
            "kind": "logmel",
            "hop_ms": self.hop_ms,
            "version": 1,  # Increase when features change at the same hop.
        }

    def feature_state(self) -> dict:
        """Returns no tensors, since there are no weights."""
        return {}

    def frames(self, samples: torch.Tensor) -> torch.Tensor:
        """Converts numbers of samples to numbers of frames, int64 (B,)."""
        return samples // self.hop + 1

    def forward(
        self, wavs: torch.Tensor, samples: torch.Tensor
    ) -> torch.Tensor:
        """Computes features (B, T, 80) of 16 kHz mono clips (B, n), 0 past a
        clip's end; ``samples`` are their lengths, int64 (B,)."""
        wavs = nn.functional.pad(wavs, (0, max(0, 1 - wavs.shape[1])))
        return (self.fbank(wavs) - self.centre_db) / self.scale_db

    def write(self, folder: str) -> None:
        """Writes the settings to config.json in a folder."""
        config = {"model_type": "vavl_logmel", "hop_ms": self.hop_ms}
        write_json(os.path.join(folder, "config.json"), config)


def average_frames(
    features: torch.Tensor, frames: torch.Tensor, average: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Averages every ``average`` consecutive frames within each clip.

    Takes features (B, T, D), 0 past a clip's end, and the number of frames of
    each clip, int64 (B,). Returns both with T and the numbers of frames divided
    by ``average``, rounded up.

    Example
    -------
    >>> x = torch.tensor([[[1.0], [3.0], [5.0]], [[4.0], [0.0], [0.0]]])
    >>> averaged, frames = average_frames(x, torch.tensor([3, 1]), 2)
    >>> averaged.squeeze(-1).tolist(), frames.tolist()
    ([[2.0, 5.0], [4.0, 0.0]], [2, 1])
    """
    average = min(average, max(1, features.shape[1]))  # Limits the padding.
    groups = -(-features.shape[1] // average)
    missing = groups * average - features.shape[1]
    features = nn.functional.pad(features, (0, 0, 0, missing))
    total = features.unflatten(1, (groups, average)).sum(dim=2)
    starts = average * torch.arange(groups, device=frames.device)
    counts = (frames.unsqueeze(1) - starts).clamp(1, average)
    return total / counts.unsqueeze(-1), -(-frames // average)


def _load_lobe(folder: Path, config: dict, num_layers: int | None) -> nn.Module:
    """Loads SpeechBrain's lobe from a folder, cut to its first layers."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise EncoderError(
            "pretrained speech encoders need the package transformers; "
            'pip install "vavl_sb[ssl]", or use logmel'
        ) from None
    from vavl_sb.lobes import wav2vec2, whisper

    kinds = {
        "wav2vec2": wav2vec2.MaskedWav2Vec2,
        "hubert": wav2vec2.MaskedHuBERT,
        "wavlm": wav2vec2.MaskedWavLM,
        "whisper": whisper.WindowedWhisper,
    }
    lobe = kinds[config["model_type"]]
    extractor = lobe.extractor_class.__name__
    preprocessor = read_preprocessor(folder, extractor)
    if "vavl_sb" in config:
        num_layers = None
    try:
        # SpeechBrain passes the folder to transformers, which would also read
        # code, adapters and generation settings: pass a folder without them.
        with _quiet(), tempfile.TemporaryDirectory() as plain:
            write_json(os.path.join(plain, "config.json"), config)
            write_json(
                os.path.join(plain, "preprocessor_config.json"),
                {"feature_extractor_type": extractor, **preprocessor},
            )
            loaded = lobe(plain, folder, num_layers)
    except EncoderError:
        raise
    # A broken file raises anything from OSError to SafetensorError.
    except Exception as error:
        raise EncoderError(
            f"audio encoder {folder}: cannot be read ({first_line(error)}); "
            "copy or download the folder again"
        ) from error
    rate = loaded.feature_extractor.sampling_rate
    if rate != SAMPLE_RATE:
        raise EncoderError(
            f"audio encoder {folder}: is made for {rate} Hz; give one that "
            f"is made for {SAMPLE_RATE} Hz"
        )
    return loaded


@contextlib.contextmanager
def _quiet():
    """Hides transformers' progress bars and lists of unused weights (the layers
    that are cut off), and deprecation warnings meant for SpeechBrain."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _absolute(lens: torch.Tensor | None, wavs: torch.Tensor) -> torch.Tensor:
    """Converts relative lengths to samples of each clip, (B,)."""
    batch, longest = wavs.shape
    if lens is None:
        return torch.full((batch,), longest, device=wavs.device)
    # In float64: float32 cannot count the samples of a 20-minute clip.
    samples = (lens.to(wavs.device).double() * longest).round().long()
    return samples.clamp(0, longest)
