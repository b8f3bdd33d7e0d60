"""`vavl push`: share a model on the Hugging Face hub, with a card."""

import argparse

from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "push",
        help="share a model on the Hugging Face hub, with a card",
        description="Writes the model's card, README.md, into its folder and "
        "sends the model. A README.md of your own is kept.",
    )
    parser.add_argument("model", metavar="MODEL", help="an exported folder")
    parser.add_argument(
        "repo_id", metavar="REPO_ID", help="such as someone/vavl-crema-d"
    )
    parser.add_argument(
        "--private",
        action="store_true",
        default=None,
        help="make a new repository private (default: as the account has it)",
    )
    parser.add_argument(
        "--token",
        help="of an account that may write (default: HF_TOKEN, or that of "
        "`hf auth login`, which keeps it out of the shell's history)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the card and sends the folder."""
    from pathlib import Path

    from vavl_sb.inference.hub import model_folder, send_model
    from vavl_sb.training.model_card import write_card
    from vavl_sb.utils.errors import VAVLError

    if not Path(options.model).is_dir():
        raise VAVLError(
            f"{options.model}: no such folder; give one that a run exported"
        )
    folder = model_folder(options.model)
    card = write_card(folder)
    address = send_model(
        folder, options.repo_id, options.private, options.token
    )
    say(f"Sent to {address}, with the card {card}")
    return 0
