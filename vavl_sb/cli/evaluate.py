"""`vavl evaluate`: scores a model on clean, partial and corrupted clips."""

import argparse
from pathlib import Path

from vavl_sb.cli.model import add_model, load_model, probe_folder
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="score a model, also with missing or corrupted inputs",
    )
    add_model(parser)
    parser.add_argument(
        "manifest",
        metavar="MANIFEST",
        help="clips with labels, such as a run's test.json",
    )
    parser.add_argument(
        "--conditions",
        nargs="*",
        metavar="NAME",
        help="corruptions, such as missing or noise; without a name: all of "
        "them (default: clean clips only)",
    )
    parser.add_argument(
        "--data_root",
        metavar="FOLDER",
        help="the corpus (default: from prepare_report.json beside the "
        "manifest)",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        default="results/robustness",
        help="output folder (default: %(default)s)",
    )
    parser.add_argument(
        "--noise",
        metavar="FILE",
        help="audio file for the noise condition (default: white noise)",
    )
    parser.add_argument(
        "--enrol",
        metavar="NUMBERS",
        help="numbers of clips to enrol each speaker with, such as "
        "0,1,3,5,10,20,all, for a model with speaker normalization",
    )
    parser.add_argument(
        "--draws",
        type=int,
        help="random enrolments per number and speaker (default: 5)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=1234,
        help="seed of clips, frames and noise (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Scores the model, prints a table and writes the files; clips that fail
    are counted and left out."""
    from vavl_sb.dataio.preparation import read_target
    from vavl_sb.evaluation.corruption import choose_conditions, make_noise
    from vavl_sb.evaluation.enrolment import (
        EnrolmentTest,
        read_sizes,
        write_enrolment,
    )
    from vavl_sb.evaluation.robustness import (
        RobustnessTest,
        read_clips,
        write_report,
    )

    # Check all options before loading the model.
    conditions = choose_conditions(options.conditions)
    if options.noise and "noise" not in [c.name for c in conditions]:
        raise VAVLError("--noise: needs the condition noise; add --conditions")
    noise = make_noise(options.seed, options.noise)
    sizes = read_sizes(options.enrol) if options.enrol is not None else []
    if options.draws is not None and not sizes:
        raise VAVLError("--draws: needs --enrol")
    draws = 5 if options.draws is None else options.draws
    if draws < 1:
        raise VAVLError(f"--draws: must be at least 1, not {draws}")
    model = load_model(options)
    if sizes:
        model.refuse_speaker()
    task, labels = model.hparams.task, list(model.hparams.labels)
    clips = read_clips(options.manifest, task, labels, options.data_root)
    speakers = {entry["spk_id"] for entry in clips.values()}
    trained_on = set((model.metadata or {}).get("train_speakers") or ())
    probe_folder(Path(options.output) / "robustness.json")
    test = RobustnessTest(model, conditions, options.seed, noise)
    test.features = {} if sizes else None
    test.run(clips)
    result = {
        "model": options.model,
        "manifest": options.manifest,
        "seed": options.seed,
        "noise": options.noise or "white",
        "task": task,
        "labels": labels,
        "title": f"{model.title}; tested on {Path(options.manifest).name}",
        "target": read_target(Path(options.manifest).parent)["target"],
        "speakers_in_training": sorted(speakers & trained_on),
        **test.summary(),
    }
    lines = write_report(options.output, result, test.clean)
    if sizes:
        enrolment = EnrolmentTest(
            model, clips, test.features or {}, sizes, draws, options.seed
        )
        metadata = "model manifest seed task title target speakers_in_training"
        result = {key: result[key] for key in metadata.split()}
        result["enrolment"] = enrolment.run()
        lines += ["", *write_enrolment(options.output, result)]
    say(*lines, "", f"Written to {options.output}")
    return 0
