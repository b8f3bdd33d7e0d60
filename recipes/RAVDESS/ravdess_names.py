"""The names of RAVDESS's files, which hold all its labels.

Livingstone S. R., Russo F. A., "The Ryerson Audio-Visual Database of Emotional
Speech and Song (RAVDESS)", PLoS ONE 13(5):e0196391, 2018.

Authors
 * The vavl_sb authors 2026
"""

import dataclasses
import re

from vavl_sb.utils.errors import CorpusError

# The names of the classes are CREMA-D's where both corpora have the class:
# RAVDESS says "fearful" where it says "fear".
EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprised",
}
CLASSES = tuple(sorted(EMOTIONS.values()))
SIX_CLASSES = tuple(c for c in CLASSES if c not in ("calm", "surprised"))
INTENSITIES = {"01": "normal", "02": "strong"}
ACTORS = tuple(f"{number:02d}" for number in range(1, 25))
SPEAKERS = tuple(f"Actor_{actor}" for actor in ACTORS)

AUDIO_VIDEO, VIDEO_ONLY, AUDIO_ONLY = "01", "02", "03"
SONG = "02"
# The parts of a name, in order, and what may stand there.
PARTS = {
    "modality": (AUDIO_VIDEO, VIDEO_ONLY, AUDIO_ONLY),
    "channel": ("01", SONG),
    "emotion": tuple(EMOTIONS),
    "intensity": tuple(INTENSITIES),
    "statement": ("01", "02"),
    "repetition": ("01", "02"),
    "actor": ACTORS,
}
NAME = re.compile(r"\d\d(-\d\d){6}", re.ASCII)

NOT_A_NAME = "name is not MODALITY-CHANNEL-...-ACTOR, seven numbers"


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One utterance: what its up to three files have in common.

    Arguments
    ---------
    id : str
        Its files' name without the modality: "01-05-01-02-01-12".
    spk_id : str
        "Actor_12".
    sex : str
        "male" or "female".
    emotion : str
        One of CLASSES: what the actor was to show. There are no votes.
    intensity : str
        "normal" or "strong".
    statement, repetition : str
        "01" or "02".
    song : bool
        Whether it is sung.
    """

    id: str
    spk_id: str
    sex: str
    emotion: str
    intensity: str
    statement: str
    repetition: str
    song: bool

    def fields(self):
        """What its manifest entry says of it, besides the files.

        Returns
        -------
        dict
        """
        fields = dataclasses.asdict(self)
        return {k: v for k, v in fields.items() if k not in ("id", "song")}


def parse_name(stem):
    """Takes a file's name apart.

    Arguments
    ---------
    stem : str
        The name without its extension.

    Returns
    -------
    modality : str
        "01" audio and video, "02" video only, "03" audio only.
    utterance : Utterance
        What is said, and by whom. CorpusError, with the reason for the report
        as its text, if the name cannot be read.

    Example
    -------
    >>> modality, utterance = parse_name("03-01-06-02-01-02-12")
    >>> modality, utterance.id, utterance.emotion, utterance.sex
    ('03', '01-06-02-01-02-12', 'fear', 'female')
    """
    if NAME.fullmatch(stem) is None:
        raise CorpusError(NOT_A_NAME)
    parts = dict(zip(PARTS, stem.split("-"), strict=True))
    for part, value in parts.items():
        if value not in PARTS[part]:
            raise CorpusError(f"unknown {part} code")
    return parts["modality"], Utterance(
        id=stem.split("-", 1)[1],
        spk_id=f"Actor_{parts['actor']}",
        sex="male" if int(parts["actor"]) % 2 else "female",
        emotion=EMOTIONS[parts["emotion"]],
        intensity=INTENSITIES[parts["intensity"]],
        statement=parts["statement"],
        repetition=parts["repetition"],
        song=parts["channel"] == SONG,
    )
