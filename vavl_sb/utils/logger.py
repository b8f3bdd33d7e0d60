"""SpeechBrain's logger with escaped control characters."""

from speechbrain.utils import logger as base

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.text import printable


class PrintableLogger(base.MultiProcessLoggerAdapter):
    """SpeechBrain's logger, which escapes control characters in arguments.

    Untrusted text, such as names and labels, must be an argument, not part of
    the message.
    """

    def log(self, level: int, msg: str, *args, **kwargs) -> None:
        """Logs a message; escapes all ``args`` that are not numbers."""
        kwargs.setdefault("stacklevel", 3)  # One deeper than SpeechBrain.
        super().log(level, msg, *map(_shown, args), **kwargs)


def _shown(value: object) -> object:
    """Makes an argument printable."""
    if isinstance(value, (int, float, VAVLError)):
        return value  # The text of a VAVLError is printable already.
    return printable(str(value))


def get_logger(name: str) -> PrintableLogger:
    r"""Creates a logger for a module.

    Example
    -------
    >>> import logging, sys
    >>> logger = get_logger("example")
    >>> logger.logger.addHandler(logging.StreamHandler(sys.stdout))
    >>> logger.warning("%s: damaged", "a\nb.wav")
    a\x0ab.wav: damaged
    """
    return PrintableLogger(base.get_logger(name).logger, {})  # noqa: TID251
