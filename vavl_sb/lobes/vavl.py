"""The VAVL network: emotion from audio, visual or audio-visual input.

Each modality has its own input normalization, frame-wise projections and
conformer encoder. Conformer layers shared by both modalities follow, with a
residual connection around them. A clip's representation is the mean over its
frames. From it, each modality's heads predict the emotion and reconstruct the
time mean of the input features. The audio-visual head predicts from the two
concatenated representations.

Source: Goncalves et al., "Versatile audiovisual learning for handling single
and multi modalities in emotion regression and classification tasks",
https://arxiv.org/abs/2305.07216, section 3.
"""

import inspect
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vavl_sb.lobes.conformer import MaskedConformerEncoder
from vavl_sb.nnet.masking import (
    PresentRows,
    have_all,
    masked_mean,
    scatter_rows,
)
from vavl_sb.nnet.normalization import FeatureNoise, InputNormalization

MODALITIES = ("audio", "visual")
HEADS = (*MODALITIES, "audiovisual")
# The modalities that each head takes as input.
READS = {"audio": ("audio",), "visual": ("visual",), "audiovisual": MODALITIES}


@dataclass
class VAVLOutput:
    """Output of a network for a batch of B clips.

    A field is None if no clip of the batch has the required modalities. Rows
    of clips without them (length 0) are 0.

    Arguments
    ---------
    audio, visual, audiovisual : torch.Tensor
        Predictions of the three heads, shape (B, num_outputs): logits for
        classes, values for attributes.
    audio_embedding, visual_embedding : torch.Tensor
        Representations r_m, shape (B, d_model).
    audio_reconstruction, visual_reconstruction : torch.Tensor
        Reconstructed time mean of the features, shape (B, feature size); None
        for a network without reconstruction heads.
    audio_target, visual_target : torch.Tensor
        Reconstruction target: the time mean of the normalized features, shape
        (B, feature size).
    """

    audio: torch.Tensor | None = None
    visual: torch.Tensor | None = None
    audiovisual: torch.Tensor | None = None
    audio_embedding: torch.Tensor | None = None
    visual_embedding: torch.Tensor | None = None
    audio_reconstruction: torch.Tensor | None = None
    visual_reconstruction: torch.Tensor | None = None
    audio_target: torch.Tensor | None = None
    visual_target: torch.Tensor | None = None


class AudioVisualNetwork(nn.Module):
    """Base class of networks that the recipes can train and export.

    A subclass takes at least the arguments ``audio_dim``, ``visual_dim`` and
    ``num_outputs``, and defines :meth:`forward_rows`; see docs/extend.md for an
    example. If it has ``audio_branch["normalize"]`` or
    ``visual_branch["normalize"]``, the recipe sets their statistics from the
    training clips.

    Attributes
    ----------
    updates : tuple of str
        Optimizer steps per batch, in order. A head's name is a step with that
        head's loss, on that head's input modalities ("audiovisual": with
        ``freeze_backbone``). "joint" is one step with the losses of all three
        heads. Empty: no training besides ``fit_statistics``.
    reconstructs : bool
        Whether the "audio" and "visual" losses include a reconstruction loss.
    settings : dict
        Constructor arguments by name, defaults included:
        ``type(net)(**net.settings)`` has the same architecture.
    num_outputs : int
        Number of classes or attributes.
    fit_statistics : callable
        Optional; called once per modality before the first epoch: see
        :meth:`vavl_sb.lobes.fusion.linear.LinearFusion.fit_statistics`.
    """

    updates: tuple[str, ...] = ("joint",)
    reconstructs = False

    def __new__(cls, *args, **kwargs):
        """Records the constructor arguments of any subclass in ``settings``."""
        net = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        bound = signature.bind_partial(net, *args, **kwargs)
        bound.apply_defaults()
        _, *names = signature.parameters
        settings = {k: v for k, v in bound.arguments.items() if k in names}
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                settings.update(settings.pop(name, {}))
        net.settings = settings
        net.num_outputs = settings.get("num_outputs")
        return net

    def forward(
        self,
        audio: torch.Tensor | None = None,
        audio_lens: torch.Tensor | None = None,
        visual: torch.Tensor | None = None,
        visual_lens: torch.Tensor | None = None,
        freeze_backbone: bool = False,
        detach_pair: bool = False,
    ) -> VAVLOutput:
        """Predicts from the modalities that each clip has.

        Arguments
        ---------
        audio : torch.Tensor
            Audio features, shape (B, Ta, audio_dim), or None.
        audio_lens : torch.Tensor
            Relative lengths in [0, 1], shape (B,); 0 marks a clip without
            audio. None: no padding.
        visual : torch.Tensor
            Visual features, shape (B, Tv, visual_dim), or None.
        visual_lens : torch.Tensor
            As ``audio_lens``; 0 marks a clip without a face.
        freeze_backbone : bool
            Compute everything below the audio-visual head without gradients
            and in eval mode, as in that head's update (section 3.3). Only
            ``audiovisual`` then has a gradient. No effect on networks without
            a separate audio-visual head.
        detach_pair : bool
            Detach the input of the audio-visual head from the graph. No effect
            on networks that fuse the modalities before their heads.

        Returns
        -------
        VAVLOutput
        """
        inputs = {
            "audio": PresentRows(audio, audio_lens),
            "visual": PresentRows(visual, visual_lens),
        }
        return self.forward_rows(inputs, freeze_backbone, detach_pair)

    def forward_rows(
        self,
        inputs: dict[str, PresentRows],
        freeze_backbone: bool = False,
        detach_pair: bool = False,
    ) -> VAVLOutput:
        """As :meth:`forward`; ``inputs`` maps each modality to the features of
        the clips that have it."""
        raise NotImplementedError

    @property
    def learns_from_pairs(self) -> bool:
        """Whether the audio-visual head is trained on clips with both
        modalities."""
        return bool({"joint", "audiovisual"} & set(self.updates))


def mlp(sizes: list[int], dropout: float) -> nn.Sequential:
    """Linear layers; ReLU and dropout after the first only, as released.

    Arguments
    ---------
    sizes : list
        Layer widths, from input to output.
    dropout : float
        Dropout rate after the first layer.

    Returns
    -------
    nn.Sequential

    Example
    -------
    >>> mlp([8, 8, 4, 2], dropout=0.2)(torch.rand(3, 8)).shape
    torch.Size([3, 2])
    """
    first, *others = (nn.Linear(*pair) for pair in zip(sizes, sizes[1:]))
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(dropout), *others)


def modality_branch(
    dim: int,
    num_outputs: int,
    d_model: int,
    projection_dim: int,
    num_layers: int,
    feature_noise: float,
    head_dropout: float,
    **conformer,
) -> nn.ModuleDict:
    """Layers of one modality: ``normalize``, ``noise``, ``projection``,
    ``encoder`` and ``prediction_head``.

    ``dim`` is the feature size, ``num_layers`` the number of conformer layers;
    the other arguments are those of :class:`VAVL`.
    """
    sizes = [d_model, d_model, max(d_model // 2, 1), num_outputs]
    return nn.ModuleDict(
        {
            "normalize": InputNormalization(dim),
            "noise": FeatureNoise(feature_noise),
            "projection": nn.Sequential(
                nn.Linear(dim, projection_dim, bias=False),
                nn.Linear(projection_dim, d_model),
            ),
            "encoder": MaskedConformerEncoder(num_layers, d_model, **conformer),
            "prediction_head": mlp(sizes, head_dropout),
        }
    )


class VAVL(AudioVisualNetwork):
    """Versatile audio-visual learning (VAVL) network.

    Defaults are the paper's. The hidden sizes of the heads scale with
    ``d_model`` (512-512-256-n at 512).

    Arguments
    ---------
    audio_dim : int
        Size of an audio feature vector.
    visual_dim : int
        Size of a visual feature vector.
    num_outputs : int
        Number of classes or attributes.
    d_model : int
        Width of the conformer layers; a multiple of ``nhead``.
    projection_dim : int
        Width between the two frame-wise projections.
    encoder_layers : int
        Conformer layers of each modality's encoder, at least 1.
    shared_layers : int
        Conformer layers shared by both modalities; 0 for none.
    residual : bool
        Whether the shared layers' input is added to their output.
    nhead : int
        Attention heads.
    d_ffn : int
        Width of the feed-forward modules; None for 4 ``d_model``, the paper's
        2048 at 512.
    kernel_size : int
        Kernel of the depthwise convolutions, in frames; odd.
    dropout : float
        Dropout rate in the conformer layers.
    head_dropout : float
        Dropout rate in the heads.
    feature_noise : float
        Standard deviation of noise added to the normalized features in
        training (:mod:`vavl_sb.nnet.normalization`). The reconstruction target
        has no noise.

    Example
    -------
    >>> net = VAVL(audio_dim=10, visual_dim=12, num_outputs=6, d_model=16)
    >>> audio, lens = torch.rand(2, 7, 10), torch.tensor([1.0, 0.5])
    >>> net(audio=audio, audio_lens=lens).audio.shape
    torch.Size([2, 6])
    >>> out = net(audio, lens, torch.rand(2, 5, 12), torch.tensor([1.0, 0.0]))
    >>> out.audiovisual.shape, out.audiovisual.any(dim=-1).tolist()
    (torch.Size([2, 6]), [True, False])
    """

    # Section 3.3 of the paper.
    updates = ("visual", "audio", "audiovisual")
    reconstructs = True

    def __init__(
        self,
        audio_dim: int = 1024,
        visual_dim: int = 1408,
        num_outputs: int = 6,
        d_model: int = 512,
        projection_dim: int = 50,
        encoder_layers: int = 3,
        shared_layers: int = 2,
        residual: bool = True,
        nhead: int = 8,
        d_ffn: int | None = None,
        kernel_size: int = 31,
        dropout: float = 0.1,
        head_dropout: float = 0.2,
        feature_noise: float = 0.0,
    ):
        super().__init__()
        self.residual = residual
        conformer: dict[str, Any] = dict(
            d_model=d_model,
            nhead=nhead,
            d_ffn=d_ffn,
            kernel_size=kernel_size,
            dropout=dropout,
        )
        hidden = [d_model, max(d_model // 2, 1)]
        for modality, dim in zip(MODALITIES, (audio_dim, visual_dim)):
            branch = modality_branch(
                dim,
                num_outputs,
                projection_dim=projection_dim,
                num_layers=encoder_layers,
                feature_noise=feature_noise,
                head_dropout=head_dropout,
                **conformer,
            )
            branch["reconstruction_head"] = mlp(
                [d_model, *hidden, dim], head_dropout
            )
            self.add_module(f"{modality}_branch", branch)
        self.shared = (
            MaskedConformerEncoder(shared_layers, **conformer)
            if shared_layers > 0
            else None
        )
        self.shared_norm = nn.LayerNorm(d_model)
        self.audiovisual_head = mlp(
            [2 * d_model, *hidden, num_outputs], head_dropout
        )

    def forward_rows(
        self,
        inputs: dict[str, PresentRows],
        freeze_backbone: bool = False,
        detach_pair: bool = False,
    ) -> VAVLOutput:
        """Predicts from the modalities that each clip has; see the base
        class."""
        fields = {}
        with self._frozen_backbone() if freeze_backbone else nullcontext():
            for modality, rows in inputs.items():
                if rows.count:
                    fields.update(self._one_modality(modality, rows))
        both = have_all(inputs.values())
        if both is not None:
            pair = [fields[f"{modality}_embedding"] for modality in MODALITIES]
            pair = torch.cat(pair, dim=-1)[both]
            pair = pair.detach() if detach_pair else pair
            fields["audiovisual"] = scatter_rows(
                self.audiovisual_head(pair), both
            )
        return VAVLOutput(**fields)

    def _one_modality(self, modality, rows):
        """Computes the fields of VAVLOutput of one modality."""
        branch = self.get_submodule(f"{modality}_branch")
        features = branch["normalize"](rows.features)
        target = masked_mean(features, rows.padding_mask)
        x = branch["projection"](branch["noise"](features))
        x = branch["encoder"](x, rows.padding_mask)
        x = self.apply_shared(x, rows.padding_mask)
        embedding = masked_mean(x, rows.padding_mask)
        reconstruction = branch["reconstruction_head"](embedding)
        return {
            modality: rows.scatter(branch["prediction_head"](embedding)),
            f"{modality}_embedding": rows.scatter(embedding),
            f"{modality}_reconstruction": rows.scatter(reconstruction),
            f"{modality}_target": rows.scatter(target),
        }

    def apply_shared(
        self, x: torch.Tensor, padding_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Applies the shared layers: h = LayerNorm(shared(x) + x).

        Arguments
        ---------
        x : torch.Tensor
            Output of one modality's encoder, shape (B, T, d_model).
        padding_mask : torch.Tensor
            True where a frame is padding, shape (B, T); None: no padding.

        Returns
        -------
        torch.Tensor
            Shape (B, T, d_model).
        """
        if self.shared is None:
            return self.shared_norm(x)
        shared = self.shared(x, padding_mask)
        return self.shared_norm(shared + x if self.residual else shared)

    @contextmanager
    def _frozen_backbone(self):
        """Disables gradients and sets the backbone to eval mode; restores its
        modes afterwards."""
        backbone = [
            module
            for name, module in self.named_children()
            if name != "audiovisual_head"
        ]
        modes = [(m, m.training) for part in backbone for m in part.modules()]
        for part in backbone:
            part.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, training in modes:
                module.training = training
