"""`vavl protocol`, `ablate`, `benchmark` and `compare`: many runs and their
statistics."""

import argparse
from pathlib import Path

from vavl_sb.utils.errors import say_error
from vavl_sb.utils.signals import exit_status
from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the four commands to the command line."""
    for name, summary, *defaults in (
        ("protocol", "train over partitions and seeds", "1-5", "5"),
        (
            "ablate",
            "train with parts of the network off, and compare",
            "1",
            "3",
        ),
        ("benchmark", "train several networks, and compare", "1-5", "3"),
    ):
        # Without abbreviations, as --seed must not match --seeds.
        parser = commands.add_parser(name, help=summary, allow_abbrev=False)
        add_options(parser, *defaults)
        if name != "protocol":
            add_benchmark_options(parser)
        parser.set_defaults(run=run, passes_on=True, command=name)
    parser.add_argument(
        "--fusion",
        metavar="NAMES",
        help="networks, such as vavl,late (default: all), compared with vavl "
        "or the first one",
    )
    parser = commands.add_parser(
        "compare", help="test two protocols against each other, by speaker"
    )
    parser.add_argument(
        "first", metavar="DIR_A", help="an output folder of vavl protocol"
    )
    parser.add_argument("second", metavar="DIR_B", help="another one")
    parser.add_argument(
        "--output_folder",
        default=".",
        help="folder for comparison.json and .md (default: here)",
    )
    parser.set_defaults(run=run_compare)


def add_options(
    parser: argparse.ArgumentParser, partitions: str, seeds: str
) -> None:
    """Adds the options of a command that runs protocols."""
    parser.epilog = (
        "All other options (--key value) are passed to train.py; put -- before "
        "them if they could be mistaken for one of these."
    )
    parser.add_argument(
        "recipe_file", metavar="HPARAMS", help="recipes/X/hparams/Y.yaml"
    )
    tested = parser.add_mutually_exclusive_group()
    tested.add_argument(
        "--partitions",
        default=partitions,
        help="1-5, or 1,3, or files with a partition or the folds of a "
        "cross-validation (default: %(default)s)",
    )
    tested.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="instead, a cross-validation with the sorted speakers of the "
        "corpus in N folds",
    )
    parser.add_argument(
        "--seeds",
        default=seeds,
        help="number of seeds from 1234 on, or a list such as 1,2,3 (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--output_folder",
        help="default: results/COMMAND/Y in the recipe's folder",
    )
    parser.add_argument(
        "--launcher",
        default="local",
        choices=["local", "slurm"],
        help="run here, or as a Slurm array (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="concurrent runs (default: 1; with Slurm, no limit)",
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of submitit, such as timeout_min=240; repeatable",
    )


def add_benchmark_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a benchmark or ablation."""
    parser.add_argument(
        "--withhold",
        default="0",
        metavar="SHARES",
        help="shares of the training clips that lose one modality, such as "
        "0,0.5,0.9, with a training run for each (default: %(default)s)",
    )
    parser.add_argument(
        "--lrs",
        metavar="RATES",
        help="learning rates to choose from, for each network, on the training "
        "speakers of the first partition (default: that of the recipe)",
    )
    parser.add_argument(
        "--score",
        help="score for selection, tests and figure: f1_macro, f1_micro, uar or "
        "ccc_mean (default: macro F1 or mean CCC)",
    )


def run(options: argparse.Namespace) -> int:
    """Runs a protocol, ablation or benchmark, and prints the table.

    Returns 1 if a run failed, 130 or 143 if it was stopped.
    """
    from vavl_sb.evaluation.benchmark import read_benchmark, run_benchmark
    from vavl_sb.evaluation.protocol import read_plan, run_protocols

    name = "ablation" if options.command == "ablate" else options.command
    plan = read_plan(options, name)
    try:
        if name == "protocol":
            content, lines = run_protocols([plan])[0]
        else:
            content, lines = run_benchmark(read_benchmark(plan, options))
    except KeyboardInterrupt as stop:
        say_error("interrupted; the same command resumes it")
        return exit_status(stop)
    say("", *lines, "", f"In {plan.folder}/{name}.json")
    return 1 if content["partial"] else 0


def run_compare(options: argparse.Namespace) -> int:
    """Compares two protocols, writes and prints the result."""
    from vavl_sb.evaluation.comparison import compare, write_comparison

    content = compare(options.first, options.second)
    lines = write_comparison(content, options.output_folder)
    say(*lines, "", f"In {Path(options.output_folder) / 'comparison.json'}")
    return 0
