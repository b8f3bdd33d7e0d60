"""`vavl evaluate`: score a model where information is missing or partial."""

import argparse
from pathlib import Path

from vavl_sb.cli.model import add_model, load_model, probe_folder
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="score a model, also where information is missing or partial",
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
        help="such as missing or noise; no name for all of them (default: "
        "score the clips as they are only)",
    )
    parser.add_argument(
        "--data_root",
        metavar="FOLDER",
        help="the corpus (default: what prepare_report.json beside the "
        "manifest says)",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        default="results/robustness",
        help="where results go (default: %(default)s)",
    )
    parser.add_argument(
        "--noise",
        metavar="FILE",
        help="sound to mix in for the noise condition (default: white noise)",
    )
    parser.add_argument(
        "--enrol",
        metavar="NUMBERS",
        help="such as 0,1,3,5,10,20,all: score a model with speaker "
        "normalization by how many other clips of a speaker it knows",
    )
    parser.add_argument(
        "--draws",
        type=int,
        help="enrolments of each number, for each speaker (default: 5)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=1234,
        help="chooses clips, frames and noise (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Scores the model, prints a table and writes the files.

    Clips that fail are counted, and the rest goes on.
    """
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

    # Wrong options are refused before the long work.
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
    known = set((model.metadata or {}).get("train_speakers") or ())
    # So is a folder that cannot be written.
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
        "speakers_in_training": sorted(speakers & known),
        **test.summary(),
    }
    lines = write_report(options.output, result, test.clean)
    if sizes:
        curve = EnrolmentTest(
            *(model, clips, test.features or {}, sizes),
            *(draws, options.seed),
        )
        metadata = (
            *("model", "manifest", "seed", "task", "title", "target"),
            "speakers_in_training",
        )
        found = {key: result[key] for key in metadata}
        found["enrolment"] = curve.run()
        lines += ["", *write_enrolment(options.output, found)]
    say(*lines, "", f"Written to {options.output}")
    return 0
