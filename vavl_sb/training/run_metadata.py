"""Metadata of a run, recorded in the exported model."""

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vavl_sb.dataio.label_ceiling import ceiling_text
from vavl_sb.dataio.preparation import read_target
from vavl_sb.lobes.precomputed import Precomputed
from vavl_sb.lobes.vavl import HEADS, MODALITIES, READS
from vavl_sb.utils.files import read_json


def trained_heads(
    features: dict, clips: Iterable[str], from_pairs: bool = True
) -> list[str]:
    """Returns the heads that were trained, given the training clips' ids.

    A model trained on audio alone also has visual and audio-visual heads, with
    random weights. ``features`` is
    :func:`vavl_sb.features.cache.read_index`. The audio-visual head is trained
    on clips with both modalities; without ``from_pairs``, it counts as trained
    if both other heads are.

    Example
    -------
    >>> features = {"a": {"audio": "file", "visual": None}}
    >>> trained_heads(features, ["a"])
    ['audio']
    """
    present = [
        {m for m in MODALITIES if features[clip][m] is not None}
        for clip in clips
    ]
    if not from_pairs:
        present = [set().union(*present)]
    return [
        head
        for head in HEADS
        if any(set(READS[head]) <= modalities for modalities in present)
    ]


def run_record(
    output_folder: str | Path,
    audio_encoder: object,
    visual_encoder: object,
    audio_encoder_source: str | None,
    visual_encoder_weights: str | None,
    train_clips: int = 0,
    **settings,
) -> dict[str, Any]:
    """Collects the command, settings and test scores of a run for an export.

    ``audio_encoder_source`` and ``visual_encoder_weights`` name the encoders;
    ``settings`` are further settings that affect the scores, such as the seed.
    Returns ``run`` (command and settings), ``encoder_names``, ``train_clips``,
    ``target`` (kind of labels), ``ceiling`` (of scores on them) and, if the run
    was tested, ``test`` and ``n_test`` as in metrics.json, without confusion
    matrices.
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
    """Returns the source of an encoder's weights; for a user's encoder, its
    class."""
    kind = type(encoder)
    if isinstance(encoder, Precomputed):
        return None
    if not kind.__module__.startswith("vavl_sb."):
        return f"{kind.__module__}.{kind.__qualname__}"
    return _public(origin)


def command_line(arguments: list[str]) -> str:
    """Formats a command (``sys.argv``) without this machine's folders.

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
    """Returns an option's value, or the option's name for a folder outside of
    the recipe."""
    if option.endswith("_folder") and _public(value) != value:
        return option.lstrip("-").upper()
    return _public(value)


def _public(value: Any) -> Any:
    """Removes this machine's folders from a value."""
    if isinstance(value, (list, tuple)):
        return [_public(item) for item in value]
    if isinstance(value, (os.PathLike, str)):
        value = os.fspath(value)
        # Paths within the recipe do not depend on the machine.
        elsewhere = os.path.isabs(value) or value.startswith(("..", "~"))
        return os.path.basename(value.rstrip("/")) if elsewhere else value
    return value


def _scores(path: Path) -> dict[str, Any]:
    """Reads the test scores of metrics.json; {} if the run was not tested."""
    if not path.exists():
        return {}
    metrics = read_json(path)
    test = {
        head: {k: v for k, v in scores.items() if k != "confusion"}
        for head, scores in metrics["test"].items()
    }
    return {"test": test, "n_test": metrics["n_test"]}
