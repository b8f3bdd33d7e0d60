"""From the heads' outputs on a clip's chunks to a prediction."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from vavl_sb.lobes.vavl import HEADS, MODALITIES, READS
from vavl_sb.media.reader import MediaInfo
from vavl_sb.utils.errors import VAVLError

WORDS = {"audio": "sound", "visual": "face"}

# How the modalities are called in a file, and why they may be none there.
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
        The head that predicted: "audio", "visual" or "audiovisual".
    label : str
        The most probable class; None for attributes.
    probabilities : dict
        Class to probability; None for attributes.
    attributes : dict
        Attribute to value, in the corpus's own scale; None for classes.
    per_modality : dict
        The same, from each head that the clip allows.
    used, left_out : list of str
        Of a file: what the prediction was made from and what it was not made
        from, a line each; None for a window and for what is no file.
    """

    modality: str
    label: str | None = None
    probabilities: dict | None = None
    attributes: dict | None = None
    per_modality: dict | None = None
    used: list[str] | None = field(default=None, compare=False)
    left_out: list[str] | None = field(default=None, compare=False)

    def as_dict(self) -> dict:
        """The fields that are not None, as plain Python."""
        return {k: v for k, v in asdict(self).items() if v is not None}


@dataclass
class TimedEmotion:
    """What a model predicts for a window of a clip, from ``start`` to ``end``
    in seconds.

    ``emotion`` is None where the window has neither sound nor a face, or lacks
    what the modality that was asked for needs.
    """

    start: float
    end: float
    emotion: Emotion | None = None


@dataclass
class Analysis:
    """All that one pass over a clip tells.

    Its ``duration`` is in seconds, and its ``timeline`` in order of time.
    ``crops`` are times, each with a face as the visual encoder saw it: uint8
    (H, W, 3), RGB. ``profile`` is stage to the seconds that it took: "decode",
    "faces", "audio encoder", "visual encoder" and "heads".
    """

    emotion: Emotion | None
    duration: float
    timeline: list[TimedEmotion] = field(default_factory=list)
    crops: list[tuple[float, np.ndarray]] = field(default_factory=list)
    profile: dict[str, float] = field(default_factory=dict)


def check_modality(modality: str, allowed: tuple = ("auto", *HEADS)) -> None:
    """Refuses a modality that is none of those allowed."""
    if modality not in allowed:
        raise VAVLError(
            f"modality: must be one of {', '.join(allowed)}, not {modality!r}"
        )


def select_head(parts: list, modality: str = "auto") -> str | None:
    """The head whose prediction is a clip's; None if no head has an output, or
    not the one that was asked for.

    ``parts`` are each chunk's weight (seconds) and its outputs by head. With
    "auto" it is both together, if they have an output for at least half of the
    time that has any; otherwise the one modality that has for longer, sound
    where they are equal.

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
    found = [head for head in HEADS if head in seconds]
    return max(found, key=seconds.__getitem__, default=None)


def mean_outputs(parts: list) -> dict:
    """Each head's output for a clip: the mean over its chunks.

    ``parts`` are each chunk's seconds and its outputs by head. Weighted by how
    long each chunk lasts. It is the logits of classes that are averaged, so that
    a chunk with a clear emotion counts for more than one that is undecided.

    Example
    -------
    >>> mean_outputs([(1.0, {"audio": 4.0}), (3.0, {"audio": 0.0})])
    {'audio': 1.0}
    """
    means = {}
    for head in HEADS:
        found = [(w, o[head]) for w, o in parts if head in o]
        total = sum(weight for weight, _ in found)
        if len(found) == 1 or (found and total == 0):
            means[head] = found[0][1]
        elif found:
            means[head] = sum(w * out for w, out in found) / total
    return means


def to_prediction(
    head: str, outputs: dict[str, torch.Tensor], task: str, labels: list[str]
) -> Emotion:
    """The heads' outputs with names.

    ``outputs`` are logits of classes or values of attributes, shape (n,), by
    head; ``labels`` the names of the n; ``head`` comes from
    :func:`select_head`.
    """
    named: dict[str, dict[str, Any]] = {}
    for name, values in outputs.items():
        if task == "classification":
            shares = torch.softmax(values, dim=-1).tolist()
            named[name] = {
                "label": labels[int(values.argmax())],
                "probabilities": dict(zip(labels, shares)),
            }
        else:
            named[name] = {"attributes": dict(zip(labels, values.tolist()))}
    return Emotion(head, **named[head], per_modality=named)


def account(
    infos: dict[str, MediaInfo], given: list[str], head: str, has: set[str]
) -> tuple[list[str], list[str]]:
    """What a prediction was made from, and what it was not made from.

    Of ``infos``, the MediaInfo of each file that was read, and of features that
    were ``given`` for some modalities; ``has`` is what the clip has of "audio"
    and "visual".

    Example
    -------
    >>> info = MediaInfo(used={"audio": "sound", "video": "picture"})
    >>> account({"c.mp4": info}, [], "audio", {"audio"})
    (['sound'], ['picture: no face was found in it'])
    """
    taken = READS[head]
    used = [f"{name} features" for name in given if name in taken]
    left_out = [f"{name} features" for name in given if name not in taken]
    for path, info in infos.items():
        left_out += info.left_out
        for name, (kind, lack) in STREAMS.items():
            stream = info.used.get(kind)
            if stream is not None and name in taken:
                used.append(stream)
            elif stream is not None:
                why = f"the {head} head predicted" if name in has else lack
                left_out.append(f"{stream}: {why}")
            elif getattr(info, f"has_{kind}"):
                left_out.append(f"{kind} of {path}: not read")
    return used, left_out


def why_no_head(modality: str, has: set[str], trained: tuple) -> str:
    """Why no head has a prediction for a clip, to stand after its name.

    ``has`` is what the clip has of "audio" and "visual", ``trained`` the heads
    that have learned.

    Example
    -------
    >>> why_no_head("audio", set(), HEADS)
    'neither sound nor a face was found in it'
    """
    head = " and ".join(sorted(has)) if modality == "auto" else modality
    never = (
        f"the model's {head} head was never trained, so it cannot answer "
        f"(trained: {', '.join(trained)}); take another model or modality"
    )
    if modality != "auto" and modality not in trained:
        return never
    if not has:
        if len(trained) == 1 and trained[0] in WORDS:
            return (
                f"no {WORDS[trained[0]]} was found in it, and the model's other "
                "heads were never trained"
            )
        return "neither sound nor a face was found in it"
    needed = has if modality == "auto" else {*READS[modality]}
    missing = [WORDS[m] for m in MODALITIES if m in needed - has]
    if missing:
        return (
            f"no {' and no '.join(missing)} was found in it, so the "
            f"{modality} head cannot answer; use modality auto"
        )
    return never
