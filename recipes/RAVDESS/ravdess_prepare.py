"""Prepares RAVDESS: manifests for training, validation and test.

Download: https://zenodo.org/records/1188976. Any part of the speech will do:
``Audio_Speech_Actors_01-24.zip`` (215 MB), some or all of the
``Video_Speech_Actor_*.zip``, or both, unpacked anywhere below one folder. The
file names contain all labels.

Livingstone S. R., Russo F. A., "The Ryerson Audio-Visual Database of Emotional
Speech and Song (RAVDESS)", PLoS ONE 13(5):e0196391, 2018. Licence:
CC BY-NC-SA 4.0.

In an hparams file: ``prepare: !name:ravdess_prepare.prepare_ravdess``.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from vavl_sb.dataio.preparation import (
    ClipLabels,
    PrepareReport,
    find_media,
    prepare_corpus,
)
from vavl_sb.utils.errors import CorpusError

# Classes that CREMA-D has too are named as there: "fear", not "fearful".
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
AUDIO_VIDEO, VIDEO_ONLY, AUDIO_ONLY = "01", "02", "03"
SONG = "02"
ACTORS = [f"{number:02d}" for number in range(1, 25)]
# The parts of a file name, in order, with their valid codes
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
EXTENSIONS = (".wav", ".flac", ".mp4")
# File types in order of preference. Audio: the audio-only files are lossless.
# Video: the video-only and audio-video files were encoded separately; taking
# the same type for all clips avoids a cue that a network could learn.
# Video-only files have a silent audio track, which is not used.
SOURCES = {
    "audio": (AUDIO_ONLY, AUDIO_VIDEO),
    "video": (VIDEO_ONLY, AUDIO_VIDEO),
}
# Partition to the first of its four validation and of its four test actors
FIRST_ACTORS = {"1": (13, 17), "2": (9, 13), "3": (5, 9)}


def prepare_ravdess(
    data_folder: str,
    save_json_train: str,
    save_json_valid: str,
    save_json_test: str,
    partition: int | str = 1,
    label_csv: None = None,
    labels: Sequence[str] = SIX_CLASSES,
    **options: Any,
) -> None:
    """Writes the manifests of RAVDESS, and prepare_report.json beside them.

    All files of an utterance make one entry, with null for a missing modality.
    The report counts and lists what was left out, such as song.

    Arguments
    ---------
    data_folder : str
        The corpus or a part of it, searched recursively.
    save_json_train, save_json_valid, save_json_test : str
        Where to write the manifests.
    partition : int or str
        1 to 3: see :func:`partitions`. Or the path of a JSON file ``{"train":
        [actors], "valid": [...], "test": [...]}``, with actors as "Actor_01",
        "01" or 1.
    label_csv : None
        Must be None: RAVDESS has its labels in the file names.
    labels : sequence of str
        A subset of the eight classes; clips of other classes are left out.
    **options
        Precomputed features (the first number of their names, the modality, is
        ignored), withheld modalities and the seed: see
        :func:`vavl_sb.dataio.preparation.prepare_corpus`.
    """
    if label_csv is not None:
        raise CorpusError(
            f"label_csv: must be null for RAVDESS, not {label_csv!r}: its "
            "labels are in the file names"
        )
    several = isinstance(labels, list | tuple) and len(labels) > 1
    if not several or any(labels.count(c) > (c in CLASSES) for c in labels):
        raise CorpusError(
            f"labels: must be two or more of {', '.join(CLASSES)}, each once, "
            f"not {labels!r}"
        )
    report = PrepareReport()
    files = find_media(
        data_folder, _identify, report, "files such as 03-01-05-01-02-01-12.wav"
    )
    utterances = {clip for group in files.values() for clip in group}
    media = _choose_sources(files, _read_names(utterances, labels), report)

    def read_labels():
        """Includes utterances that have only precomputed features."""
        clips = utterances.union(*media.values())
        return _read_names(clips, labels).items()

    prepare_corpus(
        data_folder,
        (save_json_train, save_json_valid, save_json_test),
        media,
        lambda name: parse_name(os.path.basename(name))[1],
        partitions(),
        read_labels,
        labels,
        report,
        target="acted: the emotion that the actor was asked to show",
        speaker=_speaker,
        partition=partition,
        labels=list(labels),
        **options,
    )


def partitions() -> dict:
    """Returns the partitions of this recipe; RAVDESS has no official ones.

    A test set has four consecutive actors (two men and two women, since odd
    numbers are men), a validation set the four before them, and the training
    set all others. The three test sets do not overlap, nor do the three
    validation sets; both use actors 01 to 20 only.

    Example
    -------
    >>> sorted(partitions()["1"]["test"])
    ['Actor_17', 'Actor_18', 'Actor_19', 'Actor_20']
    """
    splits = {}
    for name, firsts in FIRST_ACTORS.items():
        valid, test = (
            {_speaker(actor) for actor in ACTORS[first - 1 : first + 3]}
            for first in firsts
        )
        train = set(map(_speaker, ACTORS)) - valid - test
        splits[name] = {"train": train, "valid": valid, "test": test}
    return splits


def _speaker(name):
    """Returns "Actor_01" for "Actor_01", "01" or "1"."""
    number = name.removeprefix("Actor_")
    return f"Actor_{number:0>2}"


def parse_name(stem: str) -> tuple[str, str, dict]:
    """Returns modality, utterance id and fields from a file's name.

    The modality is "01" (audio and video), "02" (video only) or "03" (audio
    only). The id is the rest of the name, which the up to three files of an
    utterance share. The fields are those of the manifest entry; `emotion` is
    the acted emotion, since there are no votes. Raises a CorpusError, whose
    text is the reason in the report, if the name (without extension) has
    another form.

    Example
    -------
    >>> modality, clip, fields = parse_name("03-01-06-02-01-02-12")
    >>> modality, clip, fields["emotion"], fields["sex"]
    ('03', '01-06-02-01-02-12', 'fear', 'female')
    """
    if NAME.fullmatch(stem) is None:
        raise CorpusError("name is not MODALITY-CHANNEL-...-ACTOR, 7 numbers")
    codes = dict(zip(PARTS, stem.split("-"), strict=True))
    for part, code in codes.items():
        if code not in PARTS[part]:
            raise CorpusError(f"unknown {part} code")
    return (
        codes["modality"],
        stem[3:],
        {
            "spk_id": _speaker(codes["actor"]),
            "sex": "male" if int(codes["actor"]) % 2 else "female",
            "emotion": EMOTIONS[codes["emotion"]],
            "intensity": INTENSITIES[codes["intensity"]],
            "statement": codes["statement"],
            "repetition": codes["repetition"],
        },
    )


def _identify(path):
    """Returns modality code and utterance id, for :func:`find_media`."""
    stem, extension = os.path.splitext(os.path.basename(path))
    if extension.lower() not in EXTENSIONS:
        return None
    return parse_name(stem)[:2]


def _read_names(clips, labels):
    """Maps utterance ids to ClipLabels; no label for song or other classes."""
    utterances = {}
    for clip in sorted(clips):
        _, _, fields = parse_name(f"{AUDIO_ONLY}-{clip}")
        missing = {}
        if clip.startswith(SONG):
            missing = {"classification": ("song", "")}
        elif fields["emotion"] not in labels:
            reason = f"{fields['emotion']} is not in labels"
            missing = {"classification": (reason, "")}
        utterances[clip] = ClipLabels(fields.pop("spk_id"), fields, missing)
    return utterances


def _choose_sources(files, utterances, report):
    """Chooses the audio and the video file of each clip.

    Turns ``files``, paths by modality code and clip, into paths by "audio" and
    "video" and clip. Clips whose file type differs from that of most clips are
    added to the report, since a network could learn their coding.
    """
    media = {}
    for kind, order in SOURCES.items():
        source = {}
        for code in reversed(order):
            source.update(dict.fromkeys(files.get(code, ()), code))
        media[kind] = {clip: files[code][clip] for clip, code in source.items()}
        used = [clip for clip in source if not utterances[clip].missing]
        ranked = Counter(source[clip] for clip in used).most_common()
        for code, _ in ranked[1:]:
            remark = f"{kind} of a {code}- file, most of {ranked[0][0]}- files"
            for clip in used:
                if source[clip] == code:
                    report.noted[remark][clip] = media[kind][clip]
    return media
