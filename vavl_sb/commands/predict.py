"""`vavl predict`: say what emotion clips express.

Authors
 * The vavl_sb authors 2026
"""

import json
import sys

from vavl_sb.utils.errors import VAVLError


def add_parser(commands):
    """Adds the command to the command line.

    Arguments
    ---------
    commands : argparse._SubParsersAction
        From ``add_subparsers`` of the program's parser.
    """
    parser = commands.add_parser(
        "predict", help="say what emotion clips express"
    )
    parser.add_argument(
        "model", metavar="MODEL", help="an exported folder, or a hub id"
    )
    parser.add_argument(
        "clips", metavar="CLIP", nargs="+", help="video or audio files"
    )
    parser.add_argument(
        "--modality",
        default="auto",
        choices=["auto", "audio", "visual", "audiovisual"],
        help="which head answers (default: what the clip has)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.set_defaults(run=run)


def run(options):
    """Predicts clip by clip; one failed clip does not stop the rest.

    Arguments
    ---------
    options : argparse.Namespace
        What :func:`add_parser` describes.

    Returns
    -------
    int
        Exit status: 1 where a clip failed.
    """
    from vavl_sb.inference.emotion import EmotionRecognizer

    model = EmotionRecognizer.from_hparams(options.model)
    results, failed = [], 0
    for clip in options.clips:
        try:
            answer = model.predict_file(clip, modality=options.modality)
        except VAVLError as error:
            print(f"vavl: {error}", file=sys.stderr)
            failed += 1
            continue
        results.append({"file": clip, **answer.as_dict()})
        if not options.json:
            print(_line(results[-1]))
    if options.json:
        print(json.dumps(results, indent=2))
    return 1 if failed else 0


def _line(result):
    """One clip's answer for a reader."""
    head = f"{result['file']} ({result['modality']}): "
    if "label" in result:
        ranked = sorted(result["probabilities"].items(), key=lambda p: -p[1])
        shares = ", ".join(f"{name} {share:.2f}" for name, share in ranked)
        return f"{head}{result['label']}  [{shares}]"
    values = result["attributes"].items()
    return head + ", ".join(f"{name} {value:.2f}" for name, value in values)
