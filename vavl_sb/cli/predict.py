"""`vavl predict`: predict the emotion of clips."""

import argparse
import dataclasses
from pathlib import Path

from vavl_sb.cli.model import add_model, clip_files, load_model, write_csv
from vavl_sb.utils.errors import MediaError, VAVLError, say_error
from vavl_sb.utils.files import say_json
from vavl_sb.utils.text import say

FEATURES = ("audio_features", "visual_features")
WINDOW, HOP = 3.0, 1.0  # seconds, of a timeline


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser("predict", help="predict the emotion of clips")
    add_model(parser, clips="*")
    parser.add_argument(
        "--modality",
        default="auto",
        choices=["auto", "audio", "visual", "audiovisual"],
        help="which head answers (default: what the clip has)",
    )
    parser.add_argument(
        "--audio",
        metavar="FILE",
        help="the sound of the clip, where it is a file of its own",
    )
    for modality, words in (("audio", "sound"), ("visual", "picture")):
        parser.add_argument(
            f"--{modality}_features",
            metavar="FILE",
            help=f"features in place of the {words}, for a model that takes "
            "such: .npy, .safetensors, .csv, or TABLE.csv#NAME",
        )
    parser.add_argument(
        "--speaker",
        metavar="FILE",
        help="who speaks: a file of vavl enrol; clips, where all of these "
        "clips are of one speaker; or self, for a long clip",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.add_argument(
        "--csv", metavar="FILE", help="write a table with a row for each clip"
    )
    parser.add_argument(
        "--timeline", action="store_true", help="tell the emotion over time"
    )
    for name, seconds, words in (
        ("--window", WINDOW, "seconds of each window of the timeline"),
        ("--hop", HOP, "seconds between the starts of two windows"),
    ):
        parser.add_argument(
            name,
            type=float,
            metavar="S",
            help=f"{words} (default: {seconds})",
        )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="draw the emotion over time (of one clip): .png, .pdf or .svg",
    )
    parser.add_argument(
        "--profile", action="store_true", help="show the time of each stage"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Predicts clip by clip; gives 1 where a clip failed.

    One failed clip does not stop the rest.
    """
    from vavl_sb.training.model_card import learned_from
    from vavl_sb.training.plots import FORMATS

    # What can be wrong with the options is told before the long work.
    if not str(options.plot or ".png").endswith(FORMATS):
        raise VAVLError(
            f"--plot: {options.plot} is no name of a .png, .pdf or .svg file"
        )
    timed = options.timeline or options.plot
    for name in ("window", "hop"):
        if getattr(options, name) is not None and not timed:
            raise VAVLError(f"--{name}: is of --timeline and --plot; give one")
    given = [getattr(options, name) for name in FEATURES]
    clips: list = clip_files(options.clips) or [next(filter(None, given), None)]
    if clips == [None]:
        raise VAVLError("give a clip, or features (see vavl predict --help)")
    for name in ("audio", "plot", *FEATURES):
        if getattr(options, name) is not None and len(clips) > 1:
            raise VAVLError(f"--{name}: is for one clip; give one at a time")
    model = load_model(options)
    if options.speaker == "clips":
        options.speaker = _enrol(model, clips, options)
    elif options.speaker not in (None, "self"):
        options.speaker = model.read_speaker(options.speaker)
    results: list[dict] = []
    try:
        _write_table(options.csv, results, model)  # Or it is told now.
        _predict_all(model, clips, options, results)
    finally:  # Also where somebody stops it: what is done is kept.
        _write_table(options.csv, results, model)
    if options.json:
        say_json(results)
    elif model.metadata is not None:
        say(learned_from(model.metadata))
    return 1 if any("error" in result for result in results) else 0


def _enrol(model, clips, options):
    """The speaker of all clips; None where none of them can be used, which is
    then told of each."""
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
    """Adds each clip's prediction, or what is wrong with it, to the results."""
    from tqdm import tqdm

    # disable=None: no bar where nobody sees it, as in a log file.
    for clip in tqdm(clips, unit="clip", disable=None, leave=False):
        try:
            path = clip if options.clips else None
            results.append({"file": clip, **_predict(model, path, options)})
        except VAVLError as error:
            nothing = {"used": [], "left_out": []}
            results.append({"file": clip, "error": error.text, **nothing})
            with tqdm.external_write_mode():
                say_error(error)
            continue
        if not options.json:
            with tqdm.external_write_mode():
                say(*_lines(results[-1]))


def _write_table(path, results, model):
    """Writes what --csv asks for, where it does."""
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
    """One clip's prediction, as JSON has it."""
    given = {name: getattr(options, name) for name in (*FEATURES, "speaker")}
    timed = options.timeline or options.plot
    if not (timed or options.profile):
        asked = (options.modality, options.audio)
        return model.predict_file(clip, *asked, **given).as_dict()
    window = WINDOW if options.window is None else options.window
    hop = HOP if options.hop is None else options.hop
    asked = (options.modality, options.audio, window if timed else None, hop)
    found = model.analyze(clip, *asked, crops=0, **given)
    if options.plot:
        from vavl_sb.training.plots import emotion_over_time, save_figure

        limits = getattr(model.hparams, "attribute_range", None)
        title = f"{Path(clip or 'features').name}: {model.title}"
        figure = emotion_over_time(found.timeline, limits, title)
        save_figure(figure, options.plot)
    result = found.emotion.as_dict()
    if options.timeline:
        result["timeline"] = [
            {
                **dataclasses.asdict(window),
                "emotion": window.emotion and window.emotion.as_dict(),
            }
            for window in found.timeline
        ]
    if options.profile:
        result["profile"] = {**found.profile, "duration": found.duration}
    return result


def _lines(result):
    """One clip's prediction for a reader."""
    lines = [f"{result['file']} ({result['modality']}): {_words(result)}"]
    for window in result.get("timeline", ()):
        emotion = window["emotion"]
        said = "neither sound nor a face"
        if emotion is not None:
            said = f"{_words(emotion)} ({emotion['modality']})"
        lines.append(
            f"  {window['start']:7.2f} - {window['end']:7.2f} s: {said}"
        )
    for stage, seconds in result.get("profile", {}).items():
        stage = "clip's duration" if stage == "duration" else stage
        lines.append(f"  {stage:<16}{seconds:8.2f} s")
    return lines


def _words(found):
    """A prediction as words and numbers."""
    if "label" in found:
        ranked = sorted(found["probabilities"].items(), key=lambda p: -p[1])
        shares = ", ".join(f"{name} {share:.2f}" for name, share in ranked)
        return f"{found['label']}  [{shares}]"
    values = found["attributes"].items()
    return ", ".join(f"{name} {value:.2f}" for name, value in values)
