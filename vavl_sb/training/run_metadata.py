"""What a run records for the model that it exports."""

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vavl_sb.dataio.label_ceiling import ceiling_text
from vavl_sb.dataio.preparation import read_target
from vavl_sb.lobes.precomputed import Precomputed
from vavl_sb.lobes.vavl import HEADS, MODALITIES
from vavl_sb.utils.files import read_json


def trained_heads(
    features: dict, clips: Iterable[str], from_pairs: bool = True
) -> list[str]:
    """Heads that the training clips, named by their ids, let learn.

    A model trained on voices alone has a visual and an audio-visual head as
    well, but with random weights. The clips (and
    :func:`vavl_sb.features.cache.read_index`) tell which, also for a run that
    was stopped and resumed. The audio-visual head learns from clips with both;
    not ``from_pairs``, it is there as soon as both others have learned.

    Example
    -------
    >>> features = {"a": {"audio": "file", "visual": None}}
    >>> trained_heads(features, ["a"])
    ['audio']
    """
    found = [
        {m for m in MODALITIES if features[clip][m] is not None}
        for clip in clips
    ]
    if not from_pairs:
        found = [set().union(*found)]
    needs = {head: {head} for head in MODALITIES}
    needs["audiovisual"] = set(MODALITIES)
    return [head for head in HEADS if any(needs[head] <= has for has in found)]


def run_record(
    output_folder: str | Path,
    audio_encoder: object,
    visual_encoder: object,
    audio_encoder_source: str | None,
    visual_encoder_weights: str | None,
    train_clips: int = 0,
    **settings,
) -> dict[str, Any]:
    """Command, settings and test scores of a run, for an export's metadata.

    The encoders' names are where their weights came from
    (``audio_encoder_source``, ``visual_encoder_weights``), and ``settings``
    what else the scores depend on: seed, partition, ... Gives ``run`` (command
    and settings), ``encoder_names``, ``train_clips``, ``test`` and ``n_test``
    as in metrics.json, without confusion matrices, if the run was tested; and
    ``target`` and ``ceiling``: what the labels are, and how high a score on
    them can be.
    """
    labels = read_target(output_folder)
    run = {key: _public(value) for key, value in settings.items()}
    return {
        "run": {"command": command_line(sys.argv), **run},
        "encoder_names": {
            "audio": _encoder_name(audio_encoder, audio_encoder_source),
            "visual": _encoder_name(visual_encoder, visual_encoder_weights),
        },
        "train_clips": train_clips,
        **_scores(Path(output_folder) / "metrics.json"),
        "target": labels["target"] or "",
        "ceiling": ceiling_text(labels["ceiling"]),
    }


def _encoder_name(encoder: object, origin: str | None) -> str | None:
    """Where an encoder's weights come from; of a user's own, its class."""
    kind = type(encoder)
    if isinstance(encoder, Precomputed):
        return None
    if not kind.__module__.startswith("vavl_sb."):
        return f"{kind.__module__}.{kind.__qualname__}"
    return _public(origin)


def command_line(arguments: list[str]) -> str:
    """A command (``sys.argv``) without the folders of this machine.

    Example
    -------
    >>> command_line(["/home/me/train.py", "a.yaml", "--data_folder", "/data"])
    'python train.py a.yaml --data_folder DATA_FOLDER'
    """
    words = ["python", _public(arguments[0])]
    name = ""
    for word in arguments[1:]:
        option, equals, value = word.partition("=")
        if option.startswith("--") and equals:
            words += [f"{option}={_shown(option, value)}"]
        else:
            words.append(_shown(name, word))
        name = word if word.startswith("--") else ""
    return shlex.join(words)


def _shown(option: str, value: str) -> str:
    """An option's value, or the option's name in place of a folder that is
    not beside the command."""
    if option.endswith("_folder") and _public(value) != value:
        return option.lstrip("-").upper()
    return _public(value)


def _public(value: Any) -> Any:
    """A value without the folders of this machine."""
    if isinstance(value, (list, tuple)):
        return [_public(item) for item in value]
    if isinstance(value, (os.PathLike, str)):
        value = os.fspath(value)
        # A path within the recipe is the same for everyone.
        elsewhere = os.path.isabs(value) or value.startswith(("..", "~"))
        return os.path.basename(value.rstrip("/")) if elsewhere else value
    return value


def _scores(path: Path) -> dict[str, Any]:
    """Test scores of metrics.json; {} where the run was not tested."""
    if not path.exists():
        return {}
    metrics = read_json(path)
    test = {
        head: {k: v for k, v in scores.items() if k != "confusion"}
        for head, scores in metrics["test"].items()
    }
    return {"test": test, "n_test": metrics["n_test"]}
