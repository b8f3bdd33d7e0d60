"""The feature cache: computed once, checked, safe, resumable."""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import types

import numpy as np
import pytest
import torch

from vavl_sb.dataio import datasets as datasets_module
from vavl_sb.dataio.datasets import emotion_datasets
from vavl_sb.features.cache import FeatureCache, read_index
from vavl_sb.features.extraction import extract_features
from vavl_sb.features.extractor import ClipFeatures
from vavl_sb.utils import files
from vavl_sb.utils.errors import MediaError, VAVLError


class CountingEncoder:
    """Stands for FeatureExtractor: a clip's features are its bytes."""

    def __init__(self, name="e1", stop_after=None):
        self.name, self.stop_after, self.calls = name, stop_after, []
        self.audio_encoder = self.visual_encoder = self
        self.output_dim = 2

    def fingerprint(self, modality):
        return f"{modality}-{self.name}"

    def dim(self, modality):
        return self.output_dim

    def takes_features(self, modality):
        return False

    def pool(self, features):
        return features

    def encode(self, wav=None, video=None):
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        path = wav or video
        self.calls.append(path)
        if not os.path.exists(path):
            raise MediaError(f"{path}: no such file")
        data = np.frombuffer(open(path, "rb").read(), np.uint8)
        if data.tobytes() == b"broken":
            raise MediaError(f"{path}: is broken")
        found = None
        if data.tobytes() != b"nothing":
            found = np.stack([data, data]).T.astype(np.float16)
        return ClipFeatures(audio=found, visual=found)


@pytest.fixture
def corpus(tmp_path):
    """Four clips: whole, without video, broken video, no face."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    clips = {}
    for id, wav, video in (
        ("a", b"sound a", b"picture a"),
        ("b", b"sound b", None),
        ("c", b"sound c", b"broken"),
        ("d", b"nothing", b"nothing"),
    ):
        clips[id] = {}
        for field, data in (("wav", wav), ("video", video)):
            path = folder / f"{id}.{field}"
            if data is not None:
                path.write_bytes(data)
            clips[id][field] = str(path) if data is not None else None
    return clips


def extract(folder, clips, encoder):
    """Runs an extraction; gives its index and its report."""
    extract_features(
        [clips],
        encoder,
        folder / "features",
        index=folder / "index.json",
        report=folder / "report.json",
    )
    report = json.loads((folder / "report.json").read_text())
    return read_index(folder / "index.json"), report


def test_features_are_computed_once_and_found_again(tmp_path, corpus):
    encoder = CountingEncoder()
    index, report = extract(tmp_path, corpus, encoder)
    assert len(encoder.calls) == 7
    stored = FeatureCache(tmp_path / "features").read(index["a"]["audio"])
    assert stored[:, 0].astype(np.uint8).tobytes() == b"sound a"
    assert stored.dtype == np.float16
    assert index["b"]["visual"] is None
    assert index["c"]["visual"] is None and index["c"]["audio"] is not None
    assert index["d"] == {"audio": None, "visual": None}
    assert report["no_sound"] == ["d"] and report["no_face"] == ["d"]
    assert list(report["failed"]) == ["c (visual)"]
    assert report["computed"] == {"audio": 4, "visual": 2}

    again = CountingEncoder()
    assert extract(tmp_path, corpus, again)[0] == index
    # Only the broken clip is tried again; a clip without a face is known.
    assert again.calls == [corpus["c"]["video"]]


def test_another_encoder_or_another_clip_is_computed_anew(tmp_path, corpus):
    first, _ = extract(tmp_path, corpus, CountingEncoder())
    other = CountingEncoder("e2")
    second, _ = extract(tmp_path, corpus, other)
    assert len(other.calls) == 7
    assert first["a"]["audio"] != second["a"]["audio"]

    with open(corpus["a"]["wav"], "wb") as file:
        file.write(b"new sound")
    changed = CountingEncoder()
    third, _ = extract(tmp_path, corpus, changed)
    assert corpus["a"]["wav"] in changed.calls
    assert third["a"]["audio"] != first["a"]["audio"]


def test_the_same_clip_under_another_name_is_not_computed_again(
    tmp_path, corpus
):
    extract(tmp_path, corpus, CountingEncoder())
    moved = str(tmp_path / "moved.wav")
    os.rename(corpus["a"]["wav"], moved)
    encoder = CountingEncoder()
    extract(tmp_path, {"x": {"wav": moved, "video": None}}, encoder)
    assert encoder.calls == []


def test_a_killed_extraction_goes_on_where_it_was(tmp_path, corpus):
    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path, corpus, CountingEncoder(stop_after=3))
    rest = CountingEncoder()
    extract(tmp_path, corpus, rest)
    assert len(rest.calls) == 4
    leftovers = [p for p in (tmp_path / "features").rglob("*.tmp")]
    assert leftovers == []


def test_training_goes_on_from_the_cache_without_the_media(tmp_path, corpus):
    first, _ = extract(tmp_path, corpus, CountingEncoder())
    for clip in corpus.values():
        for path in filter(None, (clip["wav"], clip["video"])):
            os.remove(path)
    encoder = CountingEncoder()
    index, report = extract(tmp_path, corpus, encoder)
    assert index["a"] == first["a"]
    # The broken clip has no feature, and now no file either.
    assert "c (visual)" in report["failed"]


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path):
    cache = FeatureCache(tmp_path)
    path = cache.path("audio", "d", "c")
    value = np.arange(6, dtype=np.float16).reshape(3, 2)
    cache.write(path, value)
    whole = path.read_bytes()
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        found = cache.find(path)
        # Zip has bytes that no reader uses: a change there may pass, but
        # never with other numbers.
        assert found is None or np.array_equal(found, value), bit
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert cache.find(path) is None, size
        assert not path.exists()
        with pytest.raises(VAVLError) as error:
            cache.read(path)
        assert str(path) in str(error.value)


def test_a_flipped_bit_of_a_larger_file_is_noticed(tmp_path):
    """Where the shape is damaged, NumPy reads less than there is."""
    cache = FeatureCache(tmp_path)
    path = cache.path("audio", "d", "c")
    value = np.random.default_rng(0).normal(size=(300, 32)).astype(np.float16)
    cache.write(path, value)
    whole = path.read_bytes()
    assert len(whole) > 19000
    bits = len(whole) * 8
    headers = [*range(300 * 8), *range(bits - 200 * 8, bits)]
    # The array, with its own header, from its magic to the zip's directory.
    array = range(whole.find(b"\x93NUMPY"), whole.rfind(b"PK\x01\x02"))
    assert len(array) == value.nbytes + 128
    for bit in {*headers, *range(0, bits, 97)}:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        found = cache.find(path)
        if found is not None:
            assert np.array_equal(found, value) and found.dtype == value.dtype
            # A date, say, which no reader of zip files looks at.
            assert bit // 8 not in array
    for size in (*range(0, len(whole), 997), len(whole) - 1):
        path.write_bytes(whole[:size])
        assert cache.find(path) is None and not path.exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_after_extraction_names_clip_and_file(
    tmp_path, corpus, workers, caplog
):
    index, _ = extract(tmp_path, corpus, CountingEncoder())
    entries = {
        id: {**corpus[id], "duration": 1.0, "spk_id": id, "emotion": "sad"}
        for id in "ab"
    }

    def items():
        datasets = emotion_datasets(
            {"train": entries},
            index,
            "classification",
            ["sad"],
            {"audio": 2, "visual": 2},
            tmp_path / "features",
        )
        return list(
            torch.utils.data.DataLoader(
                datasets["train"], batch_size=None, num_workers=workers
            )
        )

    assert len(items()) == 2
    damaged = index["b"]["audio"]
    data = bytearray(open(damaged, "rb").read())
    data[len(data) // 2] ^= 4
    open(damaged, "wb").write(data)
    with pytest.raises(VAVLError) as error:
        items()
    text = str(error.value)
    assert text.startswith("b: cached feature") and damaged in text
    assert "run the same command again" in text and "\n" not in text

    # Just that is what helps.
    encoder = CountingEncoder()
    extract(tmp_path, corpus, encoder)
    assert corpus["b"]["wav"] in encoder.calls and damaged in caplog.text
    assert len(items()) == 2


def test_a_damaged_index_is_told_or_written_anew(tmp_path, corpus):
    index, _ = extract(tmp_path, corpus, CountingEncoder())
    path = tmp_path / "index.json"
    whole = path.read_bytes()
    for size in range(0, len(whole) - 2, 7):
        path.write_bytes(whole[:size])
        with pytest.raises(VAVLError, match="run the same command") as error:
            read_index(path)
        assert str(path) in str(error.value)
    for bit in range(0, 8 * len(whole), 13):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        with contextlib.suppress(VAVLError):
            found = read_index(path)
            assert all(
                set(row) == {"audio", "visual"} for row in found.values()
            )
    assert extract(tmp_path, corpus, CountingEncoder())[0] == index


def test_damaged_hashes_are_computed_anew(tmp_path, corpus):
    index, _ = extract(tmp_path, corpus, CountingEncoder())
    path = tmp_path / "features" / "content.json"
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 101):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        found, _ = extract(tmp_path, corpus, CountingEncoder())
        # A hash that was changed to another one gives the feature another
        # name, and never another value.
        for id, row in index.items():
            for modality, name in row.items():
                other = found[id][modality]
                assert (other is None) == (name is None)
                if name is not None:
                    cache = FeatureCache(tmp_path / "features")
                    assert np.array_equal(cache.read(other), cache.read(name))


def test_a_disk_that_fills_up_while_a_feature_is_written(
    tmp_path, corpus, monkeypatch
):
    """Half of a file fits; the next run goes on with what is missing."""
    written = []

    def open_on_a_small_disk(path, *mode, **options):
        file = open(path, *mode, **options)
        if "npz" not in str(path):
            return file
        written.append(path)
        if len(written) == 3:
            write = file.write

            def half(data):
                write(data[: len(data) // 2])
                raise OSError(28, "No space left on device")

            file = types.SimpleNamespace(write=half)
            return contextlib.nullcontext(file)
        return file

    monkeypatch.setattr(files, "open", open_on_a_small_disk, raising=False)
    with pytest.raises(VAVLError, match=r"No space .*MB free") as error:
        extract(tmp_path, corpus, CountingEncoder())
    assert "npz" in str(error.value)
    folder = tmp_path / "features"
    whole = list(folder.rglob("*.npz"))
    assert len(whole) == 2 and not list(folder.rglob("*.tmp"))
    monkeypatch.undo()
    rest = CountingEncoder()
    extract(tmp_path, corpus, rest)
    assert len(rest.calls) == 5  # of 7


def _worker(folder, clips, barrier):
    barrier.wait()
    extract(folder, clips, CountingEncoder())


def test_processes_may_share_a_cache(tmp_path, corpus):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    workers = [
        context.Process(target=_worker, args=(tmp_path, corpus, barrier))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    index = read_index(tmp_path / "index.json")
    assert (
        len(FeatureCache(tmp_path / "features").read(index["b"]["audio"])) == 7
    )
    again = CountingEncoder()
    extract(tmp_path, corpus, again)
    assert again.calls == [corpus["c"]["video"]]


# NaN and infinity never reach the network.


class SickEncoder(CountingEncoder):
    """Gives one value that is not finite for the sound of clip b."""

    value = np.nan

    def encode(self, wav=None, video=None):
        found = super().encode(wav=wav, video=video)
        if wav is None or not wav.endswith("b.wav"):
            return found
        sick = found.audio.copy()
        sick[-1, 0] = self.value
        return dataclasses.replace(found, audio=sick)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_clip_whose_features_are_not_finite_is_left_out(
    tmp_path, corpus, value
):
    encoder = SickEncoder()
    encoder.value = value
    index, report = extract(tmp_path, corpus, encoder)
    assert index["b"]["audio"] is None and index["a"]["audio"] is not None
    reason = report["failed"]["b (audio)"]
    assert corpus["b"]["wav"] in reason and "not finite" in reason


def test_a_cached_feature_with_nan_is_computed_anew(tmp_path, corpus, caplog):
    index, _ = extract(tmp_path, corpus, CountingEncoder())
    cache, path = FeatureCache(tmp_path / "features"), index["a"]["audio"]
    sound = cache.read(path)
    cache.write(path, np.full_like(sound, np.nan))
    again = CountingEncoder()
    assert extract(tmp_path, corpus, again)[0] == index
    assert corpus["a"]["wav"] in again.calls and path in caplog.text
    assert np.array_equal(cache.read(path), sound)


@pytest.mark.parametrize("frames, limit", [(1, 9), (3, 9), (1, 0)])
def test_pooled_features_are_read_once_and_few_are_kept(
    tmp_path, monkeypatch, frames, limit
):
    monkeypatch.setattr(datasets_module, "MAX_KEPT", limit)
    cache = FeatureCache(tmp_path)
    path = cache.path("audio", "e1", "c0ffee")
    cache.write(path, np.full((frames, 2), 0.5, np.float16))
    entries = {"a": {"wav": "a.wav", "video": None, "emotion": "sad"}}
    (data,) = emotion_datasets(
        {"train": entries},
        {"a": {"audio": str(path), "visual": None}},
        "classification",
        ["sad"],
        {"audio": 2, "visual": 2},
        tmp_path,
    ).values()
    first = data[0]["audio"]
    path.unlink()
    if frames == 1 and limit:
        assert torch.equal(data[0]["audio"], first)
        assert first.dtype == torch.float32 and (first == 0.5).all()
    else:
        with pytest.raises(VAVLError, match="cannot be read"):
            data[0]
