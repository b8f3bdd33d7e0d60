"""Text that others wrote, as it may be printed: shown, never obeyed.

A label, a file name or another library's message may hold escape sequences
that colour, retitle or overwrite a terminal, line breaks that forge a line of
a table, or marks that turn letters around.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import TextIO

# Control characters, format characters (bidi marks, zero-width ones),
# surrogates (bytes of a file name that are no UTF-8) and separators of lines.
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text: str) -> str:
    r"""Text in one line, with what does not show as itself written out.

    A character of the categories in ``HIDDEN`` stands there as ``\x1b``,
    ``\u202e`` or ``\U000e0001``. All else stays as it is.

    Example
    -------
    >>> print(printable("\x1b[31mhappy\n glücklich 漢字"))
    \x1b[31mhappy\x0a glücklich 漢字
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    """A character, or its number where it does not show as itself."""
    if unicodedata.category(char) not in HIDDEN:
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable_lines(lines: Iterable[str]) -> str:
    r"""Lines as one text; none of them can add a line of its own.

    Example
    -------
    >>> printable_lines(["a", "b\nc"])
    'a\nb\\x0ac\n'
    """
    return "".join(f"{printable(line)}\n" for line in lines)


def say(*lines: str, file: TextIO | None = None) -> None:
    r"""Prints lines, at once: the one way in which commands print.

    Example
    -------
    >>> say("speaker a\rspeaker b")
    speaker a\x0dspeaker b
    """
    print(printable_lines(lines), end="", file=file, flush=True)  # noqa: T201


def markdown(text: str) -> str:
    r"""Text within a line or a cell of Markdown, which it cannot leave.

    It is :func:`printable`, without links, HTML, code, or further cells.

    Example
    -------
    >>> markdown("sad | <b>[x](y)\n")
    'sad &#124; &#60;b&#62;&#91;x&#93;(y)&#92;x0a'
    """
    return re.sub(
        r"[\\`*\[\]<>&|$]",
        lambda found: f"&#{ord(found.group())};",
        printable(text),
    )
