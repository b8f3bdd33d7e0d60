"""`vavl export`: a finished run's model, in a folder to give to others."""

import argparse
import shutil
from pathlib import Path

from vavl_sb.utils.errors import EncoderError, VAVLError
from vavl_sb.utils.files import write_folder
from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "export", help="copy a finished run's model into a folder, checked"
    )
    parser.add_argument("source", metavar="RUN", help="a run's output folder")
    parser.add_argument(
        "folder", metavar="DIR", help="the folder to make (or an empty one)"
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run whatever the model's YAML names, such as your own encoder",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Checks that the model loads, and copies it, whole or not at all."""
    from vavl_sb.inference.emotion import EmotionRecognizer
    from vavl_sb.inference.hub import model_folder

    if not Path(options.source).is_dir():
        raise EncoderError(
            f"{options.source}: no such folder; give a run's output folder"
        )
    source, target = model_folder(options.source), Path(options.folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise VAVLError(f"{target}: is there already; give another folder")
    EmotionRecognizer.from_hparams(source, trust=options.trust)
    with write_folder(target) as copy:
        # Makes the folders above it, too.
        shutil.copytree(source, copy)
    say(f"Exported to {target}")
    return 0
