"""Visual encoder of face crops: EfficientNet-B2 or, without weights, a HOG
descriptor."""

import copy
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from vavl_sb.lobes.feature_encoder import FeatureEncoder
from vavl_sb.utils.errors import EncoderError, first_line
from vavl_sb.utils.logger import get_logger
from vavl_sb.utils.weights import check_fit, halved, load_tensors, save_tensors

logger = get_logger(__name__)

MODEL = "tf_efficientnet_b2"
# Increase when the same weights give other features, even if only by rounding.
# 2: a frozen encoder's BatchNorm layers are folded.
VERSION = 2
HUB_MODEL = "tf_efficientnet_b2.ns_jft_in1k"
FILE_NAME = "visual_encoder.safetensors"
# Mean and standard deviation of ImageNet's pixels in [0, 1] (RGB). All weights
# of this model, including those for emotion, were trained with them.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
PREFIXES = ("module.", "model.", "backbone.")

# Name of the HOG descriptor in a model's metadata, like "logmel" for speech.
GRADIENTS = "gradients"
# Weights of red, green and blue in the luma (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)


class FaceDescriptor(nn.Module):
    """Histograms of oriented gradients of a grey face crop.

    As in HOG (Dalal & Triggs, CVPR 2005), gradients are pooled by cell and
    direction, and each cell is divided by the contrast around it. As in DAISY
    (Tola et al., PAMI 2010), directions are half-wave rectified derivatives,
    which change smoothly when an edge rotates. The descriptor is invariant to
    brightness and contrast. Reducing the crop to 64 x 64 removes finer detail,
    such as codec artefacts.

    Cells are wide and overlap, since detected boxes vary by a few pixels
    between copies of an image. Constants scale the output to a mean of about 0
    and a deviation of about 1 on aligned faces.

    Example
    -------
    >>> crops = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    >>> FaceDescriptor()(crops).shape
    torch.Size([2, 512])
    """

    size = 64  # pixels per side, after reduction
    places = 8  # cells per side
    directions = 8
    reach = 1.0  # standard deviation of a cell's window, in cells
    # Contrast, relative to that of the whole face, below which a cell counts as
    # flat, and gradient (of luma in 0 to 1) below which the image does.
    floor = 0.6
    least = 1e-3
    mean, deviation = 0.75, 0.27
    num_features = directions * places**2

    def __init__(self):
        super().__init__()
        luma = torch.tensor(LUMA).view(1, 3, 1, 1) / 255
        angles = torch.arange(self.directions) * 2 * math.pi / self.directions
        steer = torch.stack([angles.cos(), angles.sin()], dim=1)
        step = self.size / self.places
        centres = (torch.arange(self.places) + 0.5) * step
        away = torch.arange(self.size) + 0.5 - centres.unsqueeze(1)
        window = torch.softmax(-((away / (self.reach * step)) ** 2) / 2, dim=1)
        self.register_buffer("luma", luma, persistent=False)
        self.register_buffer("steer", steer, persistent=False)
        self.register_buffer("window", window, persistent=False)

    def settings(self) -> dict:
        """Returns the settings that features depend on."""
        names = "size places directions reach floor least mean deviation"
        return {
            "kind": GRADIENTS,
            **{k: getattr(self, k) for k in names.split()},
        }

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Computes features, float32 (N, 512), of RGB crops, uint8 (N, 3, H,
        W)."""
        grey = (crops.float() * self.luma).sum(dim=1, keepdim=True)
        grey = nn.functional.interpolate(
            grey, (self.size + 2,) * 2, mode="bilinear", antialias=True
        )
        dx = grey[:, 0, 1:-1, 2:] - grey[:, 0, 1:-1, :-2]
        dy = grey[:, 0, 2:, 1:-1] - grey[:, 0, :-2, 1:-1]
        edges = torch.einsum(
            "kc,cnhw->nkhw", self.steer, torch.stack([dx, dy])
        ).relu()
        places = self.window @ edges @ self.window.T
        power = places.square().mean(dim=1, keepdim=True)
        around = nn.functional.avg_pool2d(
            power, 3, stride=1, padding=1, count_include_pad=False
        )
        whole = power.mean(dim=(2, 3), keepdim=True)
        contrast = (around + self.floor**2 * whole + self.least**2).sqrt()
        return ((places / contrast - self.mean) / self.deviation).flatten(1)


class VisualEncoder(FeatureEncoder):
    """EfficientNet-B2 (timm's ``tf_efficientnet_b2``) without its classifier,
    or a HOG descriptor of the crop; always frozen.

    The published emotion weights (enet_b2_8_best, Savchenko,
    https://github.com/HSE-asavchenko/face-emotion-recognition) are for timm's
    model, with TensorFlow's "SAME" padding (at a stride of 2 more on the right
    and below) and a BatchNorm epsilon of 1e-3. torchvision's efficientnet_b2
    pads symmetrically and gives other features with the same weights.

    Arguments
    ---------
    weights : str or Path
        None: :class:`FaceDescriptor`, without a network. "imagenet": timm's
        from the hub (ImageNet, noisy student). A file: .safetensors, or a state
        dict saved by torch.save (.pt, .pth), with the keys of timm's
        ``tf_efficientnet_b2``, optionally prefixed by "module." or "model.";
        its classifier is ignored.
    batch_size : int
        Crops per forward pass: limits memory, no effect on the features.

    Raises
    ------
    EncoderError
        If the weights cannot be read or do not fit.

    Example
    -------
    >>> encoder = VisualEncoder()
    >>> crops = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    >>> encoder(crops).shape
    torch.Size([2, 512])
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        batch_size: int = 16,
    ):
        super().__init__()
        if batch_size < 1:
            raise EncoderError(
                f"visual encoder: batch_size is {batch_size}; give 1 or more"
            )
        self.batch_size = batch_size
        self._folded = (None, None)
        if weights is None:
            self.backbone = FaceDescriptor()
        else:
            self.backbone = create_backbone(pretrained=weights == "imagenet")
            if weights != "imagenet":
                tensors, left = read_backbone(Path(weights).expanduser())
                self.backbone.load_state_dict(tensors, strict=False)
                if left:
                    logger.info("%s: left out %s", weights, ", ".join(left[:5]))
            # On CPU a quarter faster than the default memory format.
            self.backbone.to(memory_format=torch.channels_last)
        # For pixels in 0 to 255.
        for name, values in (("mean", MEAN), ("deviation", DEVIATION)):
            statistic = 255 * torch.tensor(values).view(3, 1, 1)
            self.register_buffer(f"pixel_{name}", statistic, persistent=False)
        self.set_freeze(True)

    @property
    def output_dim(self) -> int:
        """Feature size: 1408, or 512 without weights."""
        return self.backbone.num_features

    @property
    def is_fixed(self) -> bool:
        """Whether this is the HOG descriptor, which has no weights."""
        return isinstance(self.backbone, FaceDescriptor)

    def settings(self) -> dict:
        """Returns the settings that features depend on, besides the weights."""
        if self.is_fixed:
            return self.backbone.settings()
        return {
            "model": MODEL,
            "version": VERSION,
            "mean": list(MEAN),
            "deviation": list(DEVIATION),
        }

    def feature_state(self) -> dict[str, torch.Tensor]:
        """Returns the tensors that features depend on, by name."""
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Computes the features of face crops.

        Arguments
        ---------
        crops : torch.Tensor
            uint8, RGB, shape (N, 3, H, W), of any size; the published emotion
            weights were trained on 224 x 224.

        Returns
        -------
        torch.Tensor
            float32, shape (N, output_dim); for EfficientNet after global
            average pooling.
        """
        if crops.dtype != torch.uint8 or crops.ndim != 4 or crops.shape[1] != 3:
            raise ValueError(
                "crops must be uint8 of shape (N, 3, H, W), got "
                f"{crops.dtype} {tuple(crops.shape)}"
            )
        if len(crops) == 0:
            return self.pixel_mean.new_zeros(0, self.output_dim)
        with self._features_context(crops.device):
            return torch.cat(
                [self._encode(part) for part in crops.split(self.batch_size)]
            )

    def _encode(self, crops):
        """Computes the features of at most ``batch_size`` crops."""
        if self.is_fixed:
            return self.backbone(crops)
        pictures = self.normalize(crops)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        return self._network()(pictures).float()

    def _network(self):
        """Returns the backbone with folded BatchNorm layers; folds them anew if
        a weight has changed."""
        state = self.backbone.state_dict().values()
        state = [(tensor.data_ptr(), tensor._version) for tensor in state]
        if self._folded[0] != state:
            with torch.inference_mode(False):
                network = fold_batch_norms(self.backbone)
            # In a tuple, so that it is not registered as a submodule.
            self._folded = (state, network)
        return self._folded[1]

    def normalize(self, crops: torch.Tensor) -> torch.Tensor:
        """Normalizes crops, uint8 (N, 3, H, W), by ImageNet's mean and standard
        deviation, to float32."""
        return (crops.float() - self.pixel_mean) / self.pixel_deviation

    def export(self, folder: str | Path) -> dict:
        """Writes ``visual_encoder.safetensors`` into the folder of an exported
        model, if there are weights.

        Returns arguments of :class:`VisualEncoder` for the same features and
        fingerprint.
        """
        if self.is_fixed:
            return {}
        path = Path(folder) / FILE_NAME
        state = halved(self.backbone.state_dict())
        save_tensors(state, path, {"format": "pt", "model": MODEL})
        return {"weights": path}


def create_backbone(pretrained: bool = False) -> nn.Module:
    """Creates timm's model without its classifier; with ``pretrained``, loads
    ImageNet weights from the hub."""
    try:
        import timm
    except ImportError:
        raise EncoderError(
            "the visual encoder needs the package timm; pip install timm"
        ) from None
    if not pretrained:
        with torch.random.fork_rng(devices=[]):
            return timm.create_model(MODEL, num_classes=0)
    # The name, network, disk or token may be the cause of an error.
    try:
        return timm.create_model(HUB_MODEL, num_classes=0, pretrained=True)
    except Exception as error:
        raise EncoderError(
            f"visual encoder {HUB_MODEL}: cannot be downloaded from the hub "
            f"({first_line(error)}); give a file of weights instead"
        ) from None


def read_backbone(
    path: str | Path,
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Reads the weights of an EfficientNet-B2.

    For the files see ``weights`` of :class:`VisualEncoder`. Returns the tensors
    without the classifier, and the names left out. Raises an EncoderError if
    the file cannot be read, or names or shapes do not fit.
    """
    tensors = {}
    for name, tensor in load_tensors(path).items():
        while name.startswith(PREFIXES):
            name = name.split(".", 1)[1]
        tensors[name] = tensor
    with torch.device("meta"):
        wanted = create_backbone().state_dict()
    parts = {name.split(".")[0] for name in wanted}
    left_out = check_fit(path, MODEL, tensors, wanted, parts)
    return {k: tensors[k] for k in wanted if k in tensors}, left_out


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Copies a network, without gradients, and folds each BatchNorm layer into
    the convolution before it.

    In eval mode BatchNorm is an affine map of each channel, which the
    convolution can include. Assumes that a module's children are called in
    order, as in timm's EfficientNet. ``drop`` and ``act`` of timm's
    ``BatchNormAct2d`` are kept.

    Example
    -------
    >>> norm = nn.BatchNorm2d(2)
    >>> _ = norm(torch.randn(4, 2, 3, 3))  # Sets its statistics.
    >>> net = nn.Sequential(nn.Conv2d(2, 2, 1), norm).eval()
    >>> x = torch.randn(1, 2, 3, 3)
    >>> torch.allclose(fold_batch_norms(net)(x), net(x), atol=1e-6)
    True
    """
    folded = copy.deepcopy(network).requires_grad_(False)
    for part in list(folded.modules()):
        children = list(part.named_children())
        for (_, before), (name, norm) in zip(children, children[1:]):
            pair = isinstance(before, nn.Conv2d)
            if not (pair and isinstance(norm, nn.BatchNorm2d)):
                continue
            before.weight, before.bias = fuse_conv_bn_weights(
                *(before.weight, before.bias),
                *(norm.running_mean, norm.running_var, norm.eps),
                *(norm.weight, norm.bias),
            )
            behind = [getattr(norm, key, None) for key in ("drop", "act")]
            behind = [p for p in behind if p and not isinstance(p, nn.Identity)]
            setattr(part, name, nn.Sequential(*behind))
    return folded
