"""`vavl info`, `export`, `push`, `import-audio` and `import-visual`, and helpers
shared by all commands that take a model."""

import argparse
import csv
import io
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vavl_sb.utils.errors import EncoderError, VAVLError
from vavl_sb.utils.files import say_json, write_atomically, write_folder
from vavl_sb.utils.text import printable, say

if TYPE_CHECKING:
    from vavl_sb.inference.emotion import EmotionRecognizer

# Clips in folders; files on the command line may have any suffix.
SUFFIXES = set(
    ".3gp .aac .aif .aiff .amr .avi .caf .flac .flv .m4a .m4v .mka .mkv .mov "
    ".mp3 .mp4 .mpeg .mpg .mts .oga .ogg .ogv .opus .ts .wav .webm .wma "
    ".wmv".split()
)

TOKEN = (
    "access token with permission to {} (default: HF_TOKEN, or that of `hf auth "
    "login`, which keeps it out of the shell history)"
)
TRUST = "allow the model's YAML to run any code, such as your own encoder"


def clip_files(paths: Iterable[str]) -> list[str]:
    """Replaces folders by the clips in them, recursively and sorted.

    A folder without clips is kept, so that it causes an error later.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("b.WAV", "a.mp4", "notes.txt", ".a.wav"):
    ...     (folder / name).touch()
    >>> [Path(path).name for path in clip_files([str(folder), "c.bin"])]
    ['a.mp4', 'b.WAV', 'c.bin']
    """
    files = []
    for path in paths:
        inside = sorted(
            str(file)
            for file in Path(path).rglob("[!.]*")
            if file.suffix.lower() in SUFFIXES and file.is_file()
        )
        files += inside or [path]
    return files


def write_csv(path: str, columns: list[str], rows: Iterable[list]) -> None:
    """Writes a CSV table of text and numbers, with seven digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in ([*columns], *rows):
        writer.writerow(
            f"{cell:.7g}" if isinstance(cell, float) else printable(str(cell))
            for cell in row
        )
    write_atomically(path, text.getvalue().encode("utf-8"))


def add_model(
    parser: argparse.ArgumentParser, loads: bool = True, clips: str = ""
) -> None:
    """Adds MODEL and its options, and CLIP with nargs ``clips``, "*" or "+".

    ``loads``: whether the command loads the model, with `--trust` and
    `--device`.

    Example
    -------
    >>> import argparse
    >>> parser = argparse.ArgumentParser()
    >>> add_model(parser)
    >>> vars(parser.parse_args(["someone/a-model", "--trust"]))
    {'model': 'someone/a-model', 'token': None, 'trust': True, 'device': None}
    """
    parser.add_argument(
        "model", metavar="MODEL", help="an exported folder, or a hub id"
    )
    parser.add_argument(
        "--token",
        help=f"for a hub id: {TOKEN.format('read it')}",
    )
    if loads:
        parser.add_argument("--trust", action="store_true", help=TRUST)
        parser.add_argument(
            "--device", help="such as cpu or cuda:1 (default: a GPU, if any)"
        )
    if clips:
        parser.add_argument(
            "clips",
            metavar="CLIP",
            nargs=clips,
            help="video or audio files, or folders of them",
        )


def add_output(parser: argparse.ArgumentParser, text: str) -> None:
    """Adds the required option `-o`, with a help text."""
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help=text
    )


def probe_folder(path: str | Path) -> None:
    """Raises VAVLError, before long work, if a file cannot be written in the
    folder of ``path``."""
    probe = Path(path).parent / f".{os.getpid()}.probe"
    write_atomically(probe, b"")
    probe.unlink()


def load_model(options: argparse.Namespace) -> "EmotionRecognizer":
    """Loads the EmotionRecognizer of a command line."""
    from vavl_sb.inference.emotion import EmotionRecognizer

    run_opts = {} if options.device is None else {"device": options.device}
    return EmotionRecognizer.from_hparams(
        options.model,
        trust=options.trust,
        token=options.token,
        run_opts=run_opts,
    )


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the commands to the command line."""
    parser = commands.add_parser(
        "info", help="show task, labels, corpus and scores of a model"
    )
    add_model(parser, loads=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_info)

    parser = commands.add_parser(
        "export", help="check the model of a finished run and copy it"
    )
    parser.add_argument("source", metavar="RUN", help="a run's output folder")
    parser.add_argument("folder", metavar="DIR", help="a new or empty folder")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    parser.set_defaults(run=run_export)

    parser = commands.add_parser(
        "push",
        help="upload a model to the Hugging Face hub, with a model card",
        description="Writes the model card, README.md, into the folder and "
        "uploads the model. A README.md of your own is kept.",
    )
    parser.add_argument("model", metavar="MODEL", help="an exported folder")
    parser.add_argument(
        "repo_id", metavar="REPO_ID", help="such as someone/vavl-crema-d"
    )
    parser.add_argument(
        "--private",
        action="store_true",
        default=None,
        help="make a new repository private (default: that of the account)",
    )
    parser.add_argument("--token", help=TOKEN.format("write"))
    parser.set_defaults(run=run_push)

    for name, summary, description, default in (
        (
            "import-visual",
            "convert published weights of an EfficientNet-B2",
            "Reads HSEmotion's enet_b2_8_best.pt, or another pickled timm "
            "tf_efficientnet_b2, without unpickling it, and writes safetensors "
            "for --visual_encoder_weights.",
            "FILE with the suffix .safetensors",
        ),
        (
            "import-audio",
            "convert a published state dict of a wav2vec2",
            "Reads VAVL's final_wav2vec.pt, or another state dict of a "
            "wav2vec2, without unpickling it, and writes a Hugging Face folder "
            "for --audio_encoder_source.",
            "FILE without its suffix",
        ),
    ):
        parser = commands.add_parser(
            name, help=summary, description=description
        )
        parser.add_argument(
            "file",
            metavar="FILE",
            help="a model or a state dict (.pt, .pth, .bin), or .safetensors",
        )
        parser.add_argument(
            "out",
            metavar="OUT",
            nargs="?",
            help=f"output; must not exist (default: {default})",
        )
        parser.set_defaults(run=run_import, config=None, command=name)
    # Of import-audio, the last parser, only.
    parser.add_argument(
        "--config",
        metavar="FOLDER",
        help="folder with the config.json of the model (default: that of "
        "wav2vec2-large-robust, with the number of layers in FILE)",
    )


def run_info(options: argparse.Namespace) -> int:
    """Prints the metadata of a model without loading it."""
    from vavl_sb.inference.hub import model_folder
    from vavl_sb.training.model_card import describe, facts

    metadata = describe(model_folder(options.model, token=options.token))
    if options.json:
        say_json(metadata)
    else:
        say(*facts(metadata, plain=True))
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Checks that the model loads, and copies its folder atomically."""
    from vavl_sb.inference.emotion import EmotionRecognizer
    from vavl_sb.inference.hub import model_folder

    if not Path(options.source).is_dir():
        raise EncoderError(
            f"{options.source}: no such folder; give a run's output folder"
        )
    source, target = model_folder(options.source), Path(options.folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise VAVLError(f"{target}: exists already; give another folder")
    EmotionRecognizer.from_hparams(source, trust=options.trust)
    with write_folder(target) as copy:
        shutil.copytree(source, copy)
    say(f"Exported to {target}")
    return 0


def run_push(options: argparse.Namespace) -> int:
    """Writes the model card and uploads the folder."""
    from vavl_sb.inference.hub import model_folder, send_model
    from vavl_sb.training.model_card import write_card

    if not Path(options.model).is_dir():
        raise VAVLError(
            f"{options.model}: no such folder; give one that a run exported"
        )
    folder = model_folder(options.model)
    card = write_card(folder)
    address = send_model(
        folder, options.repo_id, options.private, options.token
    )
    say(f"Uploaded to {address}, with the model card {card}")
    return 0


def run_import(options: argparse.Namespace) -> int:
    """Converts published weights of an encoder for a recipe, without
    unpickling them."""
    from vavl_sb.lobes.import_weights import import_audio, import_visual

    if options.command == "import-audio":
        option = "--audio_encoder_source"
        target, left_out = import_audio(
            options.file, options.out, options.config
        )
    else:
        option = "--visual_encoder_weights"
        target, left_out = import_visual(options.file, options.out)
    if left_out:
        more = f" and {len(left_out) - 8} more" if len(left_out) > 8 else ""
        names = ", ".join(left_out[:8])
        say(f"Left out, not needed for features: {names}{more}")
    say(f"Use it in a recipe: {option} {target}")
    return 0
