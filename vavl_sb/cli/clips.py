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
        "enrol",
        help="estimate feature statistics of a speaker from unlabelled clips",
    )
    add_model(parser, clips="*")
    for modality, stream in (("audio", "audio"), ("visual", "video")):
        parser.add_argument(
            f"--{modality}_features",
            metavar="FILE",
            action="append",
            default=[],
            help=f"features instead of {stream}; repeat it for each clip, in "
            "the same order, or give no clips",
        )
    add_output(
        parser, f"such as name{SPEAKER}: statistics of features, no media"
    )
    parser.set_defaults(run=run_enrol)

    parser = commands.add_parser(
        "embed", help="write the embeddings of clips to a file"
    )
    add_model(parser, clips="+")
    add_output(parser, ".npy (rows in the order of the printed clips) or .csv")
    parser.set_defaults(run=run_embed)

    parser = commands.add_parser(
        "demo", help="serve a web page for the model on this computer"
    )
    add_model(parser)
    parser.add_argument(
        "--port",
        type=int,
        default=7860,
        help="port on 127.0.0.1 (default: 7860)",
    )
    parser.add_argument(
        "--max-mb",
        type=float,
        default=100.0,
        help="maximum size of an upload, in MB (default: 100)",
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        default=120.0,
        help="maximum processing time of a clip (default: 120)",
    )
    parser.set_defaults(run=run_demo)

    parser = commands.add_parser(
        "check-media",
        help="show streams, duration, faces and loudness of clips",
    )
    parser.add_argument(
        "clips", metavar="CLIP", nargs="+", help="video or audio files"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.set_defaults(run=run_check_media)


def run_enrol(options: argparse.Namespace) -> int:
    """Writes a speaker file; returns 1 if a clip could not be used."""
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
            "give clips, features, or as many features as clips (see vavl "
            "enrol --help)"
        )
    probe_folder(options.output)
    clips = [dict(zip(columns, row)) for row in zip(*columns.values())]
    speaker = load_model(options).enrol(clips)
    speaker.save(options.output)
    say(
        f"{options.output}: {speaker.clips} clips of a speaker "
        f"({' and '.join(speaker.statistics)}), for vavl predict --speaker. It "
        "describes the voice or face of a person: handle it as personal data."
    )
    return 1 if speaker.left_out else 0


def run_embed(options: argparse.Namespace) -> int:
    """Writes embeddings, and prints the clips in the order of the rows.

    Missing modalities and failed clips are NaN. Returns 1 if a clip failed.
    """
    import numpy as np
    from tqdm import tqdm

    if not options.output.endswith((".npy", ".csv")):
        raise VAVLError(f"--output: {options.output} must end in .npy or .csv")
    model = load_model(options)
    clips, embeddings = clip_files(options.clips), []
    for clip in tqdm(clips, unit="clip", disable=None, leave=False):
        try:
            embeddings.append(model.embed_file(clip))
        except VAVLError as error:
            embeddings.append({})
            with tqdm.external_write_mode():
                say_error(error)
    sizes = {m: len(values) for e in embeddings for m, values in e.items()}
    if not sizes:
        raise VAVLError(f"{options.output}: not written, no clip can be used")
    names = [f"{m}_{i}" for m in sorted(sizes) for i in range(sizes[m])]
    rows = np.stack(
        [
            np.concatenate(
                [
                    embedding.get(m, np.full(sizes[m], np.nan, np.float32))
                    for m in sorted(sizes)
                ]
            )
            for embedding in embeddings
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
    return 0 if all(embeddings) else 1


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
    """Prints a report of each clip; needs no model.

    Returns 1 if a clip is not a media file, has a broken stream, or faces
    could not be detected.
    """
    from vavl_sb.features.clip_report import report_clip

    reports, status = [], 0
    for clip in options.clips:
        try:
            report = report_clip(clip)
        except MediaError as error:
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
    """Formats the report of a clip as text."""
    lines = [f"{report['file']}: {report['duration']:.2f} s"]
    lines += [f"  used: {text}" for text in report["used"]]
    lines += [f"  left out: {text}" for text in report["left_out"]]
    lines.append(f"  loudness: {_loudness(report)}")
    faces = report["frames_with_face"]
    if faces is None:
        lines.append("  faces: not checked")
    else:
        lines.append(f"  faces: in {faces} of {report['frames']} frames")
    lines += [f"  fault: {fault}" for fault in report["faults"]]
    return lines


def _loudness(report):
    """Formats the loudness of a clip."""
    if report["silent_track"] is None:
        return "no sound"
    if report["rms_dbfs"] is None:
        return "a silent track (all samples are 0)"
    rms = f"RMS {report['rms_dbfs']:.1f} dBFS"
    return f"{rms}: a silent track" if report["silent_track"] else rms
