"""`vavl import-visual`: published weights of an encoder, without running them."""

import argparse

from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line.

    Arguments
    ---------
    commands : argparse._SubParsersAction
        From ``add_subparsers`` of the program's parser.
    """
    parser = commands.add_parser(
        "import-visual",
        help="take the weights of an EfficientNet-B2 from a published file",
        description="Reads HSEmotion's enet_b2_8_best.pt, or another pickled "
        "timm tf_efficientnet_b2, without running it, and writes safetensors "
        "for --visual_encoder_weights.",
    )
    add_files(parser, "default: FILE with the ending .safetensors")
    parser.set_defaults(run=run)


def add_files(parser: argparse.ArgumentParser, default: str) -> None:
    """The arguments FILE and OUT.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Of the command.
    default : str
        What OUT is, for the help text.
    """
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a model or a state dict (.pt, .pth, .bin), or .safetensors",
    )
    parser.add_argument(
        "out",
        metavar="OUT",
        nargs="?",
        help=f"what to write; must not exist ({default})",
    )


def run(options: argparse.Namespace) -> int:
    """Imports, and says what was written.

    Arguments
    ---------
    options : argparse.Namespace
        What :func:`add_parser` describes.

    Returns
    -------
    int
        Exit status.
    """
    from vavl_sb.lobes.import_weights import import_visual

    target, left_out = import_visual(options.file, options.out)
    tell(left_out, f"--visual_encoder_weights {target}")
    return 0


def tell(left_out: list[str], option: str) -> None:
    """Prints what an import came to.

    Arguments
    ---------
    left_out : list of str
        Names that were not taken.
    option : str
        How a recipe takes the result.
    """
    if left_out:
        more = f" and {len(left_out) - 8} more" if len(left_out) > 8 else ""
        names = ", ".join(left_out[:8])
        say(f"Left out, no feature needs it: {names}{more}")
    say(f"For a recipe: {option}")
