"""Loads pretrained speech encoders: SpeechBrain's lobes, safe for padding.

Importing this module imports transformers.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import os
import tempfile
import warnings

from transformers.utils import logging as transformers_logging

from vavl_sb.lobes.hf_config import read_preprocessor
from vavl_sb.lobes.wav2vec2 import MaskedHuBERT, MaskedWav2Vec2, MaskedWavLM
from vavl_sb.lobes.whisper import WindowedWhisper
from vavl_sb.utils.errors import EncoderError, first_line
from vavl_sb.utils.files import write_json

SAMPLE_RATE = 16000

LOBES = {
    "wav2vec2": MaskedWav2Vec2,
    "hubert": MaskedHuBERT,
    "wavlm": MaskedWavLM,
    "whisper": WindowedWhisper,
}


def load_lobe(folder, config, num_layers):
    """The lobe for a folder, cut to its first layers.

    Arguments
    ---------
    folder : Path
        In the Hugging Face layout.
    config : dict
        From :func:`vavl_sb.lobes.hf_config.read_config`.
    num_layers : int
        Layers to keep, or None for all.

    Returns
    -------
    torch.nn.Module
        A :class:`MaskedLobe` or a :class:`WindowedWhisper`.

    Raises
    ------
    EncoderError
        In one line: a file that cannot be read, or that does not fit.
    """
    if "vavl_sb" in config:
        num_layers = None
    lobe = LOBES[config["model_type"]]
    extractor = lobe.extractor_class.__name__
    preprocessor = read_preprocessor(folder, extractor)
    try:
        # SpeechBrain hands a folder to transformers, which would also read
        # code, adapters and generation settings: it gets one of ours.
        with _quiet(), tempfile.TemporaryDirectory() as plain:
            write_json(os.path.join(plain, "config.json"), config)
            write_json(
                os.path.join(plain, "preprocessor_config.json"),
                {"feature_extractor_type": extractor, **preprocessor},
            )
            lobe = lobe(plain, folder, num_layers)
    except EncoderError:
        raise
    # A broken file shows as anything from OSError to SafetensorError.
    except Exception as error:
        raise EncoderError(
            f"audio encoder {folder}: cannot be read ({first_line(error)}); "
            "copy or download the folder again"
        ) from error
    rate = lobe.feature_extractor.sampling_rate
    if rate != SAMPLE_RATE:
        raise EncoderError(
            f"audio encoder {folder}: is made for {rate} Hz; give one that "
            f"is made for {SAMPLE_RATE} Hz"
        )
    return lobe


@contextlib.contextmanager
def _quiet():
    """No progress bars of transformers, lists of unused weights (the layers
    that are cut off), nor warnings meant for SpeechBrain's authors."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
