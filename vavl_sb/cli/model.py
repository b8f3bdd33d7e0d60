"""What all commands that take a model have: MODEL, `--token` and `--trust`."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vavl_sb.inference.emotion import EmotionRecognizer


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
