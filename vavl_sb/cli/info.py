"""`vavl info`: what a model was trained for, on what, and how well it scored."""

import argparse

from vavl_sb.cli.model import add_model
from vavl_sb.utils.files import say_json
from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "info", help="tell what a model is: task, labels, corpus, scores"
    )
    add_model(parser, loads=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints what a model's files say, by groups; nothing is loaded."""
    from vavl_sb.inference.hub import model_folder
    from vavl_sb.training.model_card import describe, facts

    about = describe(model_folder(options.model, token=options.token))
    if options.json:
        say_json(about)
    else:
        say(*facts(about, plain=True))
    return 0
