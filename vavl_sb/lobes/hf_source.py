"""Where a pretrained speech encoder comes from: a folder or the hub.

All checks that need no transformers are here, so that a wrong path is told
apart from a missing package.

Authors
 * The vavl_sb authors 2026
"""

import json
import re
from pathlib import Path

from vavl_sb.utils.errors import EncoderError, first_line

# Pickled weights (.bin) are only read with torch's weights_only.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
SAFE_PATTERNS = ["*config.json", "model*.safetensors*"]
PICKLE_PATTERNS = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def find_folder(source, save_path=None):
    """Folder of a pretrained encoder, downloaded if it is a hub name.

    Arguments
    ---------
    source : str or Path
        A local folder in the Hugging Face layout, or a name of the hub.
    save_path : str or Path
        Where downloads are kept; None for Hugging Face's own cache.

    Returns
    -------
    Path
        It has a readable config.json and weights.

    Raises
    ------
    EncoderError
        In one line: no such folder, no configuration or weights in it, or no
        way to download it.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        _check_weights(folder)
        return folder
    if folder.exists():
        raise EncoderError(
            f"audio encoder {source}: is a file; give the folder that has "
            "config.json and model.safetensors"
        )
    if not HUB_NAME.fullmatch(str(source)):
        raise EncoderError(
            f"audio encoder {source}: no such folder; give a local Hugging "
            "Face folder, the name of a model on the hub, or logmel"
        )
    folder = _download(str(source), save_path)
    _check_weights(folder)
    return folder


def read_config(folder):
    """The configuration of a pretrained encoder.

    Arguments
    ---------
    folder : Path
        In the Hugging Face layout.

    Returns
    -------
    dict
        Has ``model_type``.

    Raises
    ------
    EncoderError
        In one line: there is none, or it is not one.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "config.json").write_text('{"model_type": "wavlm"}')
    >>> read_config(folder)["model_type"]
    'wavlm'
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise EncoderError(
            f"audio encoder {folder}: has no config.json; give a folder in "
            "the Hugging Face layout (config.json, model.safetensors)"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config["model_type"] = str(config["model_type"])
    except (ValueError, TypeError, KeyError):
        raise EncoderError(
            f"{path}: is not the configuration of a model (JSON with "
            "model_type); copy or download the folder again"
        ) from None
    return config


def _check_weights(folder):
    """Refuses a folder without configuration or weights."""
    config = read_config(folder)
    if config["model_type"] == "vavl_logmel":
        return
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise EncoderError(
            f"audio encoder {folder}: has no weights ({WEIGHTS[0]} or "
            f"{WEIGHTS[2]}); copy or download the folder again"
        )


def _download(name, save_path):
    """Folder of the newest version on the hub, or the one already here."""
    from huggingface_hub import snapshot_download

    def get(patterns):
        return Path(
            snapshot_download(
                name, cache_dir=save_path, allow_patterns=patterns
            )
        )

    try:
        folder = get(SAFE_PATTERNS)
        if not any((folder / weights).exists() for weights in WEIGHTS):
            folder = get(PICKLE_PATTERNS)
    # Whatever goes wrong on the way (name, network, disk, token), the user
    # needs the one line.
    except Exception as error:
        raise EncoderError(
            f"audio encoder {name}: no such folder here, and it cannot be "
            f"downloaded from the hub ({first_line(error)}); give a local "
            "folder, or use logmel, which needs no download"
        ) from None
    return folder
