"""The command `vavl`: use a trained model from the shell.

Authors
 * The vavl_sb authors 2026
"""

import argparse
import json
import sys

from vavl_sb.utils.errors import VAVLError


def main(arguments=None):
    """Runs the command.

    Arguments
    ---------
    arguments : list
        Command line without the program's name; None for ``sys.argv``.

    Returns
    -------
    int
        Exit status: 0, or 1 where a clip or the model failed.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except VAVLError as error:
        print(f"vavl: {error}", file=sys.stderr)
        return 1


def _parser():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="vavl",
        description="Emotion from speech, from a face, or from both.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    predict = commands.add_parser(
        "predict", help="say what emotion clips express"
    )
    predict.add_argument(
        "model", metavar="MODEL", help="an exported folder, or a hub id"
    )
    predict.add_argument(
        "clips", metavar="CLIP", nargs="+", help="video or audio files"
    )
    predict.add_argument(
        "--modality",
        default="auto",
        choices=["auto", "audio", "visual", "audiovisual"],
        help="which head answers (default: what the clip has)",
    )
    predict.add_argument(
        "--json", action="store_true", help="print a JSON list"
    )
    predict.set_defaults(run=_predict)
    return parser


def _predict(options):
    """`vavl predict`: one failed clip does not stop the rest."""
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


if __name__ == "__main__":
    sys.exit(main())
