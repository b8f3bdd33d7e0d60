"""Faces: geometry in closed form, following by script, and real clips."""

import json
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from vavl_sb.faces.detector import (
    EYE_DISTANCE,
    EYE_HEIGHT,
    Detection,
    MTCNNDetector,
    align_face,
)
from vavl_sb.faces.tracker import CropBatch, FaceTracker
from vavl_sb.media.reader import FrameBatch, decode
from vavl_sb.utils.errors import EncoderError

EYES = np.array(
    [
        [0.5 - EYE_DISTANCE / 2, EYE_HEIGHT],
        [0.5 + EYE_DISTANCE / 2, EYE_HEIGHT],
    ]
)


def face(x, y, side=40.0, score=1.0):
    """A detection whose box starts at (x, y), with level eyes."""
    box = np.array([x, y, x + side, y + side], np.float64)
    eyes = np.array([x, y]) + side * np.array([[0.33, 0.4], [0.67, 0.4]])
    return Detection(box, eyes, score)


class Scripted:
    """A detector that reads a frame's number and looks its faces up."""

    def __init__(self, script):
        self.script = script
        self.searched = []

    def settings(self):
        return {"name": "scripted"}

    def detect(self, frames):
        numbers = [int(f[0, 0, 0]) + 256 * int(f[0, 0, 1]) for f in frames]
        self.searched += numbers
        return [self.script(number) for number in numbers]


def numbered(count, rate=10.0, height=90, width=120, batch=32):
    """Frames that carry their number, in batches."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(count) % 256
    frames[:, 0, 0, 1] = np.arange(count) // 256
    times = np.arange(count) / rate
    return [
        FrameBatch(frames[i : i + batch], times[i : i + batch])
        for i in range(0, count, batch)
    ]


def track(script, batches, **options):
    """(times, boxes, crops) of all that a tracker gives."""
    tracker = FaceTracker(Scripted(script), size=16, **options)
    return joined(tracker.track(batches))


def joined(items):
    batches = [item for item in items if isinstance(item, CropBatch)]
    if not batches:
        return np.zeros(0), np.zeros((0, 4)), torch.zeros(0)
    return (
        np.concatenate([batch.times for batch in batches]),
        np.concatenate([batch.boxes for batch in batches]),
        torch.cat([batch.crops for batch in batches]),
    )


# Geometry


@pytest.mark.parametrize(
    "left, right, side",
    [
        (100 + 90j, 140 + 110j, 64),
        (150 + 80j, 110 + 120j, 112),
        (60 + 90j, 180 + 70j, 224),
    ],
)
def test_each_pixel_is_where_the_similarity_puts_it(left, right, side):
    """A frame that holds its own coordinates, against complex numbers."""
    yy, xx = np.mgrid[:200, :250]
    frame = np.stack([xx, yy, 0 * xx], axis=2).astype(np.uint8)
    crop = align_face(
        frame,
        np.array([[left.real, left.imag], [right.real, right.imag]]),
        np.array([0.0, 0, 9, 9]),
        side,
    ).numpy()
    assert crop.shape == (3, side, side) and crop.dtype == np.uint8

    v, u = np.mgrid[:side, :side] + 0.5
    step = (right - left) / (EYE_DISTANCE * side)
    from_eyes = u - side / 2 + 1j * (v - EYE_HEIGHT * side)
    place = (left + right) / 2 + step * from_eyes
    # Shrinking by 2 averages four samples, which are symmetric.
    assert np.abs(crop[0] - place.real.clip(0, 249)).max() <= 0.51
    assert np.abs(crop[1] - place.imag.clip(0, 199)).max() <= 0.51


def test_a_turned_head_is_not_taken_for_a_far_one():
    """Eyes as close as 5 % of the box do not blow the nose up."""
    yy, xx = np.mgrid[:200, :250]
    frame = np.stack([xx, yy, 0 * xx], axis=2).astype(np.uint8)
    eyes = np.array([[120.0, 80.0], [125.0, 80.0]])
    crop = align_face(frame, eyes, np.array([80.0, 40, 160, 140]), 100)
    # A quarter of the box's height counts as the distance: 25 / 0.32 = 78.
    row = crop[0, 40].float()
    assert (row[-1] - row[0]).item() == pytest.approx(78, abs=2)


def test_whole_frames_match_pillows_resize():
    from PIL import Image

    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (18, 24, 3), dtype=np.uint8)
    for height, width in [(360, 480), (480, 360), (100, 100), (721, 1281)]:
        image = Image.fromarray(small).resize((width, height), Image.BICUBIC)
        side = min(height, width)
        x, y = (width - side) // 2, (height - side) // 2
        truth = image.crop((x, y, x + side, y + side)).resize(
            (224, 224), Image.BILINEAR
        )
        batch = FrameBatch(np.asarray(image)[None], np.array([0.5]))

        times, boxes, crops = joined(FaceTracker(None).track([batch]))

        assert times.tolist() == [0.5]
        assert boxes.tolist() == [[x, y, x + side, y + side]]
        difference = crops[0].permute(1, 2, 0).int() - np.asarray(truth, int)
        assert difference.abs().max() <= 2


# Following


def line(number):
    return [face(10 + 0.5 * number, 20, side=30 + 0.1 * number)]


@pytest.mark.parametrize("rate", [10.0, 29.97, 4.0])
def test_between_searches_boxes_are_on_the_line(rate):
    batches = numbered(100, rate)
    detector = Scripted(line)
    tracker = FaceTracker(detector, size=16, detection_rate=5.0)
    times, boxes, crops = joined(tracker.track(batches))

    assert times == pytest.approx(np.arange(100) / rate)
    truth = np.stack([line(number)[0].box for number in range(100)])
    assert np.allclose(boxes, truth, atol=1e-9)
    assert crops.shape == (100, 3, 16, 16)
    step = np.diff(detector.searched[:-1]) / rate  # the last is the clip's end
    assert detector.searched[0] == 0 and detector.searched[-1] == 99
    assert step.min() >= min(0.2, 1 / rate) - 0.04
    assert step.max() <= max(0.2, 1 / rate) + 0.04


def test_eyes_are_interpolated_as_well():
    """The crops of a moving face are those of a search at each frame."""
    rng = np.random.default_rng(0)
    batches = numbered(30)
    for batch in batches:
        batch.frames[:, 1:] = rng.integers(0, 256, batch.frames[:, 1:].shape)
    sparse = track(line, batches, detection_rate=2.0)
    dense = track(line, batches, detection_rate=None)
    assert torch.equal(sparse[2], dense[2])
    assert dense[2].float().std() > 20


def test_which_frames_a_gap_leaves_out():
    """At 10 frames and 5 searches a second (even frames are searched)."""

    def hidden(*numbers):
        return lambda n: [] if n in numbers else [face(30, 20)]

    def shown(*numbers):
        times, _, _ = track(hidden(*numbers), numbered(21))
        return np.round(times * 10).astype(int).tolist()

    everything = list(range(21))
    assert shown() == everything
    # One search in vain: the face is known 0.4 s apart, which is bridged.
    assert shown(10) == everything
    # Two: 0.6 s apart, more than 0.5.
    assert shown(10, 12) == [*range(9), *range(14, 21)]
    # At either end there is nothing to interpolate from.
    assert shown(0, 2) == list(range(4, 21))
    assert shown(18, 20) == list(range(17))
    assert shown(20) == list(range(19))
    assert shown(*range(0, 21, 2)) == []


def test_the_largest_face_is_followed_though_another_grows():
    def script(number):
        return [
            face(60, 20, side=20 + number),  # 40 is passed at frame 21
            face(5 + 0.2 * number, 30, side=40),
        ][:: 1 if number % 4 else -1]

    _, boxes, _ = track(script, numbered(41))
    assert boxes[:, 0] == pytest.approx(5 + 0.2 * np.arange(41))


def test_a_lost_face_is_given_up_after_a_while():
    def script(number):
        first = [face(10, 20, side=40)] if number <= 10 else []
        return [*first, face(70, 20, side=30)]

    times, boxes, _ = track(script, numbered(41))
    number = np.round(times * 10).astype(int)
    left = boxes[:, 0] < 40
    assert number[left].tolist() == list(range(11))
    # Searched in vain at 1.2, 1.4 ... 2.0 s; at 2.2 s it is away for 1.2 s.
    assert number[~left].tolist() == list(range(22, 41))
    # Nothing in between is drawn from one face to the other.
    assert set(boxes[:, 0]) == {10.0, 70.0}


def test_the_size_of_batches_changes_nothing():
    rng = np.random.default_rng(0)
    whole = numbered(75, rate=25.0, batch=75)[0]
    whole.frames[:, 1:] = rng.integers(0, 256, whole.frames[:, 1:].shape)
    results = []
    for count in (1, 7, 64, 75):
        batches = [
            FrameBatch(whole.frames[i : i + count], whole.times[i : i + count])
            for i in range(0, 75, count)
        ]
        results.append(track(line, batches))
    for other in results[1:]:
        assert all(
            np.array_equal(a, b) for a, b in zip(results[0], other, strict=True)
        )


def test_the_shortest_clips_and_none():
    for count in (0, 1, 2):
        assert len(track(line, numbered(count))[0]) == count
    assert len(track(lambda number: [], numbered(50))[0]) == 0
    assert len(joined(FaceTracker(None).track([]))[0]) == 0


def test_a_change_of_size_ends_the_interpolation():
    """Pixels of frames of two sizes are not the same places."""
    first = numbered(10)
    second = numbered(10, height=180, width=240)
    for batch in second:
        batch.times += 1.0

    def script(number):
        return [face(10, 10)]

    detector = Scripted(script)
    tracker = FaceTracker(detector, size=16, detection_batch=3)
    times, _, _ = joined(tracker.track([*first, *second]))
    assert len(times) == 20
    assert detector.searched == [0, 2, 4, 6, 8, 9] * 2


def test_memory_does_not_grow_with_a_clips_length():
    detector = Scripted(lambda number: [face(50, 20)] if number == 0 else [])

    def frames(count):
        for number in range(count):
            image = np.zeros((1, 240, 320, 3), np.uint8)
            image[0, 0, 0, 0] = number % 150
            yield FrameBatch(image, np.array([number / 30]))

    tracker = FaceTracker(detector, size=64)
    peaks = []
    for count in (150, 600):
        tracemalloc.start()
        try:
            given = 0
            for item in tracker.track(frames(count)):
                given += isinstance(item, CropBatch)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert given > 0
    # 8 searches at 5 a second are 1.6 s, or 48 frames of 0.23 MB; of each
    # frame that is searched there is a copy.
    assert peaks[1] < 60 * 240 * 320 * 3 * 1.5
    assert peaks[1] < 1.2 * peaks[0]


# Settings and errors


def test_settings_tell_all_that_changes_the_crops():
    trackers = [
        FaceTracker(),
        FaceTracker(None),
        FaceTracker(None, size=112),
        FaceTracker(size=112),
        FaceTracker(detection_rate=10),
        FaceTracker(max_gap=1.0),
        FaceTracker(lost_after=2.0),
        FaceTracker(MTCNNDetector(longest_side=320)),
        FaceTracker(MTCNNDetector(min_face=0.2)),
        FaceTracker(MTCNNDetector(min_score=0.5)),
        FaceTracker(Scripted(line)),
    ]
    texts = {json.dumps(t.settings(), sort_keys=True) for t in trackers}
    assert len(texts) == len(trackers)
    assert (
        json.loads(json.dumps(trackers[0].settings()))
        == FaceTracker(device="meta", detection_batch=2).settings()
    )


def test_a_missing_package_is_told_when_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    tracker = FaceTracker()  # audio-only use must not need it
    for use in (tracker.load, lambda: list(tracker.track(numbered(1)))):
        with pytest.raises(EncoderError) as error:
            use()
        assert "pip install --no-deps facenet-pytorch==2.6.0" in str(
            error.value
        )


class Stumbling:
    """Stands for MTCNN's network; fails on a batch with a bright frame."""

    def __init__(self, error, score=0.99):
        self.error, self.score = error, score

    def detect(self, images, landmarks):
        if images.max() > 100:
            raise self.error
        box = np.array([[10.0, 10, 50, 50]])
        points = np.array(
            [[[20.0, 20], [40, 20], [30, 30], [25, 40], [35, 40]]]
        )
        count = len(images)
        return [box] * count, [np.array([self.score])] * count, [points] * count


@pytest.mark.parametrize(
    "error",
    [
        IndexError("The shape of the mask [3] at index 0 does not match"),
        RuntimeError("torch.cat(): expected a non-empty list of Tensors"),
    ],
)
def test_one_frame_that_mtcnn_trips_over_does_not_cost_its_batch(error):
    detector = MTCNNDetector()
    detector.network = Stumbling(error)
    frames = np.zeros((4, 90, 120, 3), np.uint8)
    frames[2] = 200
    found = detector.detect(frames)
    assert [len(faces) for faces in found] == [1, 1, 0, 1]
    assert found[0][0].eyes.tolist() == [[20, 20], [40, 20]]

    detector.network = Stumbling(RuntimeError("CUDA out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        detector.detect(frames)


def test_doubtful_faces_are_dropped():
    frames = np.zeros((1, 90, 120, 3), np.uint8)
    for score, count in ((0.89, 0), (0.91, 1)):
        detector = MTCNNDetector()
        detector.network = Stumbling(None, score)
        assert len(detector.detect(frames)[0]) == count


class Sized:
    """Stands for MTCNN's network; a face is as large as it looks for."""

    min_face_size = 0

    def detect(self, images, landmarks):
        WAIT.wait(timeout=30)
        side = float(self.min_face_size)
        box = np.array([[0.0, 0, side, side]])
        return [box], [np.array([0.99])], [np.zeros((1, 5, 2))]


WAIT = threading.Barrier(2)


def test_one_detector_serves_two_threads():
    """Both threads are in the search at once, with pictures of two sizes."""
    detector = MTCNNDetector()
    detector.network = Sized()
    pictures = [np.zeros((1, n, n, 3), np.uint8) for n in (300, 450)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(detector.detect, pictures))
    assert [faces[0][0].box[2] for faces in found] == [30, 45]
    assert detector.network.min_face_size == 0


# MTCNN, without and with real faces


@pytest.fixture(scope="module")
def mtcnn():
    pytest.importorskip("facenet_pytorch")
    torch.set_num_threads(1)  # more only get into each other's way
    detector = MTCNNDetector()
    detector.load()
    return detector


@pytest.fixture(scope="module")
def clips(real_data):
    """Frames of each CREMA-D clip at 10 a second: name to FrameBatches."""
    folder = real_data / "crema_d_mini" / "VideoFlash"
    return {
        path.stem: list(decode(path, frame_rate=10, audio=False))
        for path in sorted(folder.glob("*.flv"))
    }


def eyes_in(mtcnn, crops):
    """Where MTCNN sees the eyes of each crop, in shares of its side."""
    found = mtcnn.detect(crops.permute(0, 2, 3, 1).numpy())
    assert sum(len(faces) != 1 for faces in found) <= 0.05 * len(crops)
    return np.array([faces[0].eyes for faces in found if faces]) / len(
        crops[0, 0]
    )


@pytest.mark.parametrize("height, width", [(8, 8), (47, 480)])
def test_pictures_without_a_face_give_nothing(mtcnn, height, width, caplog):
    rng = np.random.default_rng(0)
    tracker = FaceTracker(mtcnn)
    for frames in (
        np.full((9, height, width, 3), 128, np.uint8),
        rng.integers(0, 256, (9, height, width, 3), dtype=np.uint8),
    ):
        clip = [FrameBatch(frames, np.arange(9) / 10)]
        assert len(joined(tracker.track(clip))[0]) == 0
    assert not caplog.records


@pytest.mark.real
def test_every_clip_shows_its_face_with_the_eyes_in_place(mtcnn, clips):
    assert len(clips) == 6
    for name, batches in clips.items():
        times, boxes, crops = joined(FaceTracker(mtcnn).track(batches))
        wanted = np.concatenate([batch.times for batch in batches])
        assert len(times) >= 0.98 * len(wanted), name
        assert np.all(np.diff(times) > 0) and set(times) <= set(wanted)
        sides = boxes[:, 2:] - boxes[:, :2]
        assert sides.min() > 80 and sides.max() < 300
        eyes = eyes_in(mtcnn, crops)
        assert np.abs(eyes.mean(axis=0) - EYES).max() < 0.035, name
        assert np.abs(eyes - EYES).max() < 0.1, name
