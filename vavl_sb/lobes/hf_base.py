"""What the pretrained speech encoders share: strict loading, and export.

Authors
 * The vavl_sb authors 2026
"""

import copy
import json
import os

import torch

from vavl_sb.lobes.hf_source import read_state
from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.files import write_json
from vavl_sb.utils.logger import get_logger
from vavl_sb.utils.weights import check_finite, save_tensors

logger = get_logger(__name__)

# Numbers of a network that its files need not have: what masks, a decoder.
UNSAVED = 2**20


class StrictLobe:
    """Loading, description and export, for a lobe of SpeechBrain."""

    # transformers' classes, and its attention.
    model_class = extractor_class = None
    attention = "sdpa"
    # Key of the configuration that counts the layers, what else features
    # depend on, and prefix of the weights that they depend on.
    layers_key = "num_hidden_layers"
    config_keys = ()
    prefix = ""
    output_dim_key = "hidden_size"
    # Whether features are the outputs of all layers, side by side.
    all_layers = False

    def override_config(self, config):
        """Cuts the number of layers before any weight is read.

        Arguments
        ---------
        config : transformers.PretrainedConfig
            As read from the folder.

        Returns
        -------
        transformers.PretrainedConfig
        """
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
        """Reads weights, as float32, all or none."""
        state = {
            key: tensor
            for key, tensor in read_state(self._folder).items()
            if f".{self.prefix}" in f".{key}"
        }
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
        missing = sorted(
            key for key in report["missing_keys"] if self._matters(key)
        )
        if missing:
            raise EncoderError(
                f"audio encoder {self._folder}: lacks {len(missing)} weights, "
                f"such as {', '.join(missing[:3])}; copy or download it again"
            )
        check_finite(self.feature_state(), self._folder)

    def _refuse_larger(self, present):
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

    def _matters(self, key):
        """Whether features depend on a weight."""
        return key.startswith(self.prefix) and key != "masked_spec_embed"

    @property
    def output_dim(self):
        """Numbers per frame."""
        layers = getattr(self.config, self.layers_key) if self.all_layers else 1
        return layers * getattr(self.config, self.output_dim_key)

    def join_layers(self, out):
        """Features of what transformers' encoder gives.

        Arguments
        ---------
        out : transformers.modeling_outputs.BaseModelOutput
            With hidden states, where all layers are wanted.

        Returns
        -------
        torch.Tensor
            Shape (B, T, output_dim).
        """
        if not self.all_layers:
            return out.last_hidden_state
        # The first is what the transformer reads; whether the last is before
        # or after the final LayerNorm depends on transformers' version.
        states = [*out.hidden_states[1:-1], out.last_hidden_state]
        return torch.cat(states, dim=-1)

    def settings(self):
        """All that features depend on besides the weights."""
        described = {"kind": self.config.model_type}
        for key in sorted((self.layers_key, *self.config_keys)):
            value = getattr(self.config, key, None)
            described[key] = list(value) if _is_listlike(value) else value
        # Left out where it is off, so that older caches hold.
        if self.all_layers:
            described["all_layers"] = True
        return described

    def feature_state(self):
        """Weights that features depend on."""
        state = self.model.state_dict()
        return {k: v for k, v in state.items() if self._matters(k)}

    def export_state(self):
        """Weights and configuration to write."""
        return self.model.state_dict(), copy.deepcopy(self.config)

    def write(self, folder):
        """Writes a Hugging Face folder.

        Arguments
        ---------
        folder : str
            An existing folder.
        """
        state, config = self.export_state()
        config.architectures = [type(self.model).__name__]
        config.dtype = "float32"
        config.save_pretrained(folder)
        self._mark(os.path.join(folder, "config.json"))
        self.feature_extractor.save_pretrained(folder)
        path = os.path.join(folder, "model.safetensors")
        save_tensors(state, path, {"format": "pt"})

    def _mark(self, path):
        """Marks a configuration as cut, and forgets where it came from."""
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        config.pop("_name_or_path", None)
        config["vavl_sb"] = {
            "num_layers": getattr(self.config, self.layers_key)
        }
        write_json(path, config)


def _is_listlike(value):
    """Lists and tuples, which JSON writes alike."""
    return isinstance(value, (list, tuple))
