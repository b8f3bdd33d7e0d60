"""`vavl protocol`: train over partitions and seeds, and sum up."""

import functools
import sys
from pathlib import Path

from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.signals import exit_status

say = functools.partial(print, flush=True)


def add_parser(commands):
    """Adds the command to the command line.

    Arguments
    ---------
    commands : argparse._SubParsersAction
        From ``add_subparsers`` of the program's parser.
    """
    parser = commands.add_parser(
        "protocol",
        help="train over partitions and seeds, and sum up",
        allow_abbrev=False,  # --seed must not pass for --seeds
    )
    add_options(parser, partitions="1-5", seeds="5")
    parser.set_defaults(run=run, passes_on=True)


def add_options(parser, partitions: str, seeds: str):
    """Options of a command that runs protocols.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Of the command.
    partitions, seeds : str
        The defaults.
    """
    parser.epilog = (
        "All other options (--key value) go to each train.py; put -- before "
        "them where they could be taken for one of these."
    )
    parser.add_argument(
        "recipe_file", metavar="HPARAMS", help="recipes/X/hparams/Y.yaml"
    )
    parser.add_argument(
        "--partitions",
        default=partitions,
        help="1-5, or 1,3, or files: of a partition, or of the folds of a "
        "cross-validation (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        default=seeds,
        help="how many, from 1234 on; or a list 1,2,3 (default: %(default)s)",
    )
    parser.add_argument(
        "--output_folder",
        help="default: results/COMMAND/Y in the recipe's folder",
    )
    parser.add_argument(
        "--launcher",
        default="local",
        choices=["local", "slurm"],
        help="here, or as a Slurm array (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at a time (default: 1; with Slurm, what it allows)",
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of submitit, such as timeout_min=240; repeatable",
    )


def read_plan(options, command: str):
    """What the options ask for.

    Arguments
    ---------
    options : argparse.Namespace
        What :func:`add_options` describes, and ``passed_on``.
    command : str
        For the default folder's name.

    Returns
    -------
    vavl_sb.evaluation.protocol.Plan

    Raises
    ------
    VAVLError
        In one line: a wrong option, of the protocol or of its train.py.
    """
    from vavl_sb.evaluation import protocol
    from vavl_sb.training.arguments import parse_arguments

    recipe_file, train = protocol.find_recipe(options.recipe_file)
    default = train.parent / "results" / command / recipe_file.stem
    if options.jobs is not None and options.jobs < 1:
        raise VAVLError(f"--jobs: must be at least 1, not {options.jobs}")
    if options.slurm and options.launcher != "slurm":
        raise VAVLError("--slurm: only goes with --launcher slurm")
    slurm = {}
    for word in options.slurm:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise VAVLError(f"--slurm: must be KEY=VALUE, not {word!r}")
        slurm[key] = int(value) if value.isdigit() else value
    overrides = protocol.read_overrides(options.passed_on)
    # Before a folder is claimed, and before runs fail one after the other.
    words = [str(recipe_file), *protocol.as_words(overrides)]
    parse_arguments(words, later=protocol.RESERVED)
    return protocol.Plan(
        recipe_file=str(recipe_file),
        partitions=protocol.read_partitions(options.partitions),
        seeds=protocol.read_seeds(options.seeds),
        overrides=overrides,
        folder=str(Path(options.output_folder or default).absolute()),
        launcher=options.launcher,
        jobs=options.jobs or (0 if options.launcher == "slurm" else 1),
        slurm=slurm,
    )


def run(options) -> int:
    """Runs the protocol and prints its table.

    Arguments
    ---------
    options : argparse.Namespace
        What :func:`add_parser` describes.

    Returns
    -------
    int
        Exit status: 1 where a run failed, 130 or 143 where it was stopped.
    """
    from vavl_sb.evaluation.comparison import summary_lines
    from vavl_sb.evaluation.protocol import run_protocol

    plan = read_plan(options, "protocol")
    try:
        content = run_protocol(plan, say)
    except KeyboardInterrupt as stop:
        return interrupted(stop)
    lines = ["", *summary_lines(content), "", f"In {plan.folder}/protocol.json"]
    say("\n".join(lines))
    return 1 if content["partial"] else 0


def interrupted(stop: KeyboardInterrupt) -> int:
    """Says how to go on.

    Arguments
    ---------
    stop : KeyboardInterrupt
        What was raised.

    Returns
    -------
    int
        Exit status: 130, or 143 after SIGTERM.
    """
    print("vavl: interrupted; the same command resumes it", file=sys.stderr)
    return exit_status(stop)
