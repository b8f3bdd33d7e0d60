"""Within-class covariance normalization of a network's input features.

Clips of the same emotion differ by speaker, sentence and room. Where a few
hundred of them have thousands of features, those differences are learned by
heart. Whitening makes them equally small in all directions, so that what
differs between classes stands out: Hatch et al., "Within-class covariance
normalization for SVM-based speaker recognition", Interspeech 2006, with the
covariance shrunk as in regularized discriminant analysis (Friedman, 1989).
"""

import torch

from vavl_sb.utils.errors import VAVLError

# At most so many directions, and so many clips that they are found from.
RANK = 2048


def check_whitening(shrinkage: float | None) -> float | None:
    """Refuses what is no shrinkage.

    Arguments
    ---------
    shrinkage : float or None
        0.001 (hardly any) to 1 (nothing but shrinkage: features are only
        scaled); None for no whitening.

    Returns
    -------
    float or None
        The same. VAVLError, in one line, where it cannot be meant.
    """
    if shrinkage is None:
        return None
    number = isinstance(shrinkage, (int, float))
    # Without any, fewer clips than features have no inverse covariance.
    if not number or isinstance(shrinkage, bool) or not 1e-3 <= shrinkage <= 1:
        raise VAVLError(
            "feature_whitening: must be null (none) or a shrinkage from "
            f"0.001 to 1, such as 0.5, not {shrinkage!r}"
        )
    return float(shrinkage)


def whitening(
    features: torch.Tensor, targets: torch.Tensor, shrinkage: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What whitens that part of features which targets do not explain.

    The inverse root of the covariance, base * I + V diag(gains) V', as its
    parts: a matrix of 12,288 features (12 layers of wav2vec2-large side by
    side) would take 600 MB. It is exact where there are no more features, or
    no more clips, than :data:`RANK`. Beyond that, clips are evenly thinned out.

    Arguments
    ---------
    features : torch.Tensor
        Standardized features of clips, shape (N, D): means over time.
    targets : torch.Tensor
        Class indices, shape (N,) or (N, 1), int64, or attributes, shape
        (N, n), float. What is whitened is what a linear fit of them leaves: of
        classes, the difference from the mean of the class.
    shrinkage : float
        Share of the identity in the covariance, see :func:`check_whitening`.

    Returns
    -------
    base : torch.Tensor
        float32, shape (): by which all directions are multiplied. All is scaled
        so that features keep the mean square that they have about their mean.
    directions : torch.Tensor
        V, with orthonormal columns, float32, shape (D, r).
    gains : torch.Tensor
        What the directions are multiplied by besides, float32, shape (r,).

    Example
    -------
    >>> x = torch.tensor([[3.0, 1.0], [-3.0, 1.0], [3.0, -1.0], [-3.0, -1.0]])
    >>> parts = whitening(x, torch.tensor([0, 0, 1, 1]), 0.01)
    >>> white = whiten(x, *parts).abs()
    >>> bool((white[:, 1] > 4 * white[:, 0]).all())  # The class is in y.
    True
    """
    step = -(-len(features) // RANK)
    # In double: a covariance of thousands of features loses digits.
    features, targets = features[::step].double(), targets[::step]
    features = features - features.mean(dim=0)
    rest = features - _explained(features, targets)
    size = features.shape[1]
    mean = rest.square().mean()
    if mean <= 1e-12 * features.square().mean():
        # Nothing to whiten, as with one clip a class.
        nothing = features.new_zeros(size, 0).float()
        return torch.tensor(1.0), nothing, nothing[0]
    _, values, directions = torch.linalg.svd(
        rest / len(rest) ** 0.5, full_matrices=False
    )
    base = (shrinkage * mean).rsqrt()
    variances = (1 - shrinkage) * values.square() + shrinkage * mean
    parts = base, directions.T, variances.rsqrt() - base
    after = whiten(features, *parts).square().mean()
    scale = (features.square().mean() / after).sqrt()
    base, directions, gains = parts
    return (base * scale).float(), directions.float(), (gains * scale).float()


def whiten(
    x: torch.Tensor,
    base: torch.Tensor,
    directions: torch.Tensor,
    gains: torch.Tensor,
) -> torch.Tensor:
    """Whitens features.

    Arguments
    ---------
    x : torch.Tensor
        Standardized features, shape (..., D).
    base, directions, gains : torch.Tensor
        From :func:`whitening`.

    Returns
    -------
    torch.Tensor
        Shape (..., D).
    """
    return base * x + ((x @ directions) * gains) @ directions.T


def _explained(features, targets):
    """Least-squares prediction of centred features (N, D) from targets."""
    if not targets.is_floating_point():
        targets = torch.nn.functional.one_hot(targets.flatten())
    targets = targets.double()
    targets = targets - targets.mean(dim=0)
    # By the pseudoinverse: centred classes are linearly dependent.
    return targets @ (torch.linalg.pinv(targets) @ features)
