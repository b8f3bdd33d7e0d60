"""Pretrained speech encoders in the Hugging Face layout: found, read strictly
and written again.

Nothing here imports transformers, so that a wrong path is told apart from a
missing package.
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
# The last two are pickled: their tensors are taken out, nothing is run.
WEIGHTS = [
    "model.safetensors",
    "model-*-of-*.safetensors",
    "pytorch_model.bin",
    "pytorch_model-*-of-*.bin",
]
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
# Numbers of a network that its files need not have: what masks, a decoder.
UNSAVED = 2**20


def find_folder(
    source: str | Path, save_path: str | Path | None = None
) -> Path:
    """Folder of a pretrained encoder, downloaded if it is a hub name.

    Downloads are kept in ``save_path``, or in Hugging Face's own cache. The
    folder has a readable config.json and weights. EncoderError, in one line: no
    such folder, no configuration or weights in it, or no way to download it.
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
    """The files of weights, of the first kind that there is."""
    for pattern in WEIGHTS:
        paths = [p for p in sorted(folder.glob(pattern)) if p.is_file()]
        if paths:
            return paths
    raise EncoderError(
        f"audio encoder {folder}: has no weights ({WEIGHTS[0]} or "
        f"{WEIGHTS[2]}); copy or download the folder again"
    )


def _download(name: str, save_path: str | Path | None) -> Path:
    """Folder of the newest version on the hub, or the one already here."""
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
        # Name, network, disk or token: the user needs the one line.
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


class StrictLobe:
    """Strict loading, fingerprint and export, for a lobe of SpeechBrain."""

    # Of SpeechBrain's lobe.
    config: Any
    model: Any
    feature_extractor: Any
    normalize_wav: bool
    # Where the weights are, and how many layers are kept; None for all.
    _folder: Path
    _num_layers: int | None
    # transformers' classes, and its attention.
    model_class: Any = None
    extractor_class: Any = None
    attention = "sdpa"
    # Kinds of configurations, key of these that counts the layers, and prefix of
    # the weights that features depend on.
    kinds: tuple[str, ...] = ()
    layers_key = "num_hidden_layers"
    prefix = ""
    output_dim_key = "hidden_size"
    # Whether features are the outputs of all layers, side by side.
    output_all_hiddens = False

    def override_config(self, config):
        """Cuts the number of layers before any weight is read."""
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
        # Layer drop leaves parameters without gradients, on which DDP hangs;
        # an adapter would take away every second frame.
        for key in ("layerdrop", "encoder_layerdrop", "add_adapter"):
            if hasattr(config, key):
                setattr(config, key, type(getattr(config, key))(0))
        return config

    def _from_pretrained(self, source, **unused):
        """Reads weights, as float32, all or none; SpeechBrain calls it.

        Whatever shards there are are read, and no index: it could name files
        elsewhere.
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
        # Without a name transformers reads no file at all.
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
        """Refuses a network of more numbers than there are weights."""
        # On no device: shapes without memory.
        with torch.device("meta"):
            model = self.model_class(self.config)
        wanted = sum(p.numel() for p in model.parameters())
        if wanted > present + UNSAVED:
            raise EncoderError(
                f"audio encoder {self._folder}: cannot be read (config.json "
                f"describes {wanted} weights, but there are {present}); copy "
                "or download the folder again"
            )

    def _matters(self, key: str) -> bool:
        """Whether features depend on a weight."""
        return key.startswith(self.prefix) and key != "masked_spec_embed"

    @property
    def output_dim(self) -> int:
        """Numbers per frame."""
        width = getattr(self.config, self.output_dim_key)
        if self.output_all_hiddens:
            width *= getattr(self.config, self.layers_key)
        return width

    def join_layers(self, out) -> torch.Tensor:
        """Features (B, T, output_dim) of what transformers' encoder gives, with
        its hidden states where all layers are wanted."""
        if not self.output_all_hiddens:
            return out.last_hidden_state
        # The first is what the transformer reads; whether the last is before
        # or after the final LayerNorm depends on transformers' version.
        states = [*out.hidden_states[1:-1], out.last_hidden_state]
        return torch.cat(states, dim=-1)

    def settings(self) -> dict:
        """All that features depend on besides the weights."""
        keys = {key for kind in self.kinds for key in CONFIGS[kind]}
        found = {"kind": self.config.model_type}
        for key in keys - FINE_TUNING.keys():
            value = getattr(self.config, key, None)
            found[key] = list(value) if isinstance(value, tuple) else value
        return {**found, "output_all_hiddens": self.output_all_hiddens}

    def feature_state(self) -> dict[str, torch.Tensor]:
        """Weights that features depend on."""
        state = self.model.state_dict()
        return {k: v for k, v in state.items() if self._matters(k)}

    def export_state(self) -> tuple:
        """Weights and configuration to write."""
        return self.model.state_dict(), copy.deepcopy(self.config)

    def write(self, folder: str) -> None:
        """Writes a Hugging Face folder, into one that exists."""
        state, config = self.export_state()
        config.architectures = [type(self.model).__name__]
        config.dtype = "float32"
        config.save_pretrained(folder)
        path = Path(folder, "config.json")
        written = json.loads(path.read_text(encoding="utf-8"))
        written.pop("_name_or_path", None)
        # The mark of a model that is cut already.
        layers = getattr(self.config, self.layers_key)
        write_json(path, {**written, "vavl_sb": {"num_layers": layers}})
        self.feature_extractor.save_pretrained(folder)
        path = Path(folder, "model.safetensors")
        save_tensors(halved(state), path, {"format": "pt"})
