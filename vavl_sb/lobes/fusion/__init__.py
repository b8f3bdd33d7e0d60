"""Fusion networks: VAVL and baselines.

All have the ``forward`` and the output of :class:`vavl_sb.lobes.vavl.VAVL`.
"""

import importlib
import inspect

from vavl_sb.lobes.vavl import AudioVisualNetwork
from vavl_sb.utils.errors import VAVLError

# Values of `--fusion`, and their classes.
NETWORKS = {
    "vavl": "vavl_sb.lobes.vavl.VAVL",
    "vavl_linear": "vavl_sb.lobes.fusion.linear.VAVLLinear",
    "late": "vavl_sb.lobes.fusion.late.LateFusion",
    "uavm": "vavl_sb.lobes.fusion.late.UAVM",
    "auxformer": "vavl_sb.lobes.fusion.mult.AuxFormer",
    "mult": "vavl_sb.lobes.fusion.mult.MulT",
    "ia": "vavl_sb.lobes.fusion.attention.IntermediateAttention",
    "linear": "vavl_sb.lobes.fusion.linear.LinearFusion",
}


def make_network(fusion: str = "vavl", **arguments) -> AudioVisualNetwork:
    """Creates a network by name, with those arguments that it takes.

    Arguments
    ---------
    fusion : str
        A key of :data:`NETWORKS`, or your own class, such as
        "my_module.MyFusion".
    **arguments
        ``audio_dim``, ``visual_dim``, ``num_outputs``, ``d_model`` and
        arguments of any network, so that one hparams file works for all.

    Returns
    -------
    AudioVisualNetwork

    Raises
    ------
    VAVLError
        If the network does not exist, or no network takes an argument.

    Example
    -------
    >>> sizes = dict(audio_dim=10, visual_dim=12, num_outputs=6, d_model=16)
    >>> make_network("late", **sizes, residual=True).settings["d_model"]
    16
    """
    takes = _arguments(fusion)
    if any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        return find_network(fusion)(**arguments)
    unused = arguments.keys() - takes.keys()
    known = {name for network in NETWORKS for name in _arguments(network)}
    for name in sorted(unused - known):
        raise VAVLError(f"vavl: no network takes {name}; leave it out")
    own = {k: v for k, v in arguments.items() if k in takes}
    return find_network(fusion)(**own)


def _arguments(fusion):
    """Returns the parameters of a network's constructor."""
    return inspect.signature(find_network(fusion).__init__).parameters


def find_network(fusion: str) -> type[AudioVisualNetwork]:
    """Returns the class of a name; see :func:`make_network`."""
    module, _, name = NETWORKS.get(fusion, str(fusion)).rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        if not issubclass(kind, AudioVisualNetwork):
            raise TypeError("it is not an AudioVisualNetwork")
        return kind
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise VAVLError(
            f"fusion: {fusion} is none of {', '.join(NETWORKS)}, and not a "
            f"class on PYTHONPATH ({' '.join(str(error).split())[:100]})"
        ) from None
