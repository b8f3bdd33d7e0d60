"""Models on the Hugging Face hub: fetching one, and sending one there."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vavl_sb.lobes.hf_base import HUB_NAME
from vavl_sb.training.model_file import MODEL, WEIGHTS
from vavl_sb.utils.errors import EncoderError, VAVLError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# All that a model consists of. Nothing pickled is among it, so that nothing
# pickled is ever fetched or sent; nor is what else stands in a folder.
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
    """Takes what concerns the hub out of the options of ``from_hparams``.

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
    """A local folder with the model, fetched from the hub where needed.

    The source is a folder that a run exported, the run's own folder, or a hub
    id; options are those of :func:`fetch_model`. EncoderError, in one line:
    there is no model.
    """
    folder, blobs = Path(source), None
    if not folder.is_dir():
        folder = fetch_model(str(source), **options)
        # The hub's cache: snapshots/<commit>/<file> leads to blobs/<digest>.
        blobs = folder.parents[1] / "blobs"
    # A run's folder has its model in a folder of its own.
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
    """Refuses a model with a link that leaves its folder.

    It would have another file of this machine read as a part of the model,
    or sent to the hub. Files may lead into ``blobs`` too, that of the hub's
    cache. EncoderError, in one line: which link, or what else is neither file
    nor folder.

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
                    f"{path}: is a link out of the model's folder; copy what "
                    "it leads to in its place if you trust the model, or give "
                    "the model's name on the hub"
                )
            if path.is_symlink() and real.is_dir():  # One may hold itself.
                raise EncoderError(
                    f"{path}: is a link to a folder; copy the folder in its "
                    "place"
                )
            if not real.is_dir() and not real.is_file():
                raise EncoderError(
                    f"{path}: is no file (a broken link, or a device); remove "
                    "it from the model's folder"
                )


def fetch_model(
    source: str,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    cache_dir: str | Path | None = None,
) -> Path:
    """Folder of a model on the hub, downloaded or from the hub's cache.

    Without a network (or with HF_HUB_OFFLINE=1, or ``local_files_only``) it is
    what the cache has, ``cache_dir`` or HF_HUB_CACHE. A revision is a branch, a
    tag or a commit; a token that of an account that may read the model, None for
    that of `hf auth login` or HF_TOKEN. EncoderError, in one line: why it cannot
    be had.
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
    # From the network, the disk, the hub or its library: one line for all.
    except Exception as error:
        where = source if revision is None else f"{source} at {revision}"
        raise EncoderError(
            f"{where}: no such folder here, and not to be had from the hub: "
            f"{reason(error)}"
        ) from None


def send_model(
    folder: str | Path,
    repo_id: str,
    private: bool | None = None,
    token: str | None = None,
    api: "HfApi | None" = None,
) -> str:
    """Sends a model's folder to the hub, where its repository is made.

    Only :data:`FILES` are sent. Whether a new repository is private is as the
    account has it for None; so is the token that of `hf auth login`. Gives the
    address of the model. VAVLError, in one line: why it cannot be sent.
    """
    from huggingface_hub import HfApi

    if not HUB_NAME.fullmatch(repo_id):
        raise VAVLError(f"{repo_id}: give the repository as someone/model")
    refuse_links(folder)
    api = api or HfApi(token=token)
    try:
        made = api.create_repo(
            repo_id, repo_type="model", private=private, exist_ok=True
        )
        api.upload_folder(
            repo_id=made.repo_id,
            repo_type="model",
            folder_path=str(folder),
            allow_patterns=FILES,
            commit_message="A VAVL model, exported by vavl_sb",
        )
    # From the network, the hub or its library: one line for all.
    except Exception as error:
        raise VAVLError(
            f"{repo_id}: the model cannot be sent: {reason(error)}"
        ) from None
    return str(made)


def reason(error: BaseException) -> str:
    """Why the hub did not do what it was asked, in one line.

    In huggingface_hub's own words, which say what to do.
    """
    from huggingface_hub import constants

    told = " ".join(str(error).split())[:300] or type(error).__name__
    if constants.HF_HUB_OFFLINE:
        told = f"HF_HUB_OFFLINE is set; unset it ({told})"
    return told
