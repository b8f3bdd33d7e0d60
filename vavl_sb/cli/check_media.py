"""`vavl check-media`: what there is in a clip for a model to work on."""

import argparse

from vavl_sb.utils.files import say_json
from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser(
        "check-media",
        help="tell a clip's streams, duration, faces and loudness",
    )
    parser.add_argument(
        "clips", metavar="CLIP", nargs="+", help="video or audio files"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Reads each clip and prints what is in it; no model is needed.

    Gives 1 where a clip is no media, a stream of it has a fault, or faces
    could not be looked for.
    """
    from vavl_sb.features.clip_report import report_clip
    from vavl_sb.utils.errors import MediaError, say_error

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
    """The same for a reader."""
    lines = [f"{report['file']}: {report['duration']:.2f} s"]
    for stream in report["streams"]:
        words = [stream["kind"], stream["codec"] or "no decoder"]
        if stream.get("size"):
            words.append("{}x{}".format(*stream["size"]))
        if stream.get("frame_rate"):
            words.append(f"{stream['frame_rate']:.2f} frames/s")
        if stream.get("sample_rate"):
            words.append(f"{stream['sample_rate']} Hz")
            words.append(f"{stream['channels']} channels")
        lines.append(f"  stream: {', '.join(words)}")
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
