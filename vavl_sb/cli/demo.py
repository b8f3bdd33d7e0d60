"""`vavl demo`: a page in the browser that a clip can be given to."""

import argparse
import functools

from vavl_sb.cli.model import add_model, load_model


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "demo", help="serve a page for the browser on this computer"
    )
    add_model(parser)
    parser.add_argument(
        "--port",
        type=int,
        default=7860,
        help="where on 127.0.0.1 (default: 7860)",
    )
    parser.add_argument(
        "--max-mb",
        type=float,
        default=100.0,
        help="largest file that may be uploaded, in MB (default: 100)",
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        default=120.0,
        help="how long the work on a clip may take (default: 120)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serves the page until Ctrl+C."""
    from vavl_sb.page.server import serve

    serve(
        functools.partial(load_model, options),
        options.port,
        options.max_mb,
        options.max_seconds,
    )
    return 0
