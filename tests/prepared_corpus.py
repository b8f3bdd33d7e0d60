"""A small corpus on disk, and what its recipe's prepare script makes of it."""

import json
import shutil
from pathlib import Path

import pytest
from small_clips import grays, sine, write

from vavl_sb.dataio.manifest import SPLITS, read_manifest
from vavl_sb.utils.errors import CorpusError

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def make_media(folder):
    """Sound of 2.0 s and pictures of 2.2 s, in the containers of the corpora.

    ``av.mp4`` has both, ``silent.mp4`` a sound track with nothing on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sound, images = sine(2.0, 16000), grays(range(0, 220, 10))
    for name in ("a.wav", "a.flac"):
        codec = {"a.wav": "pcm_s16le", "a.flac": "flac"}[name]
        write(folder / name, sound=sound, codecs=(None, codec))
    for name, codec in (("a.flv", "flv"), ("a.avi", "mpeg4")):
        write(folder / name, images, codecs=(codec, None), fps=10)
    write(folder / "av.mp4", images, sound, fps=10)
    write(folder / "silent.mp4", images, 0 * sound, fps=10)
    return folder


class CorpusOnDisk:
    """A corpus in a folder of its own; `prepare_script` is its recipe's."""

    prepare_script = None

    def __init__(self, folder, media, partition):
        self.folder, self.media = folder / "corpus", media
        self.out = folder / "out"
        self.folder.mkdir()
        self.partition = folder / "partition.json"
        self.split(**partition)

    def split(self, **lists):
        """Writes the speaker lists that `prepare` takes."""
        self.partition.write_text(json.dumps(lists))

    def copy(self, name, *places):
        """Copies a file of `make_media` below the corpus."""
        path = self.folder.joinpath(*places)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.media / name, path)
        return path

    def prepare(self, **arguments):
        """(split to entries, prepare_report.json)."""
        paths = [str(self.out / f"{split}.json") for split in SPLITS]
        arguments = {"partition": str(self.partition), **arguments}
        type(self).prepare_script(str(self.folder), *paths, **arguments)
        splits = dict(zip(SPLITS, map(read_manifest, paths), strict=True))
        return splits, json.loads(
            (self.out / "prepare_report.json").read_text()
        )

    def entries(self, **arguments):
        """The entries of all splits."""
        return all_entries(self.prepare(**arguments)[0])

    def refusal(self, **arguments):
        """The one line with which the preparation is refused."""
        with pytest.raises(CorpusError) as error:
            self.prepare(**arguments)
        text = error.value.text
        assert text and "\n" not in text
        return text


def all_entries(splits):
    """The entries of all splits, by clip."""
    return {c: entry for part in splits.values() for c, entry in part.items()}


def speakers(splits):
    """The speakers of each split."""
    return {
        split: {entry["spk_id"] for entry in part.values()}
        for split, part in splits.items()
    }


def reasons(report, group="left_out"):
    """Reason to clips, of a report."""
    return {why: set(found["clips"]) for why, found in report[group].items()}
