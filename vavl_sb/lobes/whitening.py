"""Within-class covariance normalization of a network's input features.

Clips of the same emotion differ by speaker, sentence and room. Where a few
hundred of them have thousands of features, those differences are learned by
heart. Whitening makes them equally small in all directions, so that what
differs between classes stands out: Hatch et al., "Within-class covariance
normalization for SVM-based speaker recognition", Interspeech 2006, with the
covariance shrunk as in regularized discriminant analysis (Friedman, 1989).

Authors
 * The vavl_sb authors 2026
"""

import torch

from vavl_sb.utils.errors import VAVLError


def check_whitening(shrinkage):
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


def whitening_matrix(features, targets, shrinkage):
    """The matrix that whitens what targets do not explain of features.

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
    torch.Tensor
        Symmetric, float32, shape (D, D): features are multiplied by it. Scaled
        so that ``features`` keep the mean square that they have about their
        mean.

    Example
    -------
    >>> x = torch.tensor([[3.0, 1.0], [-3.0, 1.0], [3.0, -1.0], [-3.0, -1.0]])
    >>> matrix = whitening_matrix(x, torch.tensor([0, 0, 1, 1]), 0.01)
    >>> bool(matrix[0, 0] < 0.1 * matrix[1, 1])  # The class is in the second.
    True
    """
    # In double: a covariance of thousands of features loses digits.
    features = features.double()
    features = features - features.mean(dim=0)
    rest = features - _explained(features, targets)
    covariance = rest.T @ rest / len(rest)
    mean = covariance.diagonal().mean()
    if mean == 0:
        # Nothing to whiten, as with one clip a class.
        return torch.eye(features.shape[1])
    identity = torch.eye(len(covariance), dtype=torch.float64)
    covariance = (1 - shrinkage) * covariance + shrinkage * mean * identity
    values, vectors = torch.linalg.eigh(covariance)
    # The symmetric root: the same whatever signs eigenvectors come with.
    matrix = (vectors / values.sqrt()) @ vectors.T
    before, after = features.square().mean(), (features @ matrix).square()
    return (matrix * (before / after.mean()).sqrt()).float()


def _explained(features, targets):
    """Least-squares prediction of centred features (N, D) from targets."""
    if not targets.is_floating_point():
        targets = torch.nn.functional.one_hot(targets.flatten())
    targets = targets.double()
    targets = targets - targets.mean(dim=0)
    # By the pseudoinverse: centred classes are linearly dependent.
    return targets @ (torch.linalg.pinv(targets) @ features)
