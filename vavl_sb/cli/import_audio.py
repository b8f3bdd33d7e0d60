"""`vavl import-audio`: published weights of an encoder, without running them."""

import argparse

from vavl_sb.cli.import_visual import add_files, tell


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line.

    Arguments
    ---------
    commands : argparse._SubParsersAction
        From ``add_subparsers`` of the program's parser.
    """
    parser = commands.add_parser(
        "import-audio",
        help="take a wav2vec2 from a published state dict",
        description="Reads VAVL's final_wav2vec.pt, or another state dict of "
        "a wav2vec2, without running it, and writes a Hugging Face folder "
        "for --audio_encoder_source.",
    )
    add_files(parser, "default: FILE without its ending")
    parser.add_argument(
        "--config",
        metavar="FOLDER",
        help="has the config.json of the model (default: as of "
        "wav2vec2-large-robust, with as many layers as there are)",
    )
    parser.set_defaults(run=run)


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
    from vavl_sb.lobes.import_weights import import_audio

    target, left_out = import_audio(options.file, options.out, options.config)
    tell(left_out, f"--audio_encoder_source {target}")
    return 0
