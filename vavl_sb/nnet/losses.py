"""Losses of VAVL: classification, concordance and feature reconstruction."""

from collections.abc import Sequence

import torch

from vavl_sb.utils.errors import VAVLError


def concordance(
    predictions: torch.Tensor, targets: torch.Tensor, eps: float = 1e-8
) -> torch.Tensor:
    """Computes the concordance correlation coefficient (CCC) of each column.

    CCC = 2 cov(p, t) / (var(p) + var(t) + (mean(p) - mean(t))^2), with
    population moments (Lin, Biometrics 45, 1989), in float32, or float64 for
    float64 predictions. It has gradients.
    See :func:`vavl_sb.utils.metrics.concordance` on other definitions.

    Arguments
    ---------
    predictions : torch.Tensor
        Shape (B, n).
    targets : torch.Tensor
        Shape (B, n).
    eps : float
        Added to the denominator: if both columns are the same constant, the
        result is 0 and its gradient finite.

    Returns
    -------
    torch.Tensor
        Shape (n,), in [-1, 1].

    Example
    -------
    >>> t = torch.tensor([[1.0], [2.0], [3.0]])
    >>> concordance(t, t).round(decimals=4)
    tensor([1.])
    """
    dtype = torch.promote_types(predictions.dtype, torch.float32)
    predictions, targets = predictions.to(dtype), targets.to(dtype)
    mean_p, mean_t = predictions.mean(dim=0), targets.mean(dim=0)
    dev_p, dev_t = predictions - mean_p, targets - mean_t
    covariance = (dev_p * dev_t).mean(dim=0)
    spread = dev_p.square().mean(dim=0) + dev_t.square().mean(dim=0)
    return 2 * covariance / (spread + (mean_p - mean_t).square() + eps)


def ccc_loss(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Computes the sum over attributes of 1 - CCC (section 3.4 of the paper).

    Arguments
    ---------
    predictions : torch.Tensor
        Shape (B, n).
    targets : torch.Tensor
        Shape (B, n).

    Returns
    -------
    torch.Tensor
        Scalar in [0, 2 n].

    Example
    -------
    >>> t = torch.tensor([[1.0, 0.0], [2.0, 1.0], [3.0, 5.0]])
    >>> round(ccc_loss(t, t).item(), 4)
    0.0
    """
    with torch.autocast(predictions.device.type, enabled=False):
        return (1 - concordance(predictions, targets)).sum()


def classification_loss(
    predictions: torch.Tensor,
    targets: torch.Tensor,
    class_weights: Sequence[float] | None = None,
) -> torch.Tensor:
    """Computes the mean cross-entropy.

    Arguments
    ---------
    predictions : torch.Tensor
        Logits, shape (B, n).
    targets : torch.Tensor
        Class indices, int64, shape (B,); or, after mixup, class
        probabilities, float, shape (B, n).
    class_weights : sequence of float
        Weight of each class, shape (n,), for a weighted mean; None for equal
        weights.

    Returns
    -------
    torch.Tensor
        Scalar.

    Example
    -------
    >>> loss = classification_loss(torch.zeros(2, 4), torch.tensor([0, 3]))
    >>> round(loss.item(), 4)  # ln 4
    1.3863
    """
    predictions = predictions.float()
    if class_weights is None:
        return torch.nn.functional.cross_entropy(predictions, targets)
    weights = predictions.new_tensor(class_weights)
    if weights.shape != predictions.shape[1:] or not (weights > 0).all():
        raise VAVLError(
            f"class_weights: must be {predictions.shape[1]} numbers above 0, "
            f"one per class, not {class_weights}"
        )
    # PyTorch's cross_entropy does not divide by the weights of probabilities.
    if not targets.is_floating_point():
        targets = torch.nn.functional.one_hot(targets, len(weights))
    weighted = targets * weights
    losses = -(weighted * predictions.log_softmax(dim=1)).sum(dim=1)
    return losses.sum() / weighted.sum()


def reconstruction_loss(
    reconstruction: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Computes the mean squared error to the time mean of the input features.

    Arguments
    ---------
    reconstruction : torch.Tensor
        Shape (B, D).
    target : torch.Tensor
        Shape (B, D).

    Returns
    -------
    torch.Tensor
        Scalar.

    Example
    -------
    >>> reconstruction_loss(torch.zeros(2, 3), torch.full((2, 3), 2.0))
    tensor(4.)
    """
    return torch.nn.functional.mse_loss(reconstruction.float(), target.float())
