"""Conversion of attributes between the corpus's scale and the network's."""

from collections.abc import Sequence
from typing import TypeVar

import torch

from vavl_sb.utils.errors import VAVLError

Values = TypeVar("Values", torch.Tensor, float)


class AttributeScale:
    """Maps a corpus's scale, such as 1 to 5, to -1 to 1 and back.

    An untrained head predicts values near 0, and would spend its first epochs
    on reaching 3, the middle of a scale from 1 to 5. The concordance
    correlation coefficient is the same in both scales.

    Arguments
    ---------
    limits : list of float
        Lowest and highest value of the scale; None: no conversion.

    Raises
    ------
    VAVLError
        If the limits are not two increasing numbers.

    Example
    -------
    >>> scale = AttributeScale([1.0, 5.0])
    >>> scale.to_network(4.0), scale.to_corpus(0.5)
    (0.5, 4.0)
    """

    def __init__(self, limits: Sequence[float] | None = None):
        try:
            low, high = (-1.0, 1.0) if limits is None else map(float, limits)
        except (TypeError, ValueError):
            low = high = 0.0
        if not low < high:
            raise VAVLError(
                "attribute_range: must be the lowest and the highest value, "
                f"such as [1, 5], or null; not {limits!r}"
            )
        self.middle, self.half = (low + high) / 2, (high - low) / 2

    def to_network(self, values: Values) -> Values:
        """Converts from the corpus's scale; any shape."""
        return (values - self.middle) / self.half

    def to_corpus(self, values: Values) -> Values:
        """Converts to the corpus's scale, without clipping; any shape."""
        return values * self.half + self.middle
