"""Loads pretrained speech encoders: SpeechBrain's lobes, safe for padding.

Importing this module imports transformers.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import os
import warnings

from transformers.utils import logging as transformers_logging

from vavl_sb.lobes.wav2vec2 import MaskedHuBERT, MaskedWav2Vec2, MaskedWavLM
from vavl_sb.lobes.whisper import WindowedWhisper
from vavl_sb.utils.errors import EncoderError, first_line

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
        Content of its config.json.
    num_layers : int
        Layers to keep, or None for all.

    Returns
    -------
    torch.nn.Module
        A :class:`MaskedLobe` or a :class:`WindowedWhisper`.

    Raises
    ------
    EncoderError
        In one line: a kind that is not known, or files that cannot be read.
    """
    kind = config["model_type"]
    if kind not in LOBES:
        raise EncoderError(
            f"audio encoder {folder}: model_type {kind} is not supported; "
            f"give one of {', '.join(LOBES)}, or use logmel"
        )
    if "vavl_sb" in config:
        num_layers = None
    try:
        with _quiet():
            lobe = LOBES[kind](os.fspath(folder), num_layers)
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
