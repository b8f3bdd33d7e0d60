"""Where a pretrained speech encoder comes from: a folder or the hub.

All checks that need no transformers are here, so that a wrong path is told
apart from a missing package.

Authors
 * The vavl_sb authors 2026
"""

import re
from pathlib import Path

import torch

from vavl_sb.lobes.hf_config import read_config
from vavl_sb.utils.errors import EncoderError, first_line
from vavl_sb.utils.weights import load_tensors

CONFIGS = ["config.json", "preprocessor_config.json"]
# The last two are pickled: their tensors are taken out, nothing is run.
WEIGHTS = [
    "model.safetensors",
    "model-*-of-*.safetensors",
    "pytorch_model.bin",
    "pytorch_model-*-of-*.bin",
]
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


def read_state(folder: str | Path) -> dict[str, torch.Tensor]:
    """All weights of a pretrained encoder, whatever shards they are in.

    No index is read: it could name files elsewhere.

    Arguments
    ---------
    folder : str or Path
        In the Hugging Face layout.

    Returns
    -------
    dict
        Names to tensors, which may not be finite.

    Raises
    ------
    EncoderError
        In one line: there are none, or they cannot be read.
    """
    state = {}
    for path in _weights(Path(folder)):
        state.update(load_tensors(path, finite=False))
    return state


def _weights(folder):
    """The files of weights, of the first kind that there is."""
    for pattern in WEIGHTS:
        paths = [p for p in sorted(folder.glob(pattern)) if p.is_file()]
        if paths:
            return paths
    raise EncoderError(
        f"audio encoder {folder}: has no weights ({WEIGHTS[0]} or "
        f"{WEIGHTS[2]}); copy or download the folder again"
    )


def _check_weights(folder):
    """Refuses a folder without configuration or weights."""
    if read_config(folder)["model_type"] != "vavl_logmel":
        _weights(folder)


def _download(name, save_path):
    """Folder of the newest version on the hub, or the one already here."""
    from huggingface_hub import snapshot_download

    def get(patterns):
        try:
            return Path(
                snapshot_download(
                    name,
                    cache_dir=save_path,
                    allow_patterns=[*CONFIGS, *patterns],
                )
            )
        # Whatever goes wrong on the way (name, network, disk, token), the
        # user needs the one line.
        except Exception as error:
            raise EncoderError(
                f"audio encoder {name}: no such folder here, and it cannot be "
                f"downloaded from the hub ({first_line(error)}); give a local "
                "folder, or use logmel, which needs no download"
            ) from None

    # Nothing large is fetched for a model that is refused.
    read_config(get([]))
    folder = get(WEIGHTS[:2])
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS[:2]):
        folder = get(WEIGHTS[2:])
    return folder
