"""From the heads' outputs on a clip's pieces to the one that answers.

Authors
 * The vavl_sb authors 2026
"""

from dataclasses import asdict, dataclass

from vavl_sb.utils.errors import VAVLError

MODALITIES = ("audio", "visual", "audiovisual")
NEEDS = {
    "audio": {"audio"},
    "visual": {"visual"},
    "audiovisual": {"audio", "visual"},
}
WORDS = {"audio": "sound", "visual": "face"}


@dataclass
class Emotion:
    """What a model says about one clip.

    Arguments
    ---------
    modality : str
        Which head answered: "audio", "visual" or "audiovisual".
    label : str
        The most probable class; None for attributes.
    probabilities : dict
        Class to probability; None for attributes.
    attributes : dict
        Attribute to value, in the corpus's own scale; None for classes.
    per_modality : dict
        The same, from each head that the clip allows.
    """

    modality: str
    label: str | None = None
    probabilities: dict | None = None
    attributes: dict | None = None
    per_modality: dict | None = None

    def as_dict(self):
        """The fields that are not None, as plain Python.

        Returns
        -------
        dict
        """
        return {k: v for k, v in asdict(self).items() if v is not None}


def check_modality(modality, allowed=("auto", *MODALITIES)):
    """Refuses a modality that is none.

    Arguments
    ---------
    modality : str
        What the user asks for.
    allowed : sequence of str
        What there is.

    Raises
    ------
    VAVLError
        In one line.
    """
    if modality not in allowed:
        raise VAVLError(
            f"modality: must be one of {', '.join(allowed)}, not {modality!r}"
        )


def why_no_answer(modality, has, trained):
    """Why no head can answer for a clip.

    Arguments
    ---------
    modality : str
        What was asked for.
    has : set
        Of "audio" and "visual": what the clip has.
    trained : sequence of str
        Heads that have learned.

    Returns
    -------
    str
        To stand after the clip's name.

    Example
    -------
    >>> why_no_answer("audio", set(), MODALITIES)
    'neither sound nor a face was found in it'
    """
    if not has:
        return "neither sound nor a face was found in it"
    needed = NEEDS.get(modality, has)
    missing = [WORDS[m] for m in ("audio", "visual") if m in needed - has]
    if missing:
        return (
            f"no {' and no '.join(missing)} was found in it, so the "
            f"{modality} head cannot answer; use modality auto"
        )
    head = modality if modality != "auto" else " and ".join(sorted(has))
    return (
        f"the model's {head} head was never trained, so it cannot answer "
        f"(trained: {', '.join(trained)}); take another model or modality"
    )


def choose(parts, modality="auto"):
    """The head that answers for a clip.

    Arguments
    ---------
    parts : list of (float, dict)
        Weight (seconds) of each piece, and head to output, for those heads
        that can answer for it.
    modality : str
        One of ``MODALITIES``: that head. "auto": both together, if they can
        answer for at least half of the time that has any answer; otherwise
        the one modality that can for longer, sound where they are equal.

    Returns
    -------
    str or None
        None if no head can answer, or not the one that was asked for.

    Example
    -------
    >>> both = {"audio": 0, "visual": 0, "audiovisual": 0}
    >>> choose([(30.0, both), (30.0, {"audio": 0})])
    'audiovisual'
    >>> choose([(30.0, both), (31.0, {"audio": 0})])
    'audio'
    >>> choose([(30.0, {"audio": 0})], "visual") is None
    True
    """
    covered = dict.fromkeys(MODALITIES, 0.0)
    seen, whole = set(), 0.0
    for weight, outputs in parts:
        seen.update(outputs)
        whole += weight if outputs else 0.0
        for head in outputs:
            covered[head] += weight
    if modality != "auto":
        return modality if modality in seen else None
    if "audiovisual" in seen and 2 * covered["audiovisual"] >= whole:
        return "audiovisual"
    return max(
        (head for head in MODALITIES if head in seen),
        key=covered.get,
        default=None,
    )


def mean_outputs(parts):
    """Each head's output for a clip: the mean over its pieces.

    Weighted by how long each piece lasts. It is the logits of classes that are
    averaged, so that a piece with a clear emotion counts for more than one
    that is undecided.

    Arguments
    ---------
    parts : list of (float, dict)
        Weight of each piece, and head to output, a tensor.

    Returns
    -------
    dict
        Head to output; that of a single piece is unchanged.

    Example
    -------
    >>> mean_outputs([(1.0, {"audio": 4.0}), (3.0, {"audio": 0.0})])
    {'audio': 1.0}
    """
    means = {}
    for head in MODALITIES:
        found = [(w, o[head]) for w, o in parts if head in o]
        total = sum(weight for weight, _ in found)
        if len(found) == 1 or (found and total == 0):
            means[head] = found[0][1]
        elif found:
            means[head] = sum(w * out for w, out in found) / total
    return means
