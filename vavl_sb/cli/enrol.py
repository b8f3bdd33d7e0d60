"""`vavl enrol`: learn how a speaker sounds and looks from unlabelled clips."""

import argparse

from vavl_sb.cli.model import add_model, clip_files, load_model
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.text import say

ENDING = ".speaker.json"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "enrol", help="learn how a speaker sounds and looks"
    )
    add_model(parser)
    parser.add_argument(
        "clips",
        metavar="CLIP",
        nargs="+",
        help="clips of one speaker, without labels, or folders of them",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help=f"such as one{ENDING}: means of features, and no media",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the file; gives 1 where some clip cannot be used."""
    if not options.output.endswith(ENDING):
        raise VAVLError(f"--output: {options.output} must end in {ENDING}")
    model, clips = load_model(options), clip_files(options.clips)
    speaker = model.enrol(clips)
    speaker.save(options.output)
    say(
        f"{options.output}: {speaker.clips} clips of a speaker "
        f"({' and '.join(speaker.statistics)}), for vavl predict --speaker. It "
        "says how a person sounds or looks: delete it as you would a clip."
    )
    return 0
