"""Networks that read speech, faces, or both: VAVL and what it is compared with.

All have the ``forward`` and the output of :class:`vavl_sb.lobes.vavl.VAVL`, and
read the same features at the same width.
"""

import importlib
import inspect

from vavl_sb.lobes.vavl import AudioVisualNetwork
from vavl_sb.utils.errors import VAVLError

# What `--fusion` takes, and the class behind each.
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
    """Makes a network by its name, with those arguments that it takes.

    Arguments
    ---------
    fusion : str
        One of :data:`NETWORKS`, or a class of one's own, such as
        "my_module.MyFusion".
    **arguments
        ``audio_dim``, ``visual_dim``, ``num_outputs``, ``d_model`` and
        whatever else some network takes: one hparams file serves all.

    Returns
    -------
    AudioVisualNetwork

    Raises
    ------
    VAVLError
        In one line: there is no such network, or no network at all takes such
        an argument.

    Example
    -------
    >>> sizes = dict(audio_dim=10, visual_dim=12, num_outputs=6, d_model=16)
    >>> make_network("late", **sizes, residual=True).settings["d_model"]
    16
    """
    takes = _arguments(fusion)
    if any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        return find_network(fusion)(**arguments)
    others = arguments.keys() - takes.keys()
    known = {name for network in NETWORKS for name in _arguments(network)}
    for name in sorted(others - known):
        raise VAVLError(f"vavl: no network takes {name}; leave it out")
    own = {k: v for k, v in arguments.items() if k in takes}
    return find_network(fusion)(**own)


def _arguments(fusion):
    """The arguments that a network takes."""
    return inspect.signature(find_network(fusion).__init__).parameters


def find_network(fusion: str) -> type[AudioVisualNetwork]:
    """The class of a name, as :func:`make_network` takes it."""
    module, _, name = NETWORKS.get(fusion, str(fusion)).rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        if not issubclass(kind, AudioVisualNetwork):
            raise TypeError("it is no AudioVisualNetwork")
        return kind
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise VAVLError(
            f"fusion: {fusion} is none of {', '.join(NETWORKS)}, and no class "
            f"of yours on PYTHONPATH ({' '.join(str(error).split())[:100]})"
        ) from None
