"""`vavl protocol`, `ablate`, `benchmark` and `compare`: many runs, and what they
prove."""

import argparse
from pathlib import Path

from vavl_sb.utils.errors import say_error
from vavl_sb.utils.signals import exit_status
from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the four commands to the command line."""
    for name, does, *defaults in (
        ("protocol", "train over partitions and seeds, and sum up", "1-5", "5"),
        ("ablate", "turn parts of the network off, and compare", "1", "3"),
        ("benchmark", "train several networks, and compare", "1-5", "3"),
    ):
        # No abbreviations: --seed must not pass for --seeds.
        parser = commands.add_parser(name, help=does, allow_abbrev=False)
        add_options(parser, *defaults)
        if name != "protocol":
            add_benchmark_options(parser)
        parser.set_defaults(run=run, passes_on=True, command=name)
    parser.add_argument(
        "--fusion",
        metavar="NAMES",
        help="networks, such as vavl,late (default: all); they are compared "
        "with vavl, or the first",
    )
    parser = commands.add_parser(
        "compare", help="test two protocols against each other, by speaker"
    )
    parser.add_argument(
        "first", metavar="DIR_A", help="a folder that vavl protocol has filled"
    )
    parser.add_argument("second", metavar="DIR_B", help="another")
    parser.add_argument(
        "--output_folder",
        default=".",
        help="where comparison.json and .md go (default: here)",
    )
    parser.set_defaults(run=run_compare)


def add_options(
    parser: argparse.ArgumentParser, partitions: str, seeds: str
) -> None:
    """Options of a command that runs protocols, with the defaults of two."""
    parser.epilog = (
        "All other options (--key value) go to each train.py; put -- before "
        "them where they could be taken for one of these."
    )
    parser.add_argument(
        "recipe_file", metavar="HPARAMS", help="recipes/X/hparams/Y.yaml"
    )
    tested = parser.add_mutually_exclusive_group()
    tested.add_argument(
        "--partitions",
        default=partitions,
        help="1-5, or 1,3, or files: of a partition, or of the folds of a "
        "cross-validation (default: %(default)s)",
    )
    tested.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="instead, a cross-validation: the corpus's speakers in N folds, "
        "neighbours by name in one",
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


def add_benchmark_options(parser: argparse.ArgumentParser) -> None:
    """Options of a benchmark or ablation, beside those of its protocols."""
    parser.add_argument(
        "--withhold",
        default="0",
        metavar="SHARES",
        help="of training clips that lose one modality, such as 0,0.5,0.9; "
        "each share is trained anew (default: %(default)s)",
    )
    parser.add_argument(
        "--lrs",
        metavar="RATES",
        help="learning rates to choose from, for each network on the first "
        "partition's training speakers (default: the recipe's)",
    )
    parser.add_argument(
        "--score",
        help="f1_macro, f1_micro, uar or ccc_mean: of choice, tests and figure "
        "(default: macro F1, or the mean CCC)",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the protocol, or those of an ablation or a benchmark, and prints the
    table.

    Gives 1 where a run failed, 130 or 143 where it was stopped.
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
    """Compares, writes and prints."""
    from vavl_sb.evaluation.comparison import compare, write_comparison

    content = compare(options.first, options.second)
    lines = write_comparison(content, options.output_folder)
    say(*lines, "", f"In {Path(options.output_folder) / 'comparison.json'}")
    return 0
