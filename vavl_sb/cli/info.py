"""`vavl info`: what a model was trained for, on what, and how well it scored."""

import argparse

from vavl_sb.cli.model import add_model
from vavl_sb.utils.files import say_json
from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line.

    Arguments
    ---------
    commands : argparse._SubParsersAction
        From ``add_subparsers`` of the program's parser.
    """
    parser = commands.add_parser(
        "info", help="tell what a model is: task, labels, corpus, scores"
    )
    add_model(parser, loads=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Reads the model's files and prints what they say; nothing is loaded.

    Arguments
    ---------
    options : argparse.Namespace
        What :func:`add_parser` describes.

    Returns
    -------
    int
        Exit status, 0.
    """
    from vavl_sb.inference.hub import model_folder
    from vavl_sb.training.run_metadata import describe

    about = describe(model_folder(options.model, token=options.token))
    if options.json:
        say_json(about)
    else:
        say(*_lines(about))
    return 0


def _lines(about):
    """The same for a reader."""
    from vavl_sb.lobes.vavl import MODALITIES

    unknown = "not recorded"
    rows = [
        ("task", about["task"]),
        ("labels", ", ".join(map(str, about["labels"] or []))),
        ("scale", about["attribute_range"]),
        ("corpus", about["corpus"]),
        ("trained heads", ", ".join(about["trained_heads"])),
    ]
    for modality in MODALITIES:
        name = about["encoders"].get(modality, unknown)
        rows.append((f"{modality} encoder", name))
    rows.append(("command", (about["run"] or {}).get("command", unknown)))
    # These names are the export's own: none may pass for a line above.
    for key, value in (about["run"] or {}).items():
        if key != "command":
            rows.append((f"run: {key}", value))
    for head, scores in (about["test"] or {"scores": None}).items():
        said = _scores(scores, about, head) if scores else unknown
        rows.append((f"test: {head}", said))
    for key in ("target", "ceiling"):
        rows.append((f"scores: {key}", about[key] or None))
    for what, terms in about["licences"].items():
        rows.append((f"terms of {what}", terms))
    return [
        f"{name + ':':<20}{value}" for name, value in rows if value is not None
    ]


def _scores(scores, about, head):
    """One head's test scores in a line."""
    flat = {**scores, **(scores.get("ccc") or {})}
    words = ", ".join(
        f"{name} {value:.3f}"
        for name, value in flat.items()
        if isinstance(value, (int, float))
    )
    return f"{words} ({(about['n_test'] or {}).get(head)} test clips)"
