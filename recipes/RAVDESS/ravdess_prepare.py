"""Prepares RAVDESS: manifests for training, validation and test.

Download: https://zenodo.org/records/1188976. Any part of its speech will do:
``Audio_Speech_Actors_01-24.zip`` alone (215 MB), some or all of the
``Video_Speech_Actor_*.zip``, or both, unpacked anywhere below one folder. The
names of the files hold all labels.

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
AUDIO_VIDEO, VIDEO_ONLY, AUDIO_ONLY = "01", "02", "03"
SONG = "02"
ACTORS = [f"{number:02d}" for number in range(1, 25)]
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
EXTENSIONS = (".wav", ".flac", ".mp4")
# Which of an utterance's files is taken, the first that is there. Sound: the
# audio-only file was never through a lossy codec. Picture: the video-only file
# was encoded apart from the audio-video one, so where both are there, as in
# the release, all clips are of one coding and it tells none apart. A
# video-only file has a silent sound track: it is no source of sound.
SOURCES = {
    "audio": (AUDIO_ONLY, AUDIO_VIDEO),
    "video": (VIDEO_ONLY, AUDIO_VIDEO),
}
# Partition to the numbers of the first actor that validates and tests it.
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
    """Makes the manifests of RAVDESS, and prepare_report.json beside them.

    An utterance is one entry, whatever files of it there are; the modality
    that they lack is null. Whatever is left out, song included, is counted,
    and named in the report.

    Arguments
    ---------
    data_folder : str
        Any part of the release, at any depth.
    save_json_train, save_json_valid, save_json_test : str
        Where to write the manifests.
    partition : int or str
        1 to 3: see :func:`partitions`. Or the path of a JSON file ``{"train":
        [actors], "valid": [...], "test": [...]}``, in which an actor may be
        called "Actor_01", "01" or 1.
    label_csv : None
        RAVDESS has its labels in the files' names: anything else is refused.
    labels : sequence of str
        Classes, of the eight; clips of other classes are left out.
    **options
        Features in place of files (of whose names the first number, the
        modality, does not count), modalities withheld, and seed: see
        :func:`vavl_sb.dataio.preparation.prepare_corpus`.
    """
    if label_csv is not None:
        raise CorpusError(
            f"label_csv: must be null for RAVDESS, not {label_csv!r}: its "
            "labels are in the files' names"
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
    found = {clip for group in files.values() for clip in group}
    media = _choose_sources(files, _read_names(found, labels), report)

    def read_labels():
        """Also of clips that features alone are there of."""
        clips = found.union(*media.values())
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
        target="acted: the emotion that the actor was to show",
        speaker=_speaker,
        partition=partition,
        labels=list(labels),
        **options,
    )


def partitions() -> dict:
    """The partitions of this recipe; RAVDESS comes without any.

    Four actors in turn, two men and two women since odd numbers are men, test;
    the four before them validate, and all others train. The three test sets do
    not overlap, nor do the three validation sets, and all are among actors 01
    to 20.

    Example
    -------
    >>> sorted(partitions()["1"]["test"])
    ['Actor_17', 'Actor_18', 'Actor_19', 'Actor_20']
    """
    found = {}
    for name, firsts in FIRST_ACTORS.items():
        valid, test = (
            {_speaker(actor) for actor in ACTORS[first - 1 : first + 3]}
            for first in firsts
        )
        train = set(map(_speaker, ACTORS)) - valid - test
        found[name] = {"train": train, "valid": valid, "test": test}
    return found


def _speaker(name):
    """The speaker that "Actor_01", "01" or "1" stands for."""
    number = name.removeprefix("Actor_")
    return f"Actor_{number:0>2}"


def parse_name(stem: str) -> tuple[str, str, dict]:
    """Takes a file's name, without its extension, apart: modality, id, fields.

    The modality is "01" audio and video, "02" video only or "03" audio only; the
    id is the utterance's, what the names of its up to three files share; the
    fields are `spk_id`, `sex` and what the entry says. `emotion` is what the
    actor was to show: there are no votes. CorpusError, with the reason for the
    report as its text, if the name cannot be read.

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
    """Modality code and utterance of a file, for :func:`find_media`."""
    stem, extension = os.path.splitext(os.path.basename(path))
    if extension.lower() not in EXTENSIONS:
        return None
    return parse_name(stem)[:2]


def _read_names(clips, labels):
    """What the ids of utterances say, which are names without their first
    number: id to ClipLabels. Song and other classes have no label."""
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
    """The file for each clip's sound, and the one for its picture.

    ``files`` are paths by modality code and clip; the media that this gives,
    by "audio" and "video" and clip. The report is told of clips whose file is
    of another kind than most clips', since its coding tells them apart.
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
