"""What all commands that take a model have: MODEL, `--token` and `--trust`."""

import argparse
import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vavl_sb.utils.files import write_atomically
from vavl_sb.utils.text import printable

if TYPE_CHECKING:
    from vavl_sb.inference.emotion import EmotionRecognizer


# What is taken for a clip in a folder; a file that is named is always tried.
SUFFIXES = set(
    ".3gp .aac .aif .aiff .amr .avi .caf .flac .flv .m4a .m4v .mka .mkv .mov "
    ".mp3 .mp4 .mpeg .mpg .mts .oga .ogg .ogv .opus .ts .wav .webm .wma "
    ".wmv".split()
)


def clip_files(paths: Iterable[str]) -> list[str]:
    """Files as they are, and of a folder the clips in it and below, sorted.

    A folder without any stays, so that it is told of as a file would be.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("b.WAV", "a.mp4", "notes.txt", ".a.wav"):
    ...     (folder / name).touch()
    >>> [Path(path).name for path in clip_files([str(folder), "c.bin"])]
    ['a.mp4', 'b.WAV', 'c.bin']
    """
    found = []
    for path in paths:
        inside = sorted(
            str(file)
            for file in Path(path).rglob("[!.]*")
            if file.suffix.lower() in SUFFIXES and file.is_file()
        )
        found += inside or [path]
    return found


def write_csv(path: str, columns: list[str], rows: Iterable[list]) -> None:
    """Writes a table whose cells are numbers, with seven digits, or texts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in ([*columns], *rows):
        writer.writerow(
            f"{cell:.7g}" if isinstance(cell, float) else printable(str(cell))
            for cell in row
        )
    write_atomically(path, text.getvalue().encode("utf-8"))


def add_model(parser: argparse.ArgumentParser, loads: bool = True) -> None:
    """Adds MODEL and the options that say how it may be had.

    A command that loads it has `--trust`; reading its files needs none.

    Example
    -------
    >>> import argparse
    >>> parser = argparse.ArgumentParser()
    >>> add_model(parser)
    >>> vars(parser.parse_args(["someone/a-model", "--trust"]))
    {'model': 'someone/a-model', 'token': None, 'trust': True}
    """
    parser.add_argument(
        "model", metavar="MODEL", help="an exported folder, or a hub id"
    )
    parser.add_argument(
        "--token",
        help="for a hub id: of an account that may read it (default: "
        "HF_TOKEN, or that of `hf auth login`, which keeps it out of the "
        "shell's history)",
    )
    if loads:
        parser.add_argument(
            "--trust",
            action="store_true",
            help="run whatever the model's YAML names",
        )


def load_model(options: argparse.Namespace) -> "EmotionRecognizer":
    """The EmotionRecognizer that a command line asks for."""
    from vavl_sb.inference.emotion import EmotionRecognizer

    return EmotionRecognizer.from_hparams(
        options.model, trust=options.trust, token=options.token
    )
