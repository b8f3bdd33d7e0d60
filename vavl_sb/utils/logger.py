"""Logging of what others wrote: SpeechBrain's logger, with printable text."""

from speechbrain.utils import logger as base

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.text import printable


class PrintableLogger(base.MultiProcessLoggerAdapter):
    """SpeechBrain's logger, which shows control characters in what it is given.

    The message itself is the program's own; names, labels and errors are its
    arguments.
    """

    def log(self, level: int, msg: str, *args, **kwargs) -> None:
        """Logs a message; what is no number among ``args`` is made printable."""
        kwargs.setdefault("stacklevel", 3)  # One deeper than SpeechBrain.
        super().log(level, msg, *map(_shown, args), **kwargs)


def _shown(value: object) -> object:
    """An argument that may be printed."""
    if isinstance(value, (int, float, VAVLError)):
        return value  # The text of a VAVLError is printable already.
    return printable(str(value))


def get_logger(name: str) -> PrintableLogger:
    r"""A logger for a module.

    Example
    -------
    >>> import logging, sys
    >>> logger = get_logger("example")
    >>> logger.logger.addHandler(logging.StreamHandler(sys.stdout))
    >>> logger.warning("%s: damaged", "a\nb.wav")
    a\x0ab.wav: damaged
    """
    return PrintableLogger(base.get_logger(name).logger, {})  # noqa: TID251
