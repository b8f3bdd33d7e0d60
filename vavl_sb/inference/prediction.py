"""Turns outputs of the heads on chunks of a clip into a prediction."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from vavl_sb.lobes.vavl import HEADS, MODALITIES, READS
from vavl_sb.media.reader import MediaInfo
from vavl_sb.utils.errors import VAVLError

WORDS = {"audio": "sound", "visual": "face"}

# Modality to the kind of stream, and why a stream may not have been used.
STREAMS = {
    "audio": ("audio", "silent"),
    "visual": ("video", "no face was found in it"),
}


@dataclass
class Emotion:
    """What a model predicts for one clip.

    Attributes
    ----------
    modality : str
        The head used: "audio", "visual" or "audiovisual".
    label : str
        The most probable class; None for attributes.
    probabilities : dict
        Class to probability; None for attributes.
    attributes : dict
        Attribute to value, in the scale of the corpus; None for classes.
    per_modality : dict
        Head to these fields, for each trained head whose inputs the clip has.
    used, left_out : list of str
        Streams and features that were used and that were not, a line each;
        None for windows and for tensors.
    """

    modality: str
    label: str | None = None
    probabilities: dict | None = None
    attributes: dict | None = None
    per_modality: dict | None = None
    used: list[str] | None = field(default=None, compare=False)
    left_out: list[str] | None = field(default=None, compare=False)

    def as_dict(self) -> dict:
        """Returns the fields that are not None, as plain Python."""
        return {k: v for k, v in asdict(self).items() if v is not None}


@dataclass
class TimedEmotion:
    """What a model predicts for a window of a clip.

    ``start`` and ``end`` are in seconds. ``emotion`` is None if the window
    lacks the inputs of the requested head.
    """

    start: float
    end: float
    emotion: Emotion | None = None


@dataclass
class Analysis:
    """All results of one pass over a clip.

    ``duration`` and the times of ``crops`` are in seconds; crops are inputs of
    the visual encoder, uint8 (H, W, 3), RGB. ``profile`` is the seconds spent
    in "decode", "faces", "audio encoder", "visual encoder" and "heads".
    """

    emotion: Emotion | None
    duration: float
    timeline: list[TimedEmotion] = field(default_factory=list)
    crops: list[tuple[float, np.ndarray]] = field(default_factory=list)
    profile: dict[str, float] = field(default_factory=dict)


def check_modality(modality: str, allowed: tuple = ("auto", *HEADS)) -> None:
    """Refuses an unknown modality."""
    if modality not in allowed:
        raise VAVLError(
            f"modality: must be one of {', '.join(allowed)}, not {modality!r}"
        )


def select_head(parts: list, modality: str = "auto") -> str | None:
    """Selects the head to predict with; None if it has no output.

    ``parts`` are pairs of duration in seconds and outputs by head, one per
    chunk. "auto" selects the audio-visual head if it has an output for at least
    half of the time for which any head has one; otherwise the head with
    outputs for the longest time, audio if equal.

    Example
    -------
    >>> both = {"audio": 0, "visual": 0, "audiovisual": 0}
    >>> select_head([(30.0, both), (30.0, {"audio": 0})])
    'audiovisual'
    >>> select_head([(30.0, both), (31.0, {"audio": 0})])
    'audio'
    >>> select_head([(30.0, {"audio": 0})], "visual") is None
    True
    """
    seconds = {}
    for weight, outputs in parts:
        for head in outputs:
            seconds[head] = seconds.get(head, 0.0) + weight
    if modality != "auto":
        return modality if modality in seconds else None
    whole = sum(weight for weight, outputs in parts if outputs)
    if "audiovisual" in seconds and 2 * seconds["audiovisual"] >= whole:
        return "audiovisual"
    heads = [head for head in HEADS if head in seconds]
    return max(heads, key=seconds.__getitem__, default=None)


def mean_outputs(parts: list) -> dict:
    """Averages the outputs of each head over chunks, weighted by duration.

    ``parts`` are pairs of duration in seconds and outputs by head. For classes,
    logits are averaged rather than probabilities, so that confident chunks
    count for more.

    Example
    -------
    >>> mean_outputs([(1.0, {"audio": 4.0}), (3.0, {"audio": 0.0})])
    {'audio': 1.0}
    """
    means = {}
    for head in HEADS:
        outputs = [(w, o[head]) for w, o in parts if head in o]
        total = sum(weight for weight, _ in outputs)
        if len(outputs) == 1 or (outputs and total == 0):
            means[head] = outputs[0][1]
        elif outputs:
            means[head] = sum(w * out for w, out in outputs) / total
    return means


def to_prediction(
    head: str, outputs: dict[str, torch.Tensor], task: str, labels: list[str]
) -> Emotion:
    """Converts outputs by head, logits or attributes (n,), to an Emotion.

    ``labels`` are the n names; ``head`` comes from :func:`select_head`.
    """
    named: dict[str, dict[str, Any]] = {}
    for name, values in outputs.items():
        if task == "classification":
            probabilities = torch.softmax(values, dim=-1).tolist()
            named[name] = {
                "label": labels[int(values.argmax())],
                "probabilities": dict(zip(labels, probabilities)),
            }
        else:
            named[name] = {"attributes": dict(zip(labels, values.tolist()))}
    return Emotion(head, **named[head], per_modality=named)


def used_and_left_out(
    infos: dict[str, MediaInfo], given: list[str], head: str, present: set[str]
) -> tuple[list[str], list[str]]:
    """Lists the streams and features that ``head`` used and those it did not.

    ``infos`` maps each file to its MediaInfo, ``given`` are modalities given
    as features, and ``present`` the modalities of the clip.

    Example
    -------
    >>> info = MediaInfo(used={"audio": "sound", "video": "picture"})
    >>> used_and_left_out({"c.mp4": info}, [], "audio", {"audio"})
    (['sound'], ['picture: no face was found in it'])
    """
    taken = READS[head]
    used = [f"{name} features" for name in given if name in taken]
    left_out = [f"{name} features" for name in given if name not in taken]
    for path, info in infos.items():
        left_out += info.left_out
        for name, (kind, no_features) in STREAMS.items():
            stream = info.used.get(kind)
            if stream is not None and name in taken:
                used.append(stream)
            elif stream is not None:
                reason = no_features
                if name in present:
                    reason = f"the {head} head predicted"
                left_out.append(f"{stream}: {reason}")
            elif getattr(info, f"has_{kind}"):
                left_out.append(f"{kind} of {path}: not read")
    return used, left_out


def why_no_head(modality: str, present: set[str], trained: tuple) -> str:
    """Explains why no head has a prediction for a clip.

    ``present`` are the modalities of the clip, ``trained`` the trained heads.

    Example
    -------
    >>> why_no_head("audio", set(), HEADS)
    'neither sound nor a face was found in it'
    """
    head = " and ".join(sorted(present)) if modality == "auto" else modality
    untrained = (
        f"the model's {head} head was never trained, so it cannot predict "
        f"(trained: {', '.join(trained)}); use another model or modality"
    )
    if modality != "auto" and modality not in trained:
        return untrained
    if not present:
        if len(trained) == 1 and trained[0] in WORDS:
            return (
                f"no {WORDS[trained[0]]} was found in it, and the model's other "
                "heads were never trained"
            )
        return "neither sound nor a face was found in it"
    needed = present if modality == "auto" else {*READS[modality]}
    missing = [WORDS[m] for m in MODALITIES if m in needed - present]
    if missing:
        return (
            f"no {' and no '.join(missing)} was found in it, so the "
            f"{modality} head cannot predict; use modality auto"
        )
    return untrained
