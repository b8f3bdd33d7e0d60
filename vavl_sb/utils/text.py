"""Escaping of untrusted text before it is printed.

A label, a file name or a library's message may contain escape sequences that
recolour or overwrite a terminal, line breaks that forge a line of a table, or
marks that reverse the text direction.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import TextIO

# Categories of control characters, format characters (bidi marks, zero-width),
# surrogates (file names that are not UTF-8) and line separators.
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text: str) -> str:
    r"""Escapes text to one printable line.

    Characters of the categories in ``HIDDEN`` become ``\x1b``, ``\u202e`` or
    ``\U000e0001``; others do not change.

    Example
    -------
    >>> print(printable("\x1b[31mhappy\n glücklich 漢字"))
    \x1b[31mhappy\x0a glücklich 漢字
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    """Escapes a character if it is of a hidden category."""
    if unicodedata.category(char) not in HIDDEN:
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable_lines(lines: Iterable[str]) -> str:
    r"""Joins lines, escaped so that none can add another line.

    Example
    -------
    >>> printable_lines(["a", "b\nc"])
    'a\nb\\x0ac\n'
    """
    return "".join(f"{printable(line)}\n" for line in lines)


def say(*lines: str, file: TextIO | None = None) -> None:
    r"""Prints escaped lines and flushes; commands print only by this function.

    Example
    -------
    >>> say("speaker a\rspeaker b")
    speaker a\x0dspeaker b
    """
    print(printable_lines(lines), end="", file=file, flush=True)  # noqa: T201


def markdown(text: str) -> str:
    r"""Escapes text for a line or a table cell of Markdown.

    The result is :func:`printable`, and has no links, HTML, code or cells.

    Example
    -------
    >>> markdown("sad | <b>[x](y)\n")
    'sad &#124; &#60;b&#62;&#91;x&#93;(y)&#92;x0a'
    """
    return re.sub(
        r"[\\`*\[\]<>&|$]",
        lambda match: f"&#{ord(match.group())};",
        printable(text),
    )
