"""`vavl predict`: predicts the emotion of clips."""

import argparse
import dataclasses
from pathlib import Path

from vavl_sb.cli.model import add_model, clip_files, load_model, write_csv
from vavl_sb.utils.errors import MediaError, VAVLError, say_error
from vavl_sb.utils.files import say_json
from vavl_sb.utils.text import say

FEATURES = ("audio_features", "visual_features")
WINDOW, HOP = 3.0, 1.0  # defaults of a timeline, in seconds


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser("predict", help="predict the emotion of clips")
    add_model(parser, clips="*")
    parser.add_argument(
        "--modality",
        default="auto",
        choices=["auto", "audio", "visual", "audiovisual"],
        help="head to predict with (default: auto, by the modalities of the "
        "clip)",
    )
    parser.add_argument(
        "--audio",
        metavar="FILE",
        help="the audio of the clip, if it is a separate file",
    )
    for modality, stream in (("audio", "audio"), ("visual", "video")):
        parser.add_argument(
            f"--{modality}_features",
            metavar="FILE",
            help=f"features instead of {stream}, for a model trained on "
            "features: .npy, .safetensors, .csv, or TABLE.csv#NAME",
        )
    parser.add_argument(
        "--speaker",
        metavar="FILE",
        help="a file of vavl enrol; or clips, if all clips are of one speaker; "
        "or self, for a long clip",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.add_argument(
        "--csv", metavar="FILE", help="write a table with a row for each clip"
    )
    parser.add_argument(
        "--timeline", action="store_true", help="predict the emotion over time"
    )
    for name, seconds, text in (
        ("--window", WINDOW, "length of a window of the timeline"),
        ("--hop", HOP, "time between the starts of two windows"),
    ):
        parser.add_argument(
            name,
            type=float,
            metavar="S",
            help=f"{text}, in seconds (default: {seconds})",
        )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="plot the emotion over time (one clip): .png, .pdf or .svg",
    )
    parser.add_argument(
        "--profile", action="store_true", help="show the time of each stage"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Predicts each clip; returns 1 if one failed."""
    from vavl_sb.training.model_card import learned_from
    from vavl_sb.training.plots import FORMATS

    # Check all options before loading the model.
    if not str(options.plot or ".png").endswith(FORMATS):
        raise VAVLError(
            f"--plot: {options.plot} must end in .png, .pdf or .svg"
        )
    timed = options.timeline or options.plot
    for name in ("window", "hop"):
        if getattr(options, name) is not None and not timed:
            raise VAVLError(f"--{name}: needs --timeline or --plot")
    given = [getattr(options, name) for name in FEATURES]
    clips: list = clip_files(options.clips) or [next(filter(None, given), None)]
    if clips == [None]:
        raise VAVLError("give a clip, or features (see vavl predict --help)")
    for name in ("audio", "plot", *FEATURES):
        if getattr(options, name) is not None and len(clips) > 1:
            raise VAVLError(f"--{name}: is for one clip; give only one clip")
    model = load_model(options)
    if options.speaker == "clips":
        options.speaker = _enrol(model, clips, options)
    elif options.speaker not in (None, "self"):
        options.speaker = model.read_speaker(options.speaker)
    results: list[dict] = []
    try:
        _write_table(options.csv, results, model)  # Fails now, if at all.
        _predict_all(model, clips, options, results)
    finally:  # Keeps the finished clips if interrupted.
        _write_table(options.csv, results, model)
    if options.json:
        say_json(results)
    elif model.metadata is not None:
        say(learned_from(model.metadata))
    return 1 if any("error" in result for result in results) else 0


def _enrol(model, clips, options):
    """Enrols the speaker of all clips; None if none of them can be used, which
    the prediction of each then reports."""
    given = {name: getattr(options, name) for name in FEATURES}
    given["audio_path"] = options.audio
    model.refuse_speaker()
    try:
        return model.enrol(
            [
                {"path": clip if options.clips else None, **given}
                for clip in clips
            ]
        )
    except MediaError:
        return None


def _predict_all(model, clips, options, results):
    """Appends the prediction or the error of each clip to the results."""
    from tqdm import tqdm

    # disable=None: no progress bar if stderr is not a terminal.
    for clip in tqdm(clips, unit="clip", disable=None, leave=False):
        try:
            path = clip if options.clips else None
            results.append({"file": clip, **_predict(model, path, options)})
        except VAVLError as error:
            empty = {"used": [], "left_out": []}
            results.append({"file": clip, "error": error.text, **empty})
            with tqdm.external_write_mode():
                say_error(error)
            continue
        if not options.json:
            with tqdm.external_write_mode():
                say(*_lines(results[-1]))


def _write_table(path, results, model):
    """Writes the table of --csv, if given."""
    if path is None:
        return
    names, rows = list(model.hparams.labels), []
    for result in results:
        values = result.get("probabilities") or result.get("attributes") or {}
        rows.append(
            [
                *(result.get(k, "") for k in ("file", "modality", "label")),
                *(values.get(name, "") for name in names),
                result.get("error", ""),
            ]
        )
    columns = ["file", "modality", "label", *map(str, names), "error"]
    write_csv(path, columns, rows)


def _predict(model, clip, options):
    """Returns the prediction of one clip as a dict for JSON."""
    named = {name: getattr(options, name) for name in (*FEATURES, "speaker")}
    arguments = (options.modality, options.audio)
    timed = options.timeline or options.plot
    if not (timed or options.profile):
        return model.predict_file(clip, *arguments, **named).as_dict()
    window = WINDOW if options.window is None else options.window
    hop = HOP if options.hop is None else options.hop
    arguments += (window if timed else None, hop)
    analysis = model.analyze(clip, *arguments, crops=0, **named)
    if options.plot:
        from vavl_sb.training.plots import emotion_over_time, save_figure

        limits = getattr(model.hparams, "attribute_range", None)
        title = f"{Path(clip or 'features').name}: {model.title}"
        figure = emotion_over_time(analysis.timeline, limits, title)
        save_figure(figure, options.plot)
    result = analysis.emotion.as_dict()
    if options.timeline:
        result["timeline"] = [
            {
                **dataclasses.asdict(window),
                "emotion": window.emotion and window.emotion.as_dict(),
            }
            for window in analysis.timeline
        ]
    if options.profile:
        result["profile"] = {**analysis.profile, "duration": analysis.duration}
    return result


def _lines(result):
    """Formats the prediction of one clip as text."""
    lines = [f"{result['file']} ({result['modality']}): {_text(result)}"]
    for window in result.get("timeline", ()):
        emotion = window["emotion"]
        text = "neither sound nor a face"
        if emotion is not None:
            text = f"{_text(emotion)} ({emotion['modality']})"
        lines.append(
            f"  {window['start']:7.2f} - {window['end']:7.2f} s: {text}"
        )
    for stage, seconds in result.get("profile", {}).items():
        stage = "clip's duration" if stage == "duration" else stage
        lines.append(f"  {stage:<16}{seconds:8.2f} s")
    return lines


def _text(emotion):
    """Formats label and probabilities, or attributes."""
    if "label" in emotion:
        ranked = sorted(emotion["probabilities"].items(), key=lambda p: -p[1])
        listed = ", ".join(f"{name} {value:.2f}" for name, value in ranked)
        return f"{emotion['label']}  [{listed}]"
    values = emotion["attributes"].items()
    return ", ".join(f"{name} {value:.2f}" for name, value in values)
