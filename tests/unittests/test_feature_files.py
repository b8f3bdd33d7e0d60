"""Features that others computed: files of frames, and tables of clips."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from vavl_sb.utils.errors import MediaError
from vavl_sb.utils.feature_files import (
    describe_features,
    find_features,
    read_features,
)

FRAMES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def csv_of(path, rows, header=None, delimiter=","):
    """A .csv with these rows."""
    lines = [header] if header else []
    lines += [delimiter.join(map(str, row)) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_all_kinds_of_files_hold_the_same_frames(tmp_path):
    np.save(tmp_path / "a.npy", FRAMES)
    save_file({"any": FRAMES}, tmp_path / "a.safetensors")
    csv_of(tmp_path / "bare.csv", FRAMES.tolist())
    csv_of(tmp_path / "a.csv", FRAMES.tolist(), "x; y; z", ";")
    for name in ("a.npy", "a.safetensors", "bare.csv"):
        np.testing.assert_array_equal(read_features(tmp_path / name), FRAMES)
    csv_of(tmp_path / "b.csv", FRAMES.tolist(), "x;y;z", ";")
    np.testing.assert_array_equal(read_features(tmp_path / "b.csv"), FRAMES)
    np.save(tmp_path / "one.npy", FRAMES[0].astype(np.float64))
    one = read_features(tmp_path / "one.npy")
    assert one.shape == (1, 3) and one.dtype == np.float32


def test_what_openface_writes_beside_features_is_left_out(tmp_path):
    rows = [
        [n + 1, 0, n / 30, 0.98, int(n != 2), *row]
        for n, row in enumerate(FRAMES.tolist())
    ]
    header = "frame, face_id, timestamp, confidence, success, AU01_r, b, c"
    path = csv_of(tmp_path / "openface.csv", rows, header)
    kept = FRAMES[[0, 1, 3, 4]]  # The third shows no face.
    np.testing.assert_array_equal(read_features(path), kept)
    assert describe_features(tmp_path) == (3, ["AU01_r", "b", "c"])
    # By their names, in whatever order a file has them.
    wanted = read_features(path, ["c", "AU01_r"])
    np.testing.assert_array_equal(wanted, kept[:, [2, 0]])
    with pytest.raises(MediaError, match="has no column d"):
        read_features(path, ["c", "d"])


def test_a_table_has_a_row_a_clip(tmp_path):
    rows = [[f"sub/{n}.wav", *row] for n, row in enumerate(FRAMES.tolist())]
    table = csv_of(tmp_path / "table.csv", rows, "file,x,y,z")
    found = find_features(table)
    assert sorted(found) == [f"sub/{n}" for n in range(5)]
    for n, frame in enumerate(FRAMES):
        (reference,) = found[f"sub/{n}"]
        np.testing.assert_array_equal(read_features(reference), frame[None])
    save_file({"a": FRAMES, "b": FRAMES[:2]}, tmp_path / "all.safetensors")
    found = find_features(tmp_path / "all.safetensors")
    assert [read_features(found[k][0]).shape for k in "ab"] == [(5, 3), (2, 3)]
    # The column of names need not be the first.
    rows = [[*row, f"clip{n}"] for n, row in enumerate(FRAMES.tolist())]
    csv_of(table, rows, "x,y,z,Name")
    reference = f"{table}#clip3"
    np.testing.assert_array_equal(read_features(reference)[0], FRAMES[3])


def test_a_folder_has_a_file_a_clip(tmp_path):
    (tmp_path / "deep").mkdir()
    np.save(tmp_path / "a.npy", FRAMES)
    np.save(tmp_path / "deep" / "b.npy", FRAMES[:, :2])
    csv_of(tmp_path / "deep" / "c.csv", FRAMES.tolist())
    save_file({"x": FRAMES}, tmp_path / "deep" / "a.safetensors")
    found = find_features(tmp_path)
    assert {name: len(files) for name, files in found.items()} == {
        "a": 1,
        "deep/a": 1,
        "deep/b": 1,
        "deep/c": 1,
    }
    # What most clips have: the file of another dimension is left out later.
    assert describe_features(tmp_path) == (3, None)


def _wrong(folder):
    """Reference to something that is no feature of a clip, by its fault."""
    np.save(folder / "nan.npy", np.array([[1.0, np.nan]]))
    np.save(folder / "none.npy", np.zeros((0, 4)))
    np.save(folder / "cube.npy", np.zeros((2, 3, 4)))
    np.save(folder / "object.npy", np.array([{}]), allow_pickle=True)
    (folder / "empty.csv").write_text("")
    (folder / "cut.safetensors").write_bytes(b"\x99" * 30)
    csv_of(folder / "ragged.csv", [[1, 2], [3]], "x,y")
    csv_of(folder / "word.csv", [[1, "calm"]], "x,y")
    csv_of(folder / "twice.csv", [["a", 1], ["a", 2]], "name,x")
    csv_of(folder / "bare.csv", [["a", 1, 2]])
    save_file({"a": FRAMES, "b": FRAMES}, folder / "two.safetensors")
    return {
        "nan.npy": "has NaN or infinity",
        "none.npy": "has no frames",
        "empty.csv": "has no frames",
        "cube.npy": r"must be numbers of shape \(T, D\), not float64 \(2, 3, 4",
        "object.npy": "no features can be read from it",
        "cut.safetensors": "no features can be read from it",
        "ragged.csv": "line 3: 1 cells, not 2",
        "word.csv": "line 2: .*'calm'.*select one by",
        "twice.csv#a": "has a 2 times; a table must have one row per clip",
        "bare.csv#a": "has no names above its columns",
        "two.safetensors": "has 2 tensors; select one by",
        "gone.npy": "cannot be read",
        "clip.mp4": r"is not a file of features; give a \.npy",
    }


def test_each_fault_is_one_line_that_names_the_file(tmp_path):
    for reference, words in _wrong(tmp_path).items():
        with pytest.raises(MediaError, match=words) as error:
            read_features(tmp_path / reference)
        line = str(error.value)
        assert "\n" not in line
        assert str(tmp_path / reference.partition("#")[0]) in line


@pytest.mark.parametrize(
    "name, words",
    [
        ("gone", "is not a folder or table"),
        ("gone.csv", "cannot be read"),
        ("empty", "no features in it"),
        ("bad.csv", "no names above its columns"),
        ("bad.npy", "is not a folder or table"),
    ],
)
def test_a_folder_or_table_without_features_is_one_line(tmp_path, name, words):
    (tmp_path / "empty").mkdir()
    csv_of(tmp_path / "bad.csv", [["a", 1, 2]])
    np.save(tmp_path / "bad.npy", FRAMES)
    with pytest.raises(MediaError, match=words) as error:
        describe_features(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
