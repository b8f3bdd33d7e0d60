"""`vavl embed`: write the network's representation of each clip."""

import argparse

from vavl_sb.cli.model import add_model, clip_files, load_model, write_csv
from vavl_sb.utils.errors import VAVLError, say_error
from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "embed", help="write the network's representation of each clip"
    )
    add_model(parser)
    parser.add_argument(
        "clips",
        metavar="CLIP",
        nargs="+",
        help="video or audio files, or folders of them",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help="a .npy (a row for each clip that is printed) or a .csv",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the table, and prints the clips in the order of its rows.

    What a clip lacks is NaN there, and so is all of one that failed; gives 1
    where one did.
    """
    import io

    import numpy as np
    from tqdm import tqdm

    from vavl_sb.utils.files import write_atomically

    if not options.output.endswith((".npy", ".csv")):
        raise VAVLError(f"--output: {options.output} is no .npy nor .csv")
    model = load_model(options)
    clips, found = clip_files(options.clips), []
    for clip in tqdm(clips, unit="clip", disable=None, leave=False):
        try:
            found.append(model.embed_file(clip))
        except VAVLError as error:
            found.append({})
            with tqdm.external_write_mode():
                say_error(error)
    widths = {m: len(r) for one in found for m, r in sorted(one.items())}
    if not widths:
        raise VAVLError(f"{options.output}: not written, no clip can be used")
    names = [f"{m}_{i}" for m in sorted(widths) for i in range(widths[m])]
    rows = np.stack(
        [
            np.concatenate(
                [
                    one.get(m, np.full(widths[m], np.nan, np.float32))
                    for m in sorted(widths)
                ]
            )
            for one in found
        ]
    )
    if options.output.endswith(".npy"):
        buffer = io.BytesIO()
        np.save(buffer, rows)
        write_atomically(options.output, buffer.getvalue())
    else:
        lines = ([clip, *row] for clip, row in zip(clips, rows.tolist()))
        write_csv(options.output, ["file", *names], lines)
    say(*clips)
    return 0 if all(found) else 1
