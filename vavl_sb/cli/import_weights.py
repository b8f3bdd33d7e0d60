"""`vavl import-audio` and `import-visual`: published weights of an encoder, for
a recipe, without running what is in their files."""

import argparse

from vavl_sb.utils.text import say


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds both commands to the command line."""
    for name, does, reads, default in (
        (
            "import-visual",
            "take the weights of an EfficientNet-B2 from a published file",
            "Reads HSEmotion's enet_b2_8_best.pt, or another pickled timm "
            "tf_efficientnet_b2, without running it, and writes safetensors "
            "for --visual_encoder_weights.",
            "FILE with the ending .safetensors",
        ),
        (
            "import-audio",
            "take a wav2vec2 from a published state dict",
            "Reads VAVL's final_wav2vec.pt, or another state dict of a "
            "wav2vec2, without running it, and writes a Hugging Face folder "
            "for --audio_encoder_source.",
            "FILE without its ending",
        ),
    ):
        parser = commands.add_parser(name, help=does, description=reads)
        parser.add_argument(
            "file",
            metavar="FILE",
            help="a model or a state dict (.pt, .pth, .bin), or .safetensors",
        )
        parser.add_argument(
            "out",
            metavar="OUT",
            nargs="?",
            help=f"what to write; must not exist (default: {default})",
        )
        parser.set_defaults(run=run, config=None, command=name)
    # The last one, import-audio, has one more.
    parser.add_argument(
        "--config",
        metavar="FOLDER",
        help="has the config.json of the model (default: as of "
        "wav2vec2-large-robust, with as many layers as there are)",
    )


def run(options: argparse.Namespace) -> int:
    """Imports, and says what was written and what was left out."""
    from vavl_sb.lobes.import_weights import import_audio, import_visual

    if options.command == "import-audio":
        found = import_audio(options.file, options.out, options.config)
        option = "--audio_encoder_source"
    else:
        found = import_visual(options.file, options.out)
        option = "--visual_encoder_weights"
    target, left_out = found
    if left_out:
        more = f" and {len(left_out) - 8} more" if len(left_out) > 8 else ""
        names = ", ".join(left_out[:8])
        say(f"Left out, no feature needs it: {names}{more}")
    say(f"For a recipe: {option} {target}")
    return 0
