"""Linear models: logistic regression, ridge regression and linear discriminant
analysis.

They are meant for few clips with many features: directions outside of the
clips' span get no weight, so the models are fitted in coordinates of the span.
"""

from collections.abc import Sequence

import torch

# Inverse penalties for cross-validation, and the default without it.
STRENGTHS = tuple(10.0**power for power in range(-5, 1))
DEFAULT_STRENGTH = 0.01
# Shrinkages of the covariance towards a multiple of the identity, and factors
# of the logits, which are overconfident with many features.
SHRINKAGES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
SCALES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
DEFAULT_SHRINKAGE, DEFAULT_SCALE = 0.3, 0.3
FOLDS = 4


def fit_linear(
    x: torch.Tensor,
    targets: torch.Tensor,
    num_outputs: int,
    strength: float | None = None,
    groups: Sequence[str] = (),
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Fits logistic regression to class indices or ridge regression to values.

    Let C be the strength. Logistic regression minimizes C times the sum of the
    clips' cross-entropies, weighted inversely to the frequency of their class,
    plus half the squared norm of the weights. Ridge regression minimizes C
    times the sum of squared errors plus the squared norm of the weights. Biases
    have no penalty.

    Arguments
    ---------
    x : torch.Tensor
        Standardized features, shape (N, D).
    targets : torch.Tensor
        Class indices, int64, shape (N,), or values, float, shape (N, n).
    num_outputs : int
        Number of classes or values.
    strength : float
        C. None: selected from :data:`STRENGTHS` by four-fold cross-validation
        over groups; :data:`DEFAULT_STRENGTH` with a single group.
    groups : sequence of str
        Group of each of the N clips, such as its speaker.

    Returns
    -------
    weight : torch.Tensor
        float64, shape (num_outputs, D).
    bias : torch.Tensor
        float64, shape (num_outputs,).
    strength : float
        C.

    Example
    -------
    >>> x = torch.tensor([[-1.0], [0.0], [1.0]])
    >>> weight, bias, _ = fit_linear(x, 2 * x + 1, 1, strength=1e6)
    >>> weight.round(decimals=3).item(), bias.round(decimals=3).item()
    (2.0, 1.0)
    """
    x = x.detach().double().cpu()
    targets = targets.detach().cpu()
    spanned, back = _spanned(x)
    if strength is None:
        # Single precision suffices to select a power of ten.
        strength = _choose(spanned.float(), targets, num_outputs, groups)
    weight, bias = _fit(spanned, targets, num_outputs, strength)
    return (back @ weight).T.contiguous(), bias, strength


def fit_discriminant(
    x: torch.Tensor,
    targets: torch.Tensor,
    num_outputs: int,
    groups: Sequence[str] = (),
) -> tuple[torch.Tensor, torch.Tensor, float, float]:
    """Fits a linear discriminant analysis for classes of equal prior.

    The covariance within the classes, which includes the differences between
    speakers, is shrunk towards a multiple of the identity, and the logits are
    scaled. Shrinkage and scale are selected by four-fold cross-validation over
    groups; they are :data:`DEFAULT_SHRINKAGE` and :data:`DEFAULT_SCALE` with a
    single group. Arguments, weight and bias are those of :func:`fit_linear`;
    also returns the shrinkage and the scale.

    Example
    -------
    >>> x, targets = torch.tensor([[-3.0], [-1.0], [1.0], [3.0]]), [0, 0, 1, 1]
    >>> weight, bias, _, scale = fit_discriminant(x, torch.tensor(targets), 2)
    >>> (weight / scale).round(decimals=3).flatten().tolist()
    [-2.0, 2.0]
    """
    x, targets = x.detach().double().cpu(), targets.detach().cpu()
    spanned, back = _spanned(x)
    shrinkage, scale = _choose_discriminant(
        spanned, targets, num_outputs, groups
    )
    fits = _discriminants(spanned, targets, num_outputs, (shrinkage,))
    weight, bias = (scale * part for part in fits[shrinkage])
    return (back @ weight).T.contiguous(), bias, shrinkage, scale


def _discriminants(x, targets, num_outputs, shrinkages):
    """Computes weights (D, n) and bias (n,) for each shrinkage."""
    counts = torch.bincount(targets, minlength=num_outputs).unsqueeze(1)
    sums = x.new_zeros(num_outputs, x.shape[1]).index_add(0, targets, x)
    # A class without clips gets mean 0, that of the standardized features.
    means = sums / counts.clamp(min=1)
    within = x - means[targets]
    sizes, axes = torch.linalg.eigh(within.T @ within / len(x))
    fits = {}
    for shrinkage in shrinkages:
        shrunk = (1 - shrinkage) * sizes + shrinkage * sizes.mean()
        shrunk = shrunk.clamp(min=1e-9)
        weight = axes @ (axes.T @ means.T / shrunk.unsqueeze(1))
        fits[shrinkage] = weight, -(means.T * weight).sum(dim=0) / 2
    return fits


def _choose_discriminant(x, targets, num_outputs, groups):
    """Selects the shrinkage and scale with the lowest loss on held-out
    groups."""
    losses = {}
    for seen in _folds(groups):
        fits = _discriminants(x[seen], targets[seen], num_outputs, SHRINKAGES)
        for shrinkage, (weight, bias) in fits.items():
            outputs = x[~seen] @ weight + bias
            for scale in SCALES:
                loss = _loss(scale * outputs, targets[~seen])
                key = shrinkage, scale
                losses[key] = losses.get(key, 0.0) + loss * (~seen).sum()
    default = DEFAULT_SHRINKAGE, DEFAULT_SCALE
    return min(losses, key=losses.__getitem__) if losses else default


def _folds(groups):
    """Returns a mask of the training clips for each of at most four folds; none
    for a single group."""
    names = sorted(set(groups))
    folds = min(FOLDS, len(names))
    fold_of = {name: place % folds for place, name in enumerate(names)}
    fold = torch.tensor([fold_of[group] for group in groups])
    return [fold != held_out for held_out in range(folds)] if folds > 1 else []


def _spanned(x):
    """Returns coordinates (N, r) in the span of the rows, and its basis
    (D, r)."""
    if len(x) >= x.shape[1]:
        return x, torch.eye(x.shape[1], dtype=x.dtype)
    values, vectors = torch.linalg.eigh(x @ x.T)
    kept = values > 1e-12 * values[-1].clamp(min=1e-300)
    sizes = values[kept].sqrt()
    return vectors[:, kept] * sizes, x.T @ (vectors[:, kept] / sizes)


def _choose(x, targets, num_outputs, groups):
    """Selects the strength with the lowest loss on held-out groups."""
    losses = {}
    for seen in _folds(groups):
        start = None
        # Strongest penalty first; each fit starts from the previous one.
        for strength in STRENGTHS:
            start = _fit(
                *(x[seen], targets[seen], num_outputs, strength, start),
                tolerance=1e-5,
            )
            outputs = x[~seen] @ start[0] + start[1]
            loss = _loss(outputs, targets[~seen])
            losses[strength] = losses.get(strength, 0.0) + loss * (~seen).sum()
    return min(losses, key=losses.__getitem__, default=DEFAULT_STRENGTH)


def _fit(x, targets, num_outputs, strength, start=None, tolerance=1e-9):
    """Fits weights (D, n) and bias (n,) for one strength."""
    if targets.is_floating_point():
        targets = targets.to(x.dtype)
        center, middle = x.mean(dim=0), targets.mean(dim=0)
        x = x - center
        penalty = torch.eye(x.shape[1], dtype=x.dtype) / strength
        weight = torch.linalg.solve(x.T @ x + penalty, x.T @ (targets - middle))
        return weight, middle - center @ weight
    if start is None:
        start = (x.new_zeros(x.shape[1], num_outputs), x.new_zeros(num_outputs))
    weight, bias = (part.clone().requires_grad_() for part in start)
    # The bias of a class without clips has no finite optimum.
    absent = torch.bincount(targets, minlength=num_outputs) == 0
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=1000,
        tolerance_grad=tolerance,
        tolerance_change=1e-14,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        outputs = (x @ weight + bias).masked_fill(absent, -1e4)
        loss = _loss(outputs, targets)
        loss = loss + weight.square().sum() / (2 * strength * len(x))
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    weight, bias = weight.detach(), bias.detach()
    bias[absent] = bias[~absent].min() - 20.0
    return weight, bias


def _loss(outputs, targets):
    """Computes the mean squared error, or the class-balanced cross-entropy."""
    if targets.is_floating_point():
        return (outputs - targets).square().mean()
    counts = torch.bincount(targets, minlength=outputs.shape[1])
    seen = (counts > 0).sum()
    weights = (len(targets) / (seen * counts.clamp(min=1))).to(outputs)
    losses = torch.nn.functional.cross_entropy(
        outputs, targets, reduction="none"
    )
    return (weights[targets] * losses).mean()
