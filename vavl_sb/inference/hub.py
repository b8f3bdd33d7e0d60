"""Downloads models from the Hugging Face hub and uploads them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vavl_sb.lobes.hf_base import HUB_NAME
from vavl_sb.training.model_file import MODEL, WEIGHTS
from vavl_sb.utils.errors import EncoderError, VAVLError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# The files of a model. No pickled or other file is downloaded or uploaded.
FILES = [
    "model.json",
    "hyperparams.yaml",
    "README.md",
    "vavl.safetensors",
    "visual_encoder.safetensors",
    "speaker_normalization.safetensors",
    "audio_encoder/*config.json",
    "audio_encoder/*.safetensors",
]


def hub_options(kwargs: dict) -> dict:
    """Pops the options of the hub from the options of ``from_hparams``.

    Example
    -------
    >>> kwargs = {"run_opts": {}, "revision": "v1"}
    >>> hub_options(kwargs), kwargs
    ({'revision': 'v1'}, {'run_opts': {}})
    """
    options = {}
    config = kwargs.pop("fetch_config", None)
    if config is not None:
        options = {
            "revision": config.revision,
            "token": config.token or None,
            "local_files_only": not config.allow_network,
            "cache_dir": config.huggingface_cache_dir,
        }
    for name in ("revision", "token", "local_files_only"):
        if name in kwargs:
            options[name] = kwargs.pop(name)
    return options


def model_folder(source: str | Path, **options) -> Path:
    """Returns the local folder of a model, downloaded if necessary.

    ``source`` is an exported folder, the output folder of a run, or a hub id;
    ``options`` are those of :func:`fetch_model`. Raises EncoderError if there
    is no model.
    """
    folder, blobs = Path(source), None
    if not folder.is_dir():
        folder = fetch_model(str(source), **options)
        # The hub's cache links snapshots/<commit>/<file> to blobs/<digest>.
        blobs = folder.parents[1] / "blobs"
    inner = folder / "inference"
    if (inner / WEIGHTS).is_file() and not inner.is_symlink():
        folder = inner
    refuse_links(folder, blobs)
    for name in (MODEL, WEIGHTS):
        if not (folder / name).is_file():
            raise EncoderError(
                f"{source}: no {name} in it; give a folder that a run "
                "exported, such as results/demo/inference"
            )
    return folder.resolve()


def refuse_links(folder: str | Path, blobs: str | Path | None = None) -> None:
    """Refuses a model with a symbolic link out of its folder.

    Such a link could load, or upload to the hub, another file of this machine.
    Links to ``blobs`` in the cache of the hub are allowed. Raises EncoderError
    for a link, or anything else that is neither a file nor a folder.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "model.json").symlink_to("/etc/passwd")
    >>> refuse_links(folder)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vavl_sb.utils.errors.EncoderError: .../model.json: is a link out of ...
    """
    root = Path(os.path.realpath(folder))
    homes = [root, *([Path(os.path.realpath(blobs))] if blobs else [])]
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent, name)
            real = Path(os.path.realpath(path))
            if not any(real.is_relative_to(home) for home in homes):
                raise EncoderError(
                    f"{path}: is a link out of the model's folder; replace it "
                    "by a copy of its target if you trust the model, or give "
                    "the model's name on the hub"
                )
            if path.is_symlink() and real.is_dir():  # It may contain itself.
                raise EncoderError(
                    f"{path}: is a link to a folder; replace it by a copy of "
                    "the folder"
                )
            if not real.is_dir() and not real.is_file():
                raise EncoderError(
                    f"{path}: is not a file (broken link or device); remove "
                    "it from the model's folder"
                )


def fetch_model(
    source: str,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    cache_dir: str | Path | None = None,
) -> Path:
    """Downloads a model from the hub and returns its folder.

    Without a network, with HF_HUB_OFFLINE=1 or with ``local_files_only``, the
    cache (``cache_dir`` or HF_HUB_CACHE) is used. ``revision`` is a branch, tag
    or commit; ``token`` None is that of `hf auth login` or HF_TOKEN. Raises
    EncoderError if the model is not available.
    """
    from huggingface_hub import snapshot_download

    if not HUB_NAME.fullmatch(source):
        raise EncoderError(
            f"{source}: no such folder; give one that a run exported, or a "
            "model on the hub such as someone/model"
        )
    try:
        return Path(
            snapshot_download(
                source,
                revision=revision,
                token=token,
                local_files_only=local_files_only,
                cache_dir=cache_dir,
                allow_patterns=FILES,
            )
        )
    # Network, disk, hub and library raise many types: one line for all.
    except Exception as error:
        model = source if revision is None else f"{source} at {revision}"
        raise EncoderError(
            f"{model}: no such folder, and not available from the hub: "
            f"{reason(error)}"
        ) from None


def send_model(
    folder: str | Path,
    repo_id: str,
    private: bool | None = None,
    token: str | None = None,
    api: "HfApi | None" = None,
) -> str:
    """Uploads the :data:`FILES` of a model to the hub and returns the address.

    The repository is created if necessary. ``private`` None is the default of
    the account; ``token`` None is that of `hf auth login`. Raises VAVLError if
    the upload fails.
    """
    from huggingface_hub import HfApi

    if not HUB_NAME.fullmatch(repo_id):
        raise VAVLError(f"{repo_id}: give the repository as someone/model")
    refuse_links(folder)
    api = api or HfApi(token=token)
    try:
        repo = api.create_repo(
            repo_id, repo_type="model", private=private, exist_ok=True
        )
        api.upload_folder(
            repo_id=repo.repo_id,
            repo_type="model",
            folder_path=str(folder),
            allow_patterns=FILES,
            commit_message="A VAVL model, exported by vavl_sb",
        )
    # Network, hub and library raise many types: one line for all.
    except Exception as error:
        raise VAVLError(
            f"{repo_id}: the model cannot be sent: {reason(error)}"
        ) from None
    return str(repo)


def reason(error: BaseException) -> str:
    """Returns the error message of huggingface_hub in one line."""
    from huggingface_hub import constants

    message = " ".join(str(error).split())[:300] or type(error).__name__
    if constants.HF_HUB_OFFLINE:
        message = f"HF_HUB_OFFLINE is set; unset it ({message})"
    return message
