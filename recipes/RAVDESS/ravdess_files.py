"""The files of RAVDESS: where they are, and which of an utterance's to take.

Authors
 * The vavl_sb authors 2026
"""

import collections
import os

from ravdess_names import AUDIO_ONLY, AUDIO_VIDEO, NAME, VIDEO_ONLY, parse_name

from vavl_sb.utils.errors import CorpusError

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


def find_files(data_folder, report):
    """Finds the files of the corpus.

    Arguments
    ---------
    data_folder : str
        Any part of the release.
    report : PrepareReport
        Is told of media files whose name is not RAVDESS's, of files of RAVDESS
        that are of no known kind, and of a second file of the same name.

    Returns
    -------
    utterances : dict
        Id to :class:`ravdess_names.Utterance`, song included.
    files : dict
        Id to {modality code: path below the corpus, with slashes}.
        CorpusError if there is none.
    """
    utterances, files = {}, {}
    for file in _walk(data_folder, report):
        stem, extension = os.path.splitext(os.path.basename(file))
        known = extension.lower() in EXTENSIONS
        # What else lies about, a text or a zip file, is no clip left out.
        if not known and NAME.fullmatch(stem) is None:
            continue
        try:
            if not known:
                raise CorpusError(f"not a {', '.join(EXTENSIONS)} file")
            modality, utterance = parse_name(stem)
        except CorpusError as reason:
            path = os.path.join(data_folder, file)
            report.leave_out(file, str(reason), path)
            continue
        group = files.setdefault(utterance.id, {})
        if modality in group:
            report.note(
                utterance.id, f"two {modality}- files", f"{file} is not used"
            )
            continue
        utterances[utterance.id] = utterance
        group[modality] = file
    if not files:
        raise CorpusError(
            f"{data_folder}: no file of RAVDESS in it, such as "
            f"03-01-05-01-02-01-12.wav, at any depth (left out: "
            f"{report.reasons()}); unpack the release's zip files there"
        )
    return utterances, files


def _walk(data_folder, report):
    """All files below a folder, sorted; links to folders are followed."""

    def unreadable(error):
        name = os.path.relpath(error.filename, data_folder)
        report.leave_out(name, "folder cannot be read", str(error))

    seen, found = set(), []
    walk = os.walk(data_folder, onerror=unreadable, followlinks=True)
    for folder, below, names in walk:
        # A link may lead back to a folder that this one is in.
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below.sort()
        place = os.path.relpath(folder, data_folder).replace(os.sep, "/")
        found += [name if place == "." else f"{place}/{name}" for name in names]
    return sorted(found)


def choose_sources(clips, files, report):
    """Chooses the file for each clip's sound, and the one for its picture.

    Arguments
    ---------
    clips : iterable of str
        Ids of the clips.
    files : dict
        As :func:`find_files` returns it.
    report : PrepareReport
        Is told of clips whose file is of another kind than most clips', since
        its coding tells them apart.

    Returns
    -------
    dict
        "audio" and "video", each a dict of clip id to path.
    """
    media = {}
    for kind, order in SOURCES.items():
        source = {}
        for clip in clips:
            there = [code for code in order if code in files[clip]]
            if there:
                source[clip] = there[0]
        media[kind] = {clip: files[clip][source[clip]] for clip in source}
        ranked = collections.Counter(source.values()).most_common()
        for code, _ in ranked[1:]:
            remark = f"{kind} of a {code}- file, most of {ranked[0][0]}- files"
            for clip in source:
                if source[clip] == code:
                    report.note(clip, remark, media[kind][clip])
    return media
