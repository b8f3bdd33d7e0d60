"""Finds, loads and exports pretrained speech encoders in the Hugging Face
layout.

This module does not import transformers, so that a wrong path and a missing
package give different errors.
"""

import copy
import json
import re
from pathlib import Path
from typing import Any

import torch

from vavl_sb.lobes.hf_config import CONFIGS, FINE_TUNING, read_config
from vavl_sb.utils.errors import EncoderError, first_line
from vavl_sb.utils.files import write_json
from vavl_sb.utils.logger import get_logger
from vavl_sb.utils.weights import (
    check_finite,
    halved,
    load_tensors,
    save_tensors,
)

logger = get_logger(__name__)

CONFIG_FILES = ["config.json", "preprocessor_config.json"]
# The last two are pickles: only their tensors are read, no code is run.
WEIGHTS = [
    "model.safetensors",
    "model-*-of-*.safetensors",
    "pytorch_model.bin",
    "pytorch_model-*-of-*.bin",
]
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
# Parameters that may be missing from the files: mask embedding, decoder.
UNSAVED = 2**20


def find_folder(
    source: str | Path, save_path: str | Path | None = None
) -> Path:
    """Returns the folder of a pretrained encoder; downloads it if ``source`` is
    a hub name.

    Downloads are stored in ``save_path``, or in Hugging Face's cache. Raises an
    EncoderError if the folder does not exist and cannot be downloaded, or has
    no valid config.json or no weights.
    """
    folder = Path(source).expanduser()
    if folder.is_file():
        raise EncoderError(
            f"audio encoder {source}: is a file; give the folder that has "
            "config.json and model.safetensors"
        )
    if not folder.is_dir():
        if not HUB_NAME.fullmatch(str(source)):
            raise EncoderError(
                f"audio encoder {source}: no such folder; give a local "
                "Hugging Face folder, the name of a model on the hub, or logmel"
            )
        folder = _download(str(source), save_path)
    if read_config(folder)["model_type"] != "vavl_logmel":
        _weights(folder)
    return folder


def _weights(folder: Path) -> list[Path]:
    """Returns the weight files of the first format that the folder has."""
    for pattern in WEIGHTS:
        paths = [p for p in sorted(folder.glob(pattern)) if p.is_file()]
        if paths:
            return paths
    raise EncoderError(
        f"audio encoder {folder}: has no weights ({WEIGHTS[0]} or "
        f"{WEIGHTS[2]}); copy or download the folder again"
    )


def _download(name: str, save_path: str | Path | None) -> Path:
    """Downloads the newest version from the hub, or returns the cached one."""
    from huggingface_hub import snapshot_download

    def get(patterns):
        try:
            return Path(
                snapshot_download(
                    name,
                    cache_dir=save_path,
                    allow_patterns=[*CONFIG_FILES, *patterns],
                )
            )
        # The name, network, disk or token may be the cause.
        except Exception as error:
            raise EncoderError(
                f"audio encoder {name}: no such folder here, and it cannot be "
                f"downloaded from the hub ({first_line(error)}); give a local "
                "folder, or use logmel, which needs no download"
            ) from None

    # Checks the configuration before it downloads the weights.
    read_config(get([]))
    folder = get(WEIGHTS[:2])
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS[:2]):
        folder = get(WEIGHTS[2:])
    return folder


class StrictLobe:
    """Mixin for SpeechBrain's lobes: strict loading, fingerprint and export."""

    # Attributes of SpeechBrain's lobe.
    config: Any
    model: Any
    feature_extractor: Any
    normalize_wav: bool
    # Folder of the weights, and number of layers to keep; None for all.
    _folder: Path
    _num_layers: int | None
    # Classes and attention implementation of transformers.
    model_class: Any = None
    extractor_class: Any = None
    attention = "sdpa"
    # Model types, configuration key of the number of layers, and prefix of the
    # weights that features depend on.
    kinds: tuple[str, ...] = ()
    layers_key = "num_hidden_layers"
    prefix = ""
    output_dim_key = "hidden_size"
    # Whether features are the concatenated outputs of all layers.
    output_all_hiddens = False

    def override_config(self, config):
        """Reduces the number of layers before the weights are loaded."""
        config = super().override_config(config)
        present = getattr(config, self.layers_key)
        wanted = self._num_layers or present
        if wanted > present:
            logger.info(
                "The speech encoder has %d layers, not %d: all are used",
                present,
                wanted,
            )
        config.num_hidden_layers = min(wanted, present)
        setattr(config, self.layers_key, min(wanted, present))
        # DDP hangs on the parameters without gradients that layer drop causes;
        # an adapter would halve the frame rate.
        for key in ("layerdrop", "encoder_layerdrop", "add_adapter"):
            if hasattr(config, key):
                setattr(config, key, type(getattr(config, key))(0))
        return config

    def _from_pretrained(self, source, **unused):
        """Loads all weights as float32; called by SpeechBrain.

        Reads every shard in the folder, and not their index, which could name
        files outside it.
        """
        state = {
            key: tensor
            for path in _weights(self._folder)
            for key, tensor in load_tensors(path, finite=False).items()
            if f".{self.prefix}" in f".{key}"
        }
        if any(t.dtype in (torch.int8, torch.uint8) for t in state.values()):
            raise EncoderError(
                f"audio encoder {self._folder}: its weights are quantized; "
                "give them as floats"
            )
        self._refuse_larger(sum(t.numel() for t in state.values()))
        # With None as name, transformers reads no files.
        self.model, report = self.model_class.from_pretrained(
            None,
            config=self.config,
            state_dict=state,
            dtype=torch.float32,
            attn_implementation=self.attention,
            output_loading_info=True,
        )
        self.model.float()
        missing = sorted(filter(self._matters, report["missing_keys"]))
        if missing:
            raise EncoderError(
                f"audio encoder {self._folder}: lacks {len(missing)} weights, "
                f"such as {', '.join(missing[:3])}; copy or download it again"
            )
        check_finite(self.feature_state(), self._folder)

    def _refuse_larger(self, present: int):
        """Raises an error if the configuration has more parameters than the
        files have weights."""
        with torch.device("meta"):  # Allocates no memory.
            model = self.model_class(self.config)
        wanted = sum(p.numel() for p in model.parameters())
        if wanted > present + UNSAVED:
            raise EncoderError(
                f"audio encoder {self._folder}: cannot be read (config.json "
                f"describes {wanted} weights, but there are {present}); copy "
                "or download the folder again"
            )

    def _matters(self, key: str) -> bool:
        """Returns whether features depend on a weight."""
        return key.startswith(self.prefix) and key != "masked_spec_embed"

    @property
    def output_dim(self) -> int:
        """Numbers per frame."""
        width = getattr(self.config, self.output_dim_key)
        if self.output_all_hiddens:
            width *= getattr(self.config, self.layers_key)
        return width

    def join_layers(self, out) -> torch.Tensor:
        """Returns features (B, T, output_dim) from the output of transformers'
        encoder: the last layer, or all layers concatenated."""
        if not self.output_all_hiddens:
            return out.last_hidden_state
        # The first hidden state is the input of the first layer. Whether the
        # last follows the final LayerNorm depends on transformers' version.
        states = [*out.hidden_states[1:-1], out.last_hidden_state]
        return torch.cat(states, dim=-1)

    def settings(self) -> dict:
        """Returns the settings that features depend on, besides the weights."""
        keys = {key for kind in self.kinds for key in CONFIGS[kind]}
        settings = {"kind": self.config.model_type}
        for key in keys - FINE_TUNING.keys():
            value = getattr(self.config, key, None)
            settings[key] = list(value) if isinstance(value, tuple) else value
        return {**settings, "output_all_hiddens": self.output_all_hiddens}

    def feature_state(self) -> dict[str, torch.Tensor]:
        """Returns the weights that features depend on."""
        state = self.model.state_dict()
        return {k: v for k, v in state.items() if self._matters(k)}

    def export_state(self) -> tuple:
        """Returns the weights and the configuration to export."""
        return self.model.state_dict(), copy.deepcopy(self.config)

    def write(self, folder: str) -> None:
        """Writes the files of a Hugging Face model into an existing folder."""
        state, config = self.export_state()
        config.architectures = [type(self.model).__name__]
        config.dtype = "float32"
        config.save_pretrained(folder)
        path = Path(folder, "config.json")
        written = json.loads(path.read_text(encoding="utf-8"))
        written.pop("_name_or_path", None)
        # Marks a model whose layers have been cut.
        layers = getattr(self.config, self.layers_key)
        write_json(path, {**written, "vavl_sb": {"num_layers": layers}})
        self.feature_extractor.save_pretrained(folder)
        path = Path(folder, "model.safetensors")
        save_tensors(halved(state), path, {"format": "pt"})
