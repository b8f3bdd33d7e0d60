"""Commands about clips: `vavl enrol`, `embed`, `demo` and `check-media`."""

import argparse
import functools
import io

from vavl_sb.cli.model import (
    add_model,
    add_output,
    clip_files,
    load_model,
    probe_folder,
    write_csv,
)
from vavl_sb.utils.errors import MediaError, VAVLError, say_error
from vavl_sb.utils.files import say_json, write_atomically
from vavl_sb.utils.text import say

SPEAKER = ".speaker.json"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the commands to the command line."""
    parser = commands.add_parser(
        "enrol", help="learn how one speaker sounds and looks, without labels"
    )
    add_model(parser, clips="*")
    for modality, words in (("audio", "sound"), ("visual", "picture")):
        parser.add_argument(
            f"--{modality}_features",
            metavar="FILE",
            action="append",
            default=[],
            help=f"features in place of a clip's {words}, once for each clip "
            "in their order, or without clips",
        )
    add_output(parser, f"such as one{SPEAKER}: means of features, and no media")
    parser.set_defaults(run=run_enrol)

    parser = commands.add_parser(
        "embed", help="write the network's representation of each clip"
    )
    add_model(parser, clips="+")
    add_output(parser, "a .npy (a row for each clip that is printed) or a .csv")
    parser.set_defaults(run=run_embed)

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
    parser.set_defaults(run=run_demo)

    parser = commands.add_parser(
        "check-media",
        help="tell a clip's streams, duration, faces and loudness",
    )
    parser.add_argument(
        "clips", metavar="CLIP", nargs="+", help="video or audio files"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.set_defaults(run=run_check_media)


def run_enrol(options: argparse.Namespace) -> int:
    """Writes what clips tell of their speaker; gives 1 where some clip could
    not be used."""
    if not options.output.endswith(SPEAKER):
        raise VAVLError(f"--output: {options.output} must end in {SPEAKER}")
    columns = {
        "path": clip_files(options.clips),
        "audio_features": options.audio_features,
        "visual_features": options.visual_features,
    }
    columns = {name: values for name, values in columns.items() if values}
    if len({*map(len, columns.values())}) != 1:
        raise VAVLError(
            "give clips, or features, or as many features as clips (see vavl "
            "enrol --help)"
        )
    probe_folder(options.output)
    clips = [dict(zip(columns, row)) for row in zip(*columns.values())]
    speaker = load_model(options).enrol(clips)
    speaker.save(options.output)
    say(
        f"{options.output}: {speaker.clips} clips of a speaker "
        f"({' and '.join(speaker.statistics)}), for vavl predict --speaker. It "
        "says how a person sounds or looks: delete it as you would a clip."
    )
    return 1 if speaker.left_out else 0


def run_embed(options: argparse.Namespace) -> int:
    """Writes the table, and prints the clips in the order of its rows.

    What a clip lacks is NaN there, and so is all of one that failed; gives 1
    where one did.
    """
    import numpy as np
    from tqdm import tqdm

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


def run_demo(options: argparse.Namespace) -> int:
    """Serves the page until Ctrl+C."""
    from vavl_sb.page.server import serve

    serve(
        functools.partial(load_model, options),
        options.port,
        options.max_mb,
        options.max_seconds,
    )
    return 0


def run_check_media(options: argparse.Namespace) -> int:
    """Reads each clip and prints what is in it; no model is needed.

    Gives 1 where a clip is no media, a stream of it has a fault, or faces
    could not be looked for.
    """
    from vavl_sb.features.clip_report import report_clip

    reports, status = [], 0
    for clip in options.clips:
        try:
            report = report_clip(clip)
        except MediaError as error:
            # One that is no media does not stop the rest.
            say_error(error)
            reports.append({"file": clip, "error": error.text})
            status = 1
            continue
        status = 1 if report["faults"] else status
        reports.append(report)
        if not options.json:
            say(*_lines(report))
    if options.json:
        say_json(reports)
    return status


def _lines(report):
    """What is in a clip, for a reader."""
    lines = [f"{report['file']}: {report['duration']:.2f} s"]
    lines += [f"  used: {text}" for text in report["used"]]
    lines += [f"  left out: {text}" for text in report["left_out"]]
    lines.append(f"  loudness: {_loudness(report)}")
    faces = report["frames_with_face"]
    if faces is None:
        lines.append("  faces: none looked for")
    else:
        lines.append(f"  faces: in {faces} of {report['frames']} frames")
    lines += [f"  fault: {fault}" for fault in report["faults"]]
    return lines


def _loudness(report):
    """Loudness in words."""
    if report["silent_track"] is None:
        return "no sound"
    if report["rms_dbfs"] is None:
        return "a silent track (all samples are 0)"
    words = f"RMS {report['rms_dbfs']:.1f} dBFS"
    return f"{words}: a silent track" if report["silent_track"] else words
