"""The VAVL network: one model for speech, for faces, and for both.

Each modality has its features normalized, and frame-wise projections and
conformer layers of its own. Both then pass through the same shared conformer
layers, with a residual around them. A clip's representation is the mean over
its frames; heads on it predict the emotion and reconstruct the time mean of the
input features, and an audio-visual head reads the two representations side by
side.

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

# What a clip may have, what predicts from it, and what each of these reads.
MODALITIES = ("audio", "visual")
HEADS = (*MODALITIES, "audiovisual")
READS = {"audio": ("audio",), "visual": ("visual",), "audiovisual": MODALITIES}


@dataclass
class VAVLOutput:
    """What a network says about a batch of B clips.

    A tensor is None where no clip of the batch has what it needs. Rows of
    clips that lack the modality (length 0) hold 0.

    Arguments
    ---------
    audio, visual, audiovisual : torch.Tensor
        Predictions of the three heads, shape (B, num_outputs): logits for
        classes, values for attributes.
    audio_embedding, visual_embedding : torch.Tensor
        Representations r_m, shape (B, d_model).
    audio_reconstruction, visual_reconstruction : torch.Tensor
        Reconstructed time mean of the features, shape (B, feature size), of
        a network that reconstructs.
    audio_target, visual_target : torch.Tensor
        The time mean of the features itself, normalized as the network
        reads them, shape (B, feature size).
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
    """What training, export and inference need of a network.

    A subclass takes ``audio_dim``, ``visual_dim`` and ``num_outputs`` among its
    arguments, and has :meth:`forward_rows`; docs/extend.md shows one. Where it
    has ``audio_branch["normalize"]`` and the like, these get the statistics of
    the training clips.

    Attributes
    ----------
    updates : tuple of str
        The steps that a batch takes, in order. A head's name is a step with
        that head's loss, for which the network gets what that head reads
        (for "audiovisual" with ``freeze_backbone``); "joint" is one step with
        the losses of all three heads. None: what ``fit_statistics`` does is
        all.
    reconstructs : bool
        Whether the losses of "audio" and "visual" have the reconstruction of
        the features in them.
    settings : dict
        The arguments that it was made with, by name, defaults included:
        ``type(net)(**net.settings)`` has the same shape.
    num_outputs : int
        Number of classes or attributes.
    fit_statistics : callable
        Where a class has it, it is called for each modality before the first
        epoch: see :meth:`vavl_sb.lobes.fusion.linear.LinearFusion.fit_statistics`.
    """

    updates: tuple[str, ...] = ("joint",)
    reconstructs = False

    def __new__(cls, *args, **kwargs):
        """Notes the arguments, whatever the class."""
        net = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        given = signature.bind_partial(net, *args, **kwargs)
        given.apply_defaults()
        _, *names = signature.parameters
        settings = {k: v for k, v in given.arguments.items() if k in names}
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
        """Predicts from whatever the batch has.

        Arguments
        ---------
        audio : torch.Tensor
            Audio features, shape (B, Ta, audio_dim), or None.
        audio_lens : torch.Tensor
            Relative lengths in [0, 1], shape (B,); 0 marks a clip without
            sound. None: every clip fills its row.
        visual : torch.Tensor
            Visual features, shape (B, Tv, visual_dim), or None.
        visual_lens : torch.Tensor
            As ``audio_lens``.
        freeze_backbone : bool
            Compute everything below the audio-visual head without gradients
            and in eval mode, whatever mode the network is in: the setting in
            which that head is trained (section 3.3). Only ``audiovisual``
            then has a gradient. No effect on a network without such a head.
        detach_pair : bool
            Cut what the audio-visual prediction is made from off from the
            graph. No effect on a network that reads both at once.

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
        """As :meth:`forward`, from the clips that have "audio" and "visual"."""
        raise NotImplementedError

    @property
    def learns_from_pairs(self) -> bool:
        """Whether the audio-visual prediction needs clips with both."""
        return bool({"joint", "audiovisual"} & set(self.updates))


def mlp(sizes: list[int], dropout: float) -> nn.Sequential:
    """Linear layers, with ReLU and dropout after the first, as released.

    Arguments
    ---------
    sizes : list
        Widths, from input to output.
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
    """One modality's own layers: ``normalize``, ``noise``, ``projection``,
    ``encoder`` and ``prediction_head``.

    From feature vectors of size ``dim``, by ``num_layers`` conformer layers;
    all else is as of :class:`VAVL`.
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
    """Versatile audio-visual network.

    Defaults are the paper's. Hidden widths of the heads follow ``d_model``
    (512-512-256-n at 512).

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
        Conformer layers of each modality's own, at least 1.
    shared_layers : int
        Conformer layers that both modalities pass through; 0 for none.
    residual : bool
        Whether the shared layers' input is added to their output.
    nhead : int
        Attention heads.
    d_ffn : int
        Width of the feed-forward modules; None for 4 ``d_model``, which is
        the paper's 2048 at 512.
    kernel_size : int
        Frames that a depthwise convolution spans; odd.
    dropout : float
        Dropout rate in the conformer layers.
    head_dropout : float
        Dropout rate in the heads.
    feature_noise : float
        Deviation of noise on normalized features in training
        (:mod:`vavl_sb.nnet.normalization`). What is to be reconstructed has
        none.

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
        """Predicts from whatever the batch has; see the base class."""
        found = {}
        with self._frozen_backbone() if freeze_backbone else nullcontext():
            for modality, rows in inputs.items():
                if rows.count:
                    found.update(self._one_modality(modality, rows))
        both = have_all(inputs.values())
        if both is not None:
            pair = [found[f"{modality}_embedding"] for modality in MODALITIES]
            pair = torch.cat(pair, dim=-1)[both]
            pair = pair.detach() if detach_pair else pair
            found["audiovisual"] = scatter_rows(
                self.audiovisual_head(pair), both
            )
        return VAVLOutput(**found)

    def _one_modality(self, modality, rows):
        """Fields of VAVLOutput that belong to one modality."""
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
        """Shared layers with the residual: h = LayerNorm(shared(x) + x).

        Arguments
        ---------
        x : torch.Tensor
            Frames of one modality's encoder, shape (B, T, d_model).
        padding_mask : torch.Tensor
            True where a frame is padding, shape (B, T); None for none.

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
        """Backbone in eval mode and without gradients, then as it was."""
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
