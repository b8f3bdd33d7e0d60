"""Faces described without a network: a small VAVL tells drawn ones apart, and
its answer does not hang on how the video was encoded.

All of it goes the way of training and inference: decoder, MTCNN, alignment.
"""

import numpy as np
import pytest
import torch
from small_clips import write

from synthetic.face import FacePainter
from synthetic.generate import LAYOUTS, render_frames, render_voice
from synthetic.media import write_video
from synthetic.performance import EMOTIONS, draw_speaker, perform
from vavl_sb.faces.tracker import CropBatch, FaceTracker
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.vavl import VAVL
from vavl_sb.lobes.visual_encoder import VisualEncoder
from vavl_sb.media.reader import FrameBatch, decode

pytestmark = pytest.mark.slow
LAYOUT = LAYOUTS["crema-d"]
TRAINED, UNSEEN = LAYOUT.speakers[:24], LAYOUT.speakers[36:40]
PICTURES = 2  # of a speaker's expression, in training


class Recognizer:
    """A small network, and the features that it was trained on."""

    def __init__(self):
        self.encoder = FeatureExtractor(
            AudioEncoder("logmel"),
            VisualEncoder(),
            FaceTracker(detection_rate=5),
            frame_rate=5,
        )
        self.net = VAVL(
            80, 512, 6, d_model=32, encoder_layers=1, shared_layers=1
        )

    def train(self):
        """On a few pictures of each speaker and emotion."""
        found = [_faces(self.encoder, speaker) for speaker in TRAINED]
        features, labels = (torch.cat(part) for part in zip(*found))
        self.mean, self.deviation = features.mean(0), features.std(0)
        features = ((features - self.mean) / self.deviation).unsqueeze(1)
        adam = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        for _ in range(120):
            adam.zero_grad()
            output = self.net(visual=features).visual
            torch.nn.functional.cross_entropy(output, labels).backward()
            adam.step()
        self.net.eval()

    @torch.no_grad()
    def probabilities(self, path):
        """Of a video, shape (6,)."""
        features = torch.from_numpy(self.encoder.encode(video=path).visual)
        features = (features.float() - self.mean) / self.deviation
        return self.net(visual=features[None]).visual[0].softmax(dim=0)


def _faces(encoder, speaker):
    """Features (n, 512) and labels (n,) of pictures of one speaker."""
    painter = FacePainter(
        draw_speaker(0, speaker, int(speaker) % 2 == 0)[0],
        np.random.default_rng(0),
        size=(320, 240),
    )
    pictures = []
    for clip in LAYOUT.clips(speaker, 0)[:6]:
        rng, face = clip.rng("still"), perform(clip).face
        for _ in range(PICTURES):
            pictures.append(
                painter.paint(
                    face * rng.uniform(0.7, 1),
                    mouth=rng.uniform(0, 0.6),
                    lean=rng.normal(0, 0.03),
                    sway=rng.normal(0, 3, 2),
                )
            )
    frames = np.stack([np.asarray(picture) for picture in pictures])
    batch = FrameBatch(frames, np.arange(len(frames), dtype=float))
    found = FaceTracker().track([batch])
    found = [part for part in found if isinstance(part, CropBatch)]
    crops = torch.cat([part.crops for part in found])
    times = np.concatenate([part.times for part in found])
    labels = torch.from_numpy(times).long() // PICTURES
    return encoder.visual_encoder(crops), labels


@pytest.fixture(scope="module")
def recognizer():
    torch.manual_seed(0)
    recognizer = Recognizer()
    recognizer.train()
    return recognizer


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Paths and labels of clips of unseen speakers who act clearly.

    A face between two emotions may go either way: there a hair decides.
    """
    folder, found = tmp_path_factory.mktemp("videos"), []
    for speaker in UNSEEN:
        for clip in LAYOUT.clips(speaker, 0)[:6]:
            if perform(clip).strength[1] < 0.6:
                continue
            path = folder / f"{speaker}_{clip.emotion}.flv"
            said = render_voice(clip)
            frames = render_frames(clip, said, 10)
            write_video(path, frames, said.samples, 10)
            found.append((str(path), EMOTIONS.index(clip.emotion)))
    return found


def test_a_small_network_tells_drawn_faces_apart(recognizer, videos):
    right = [
        recognizer.probabilities(path).argmax().item() == label
        for path, label in videos
    ]
    assert np.mean(right) >= 0.75  # 0.17 by chance


def encode_again(source, path, size, crf, light=0.0, contrast=1.0):
    """A copy of a video in H.264, as a messenger or an editor makes it."""

    def setup(video):
        video.options = {"crf": str(crf), "preset": "veryfast"}
        video.width, video.height = size

    batches = list(decode(source, audio=False))
    images = np.concatenate([b.frames for b in batches]).astype(float)
    images = contrast * (images - 128) + 128 + light
    images = images.round().clip(0, 255).astype(np.uint8)
    times = np.concatenate([batch.times for batch in batches])
    return str(write(path, images, times=times, setup=setup))


@pytest.mark.parametrize(
    "how",
    [
        {"size": (320, 240), "crf": 35},
        {"size": (640, 480), "crf": 23, "light": 20, "contrast": 0.8},
    ],
    ids=["smaller", "larger, other light"],
)
def test_a_clip_that_is_encoded_again_keeps_its_answer(
    recognizer, videos, tmp_path, how
):
    changes = []
    for source, _ in videos:
        copy = encode_again(source, tmp_path / "copy.mp4", **how)
        change = recognizer.probabilities(copy)
        change -= recognizer.probabilities(source)
        changes.append(change.abs().max().item())
    # Of some clips the answer moves more: the detector's eyes move by a few
    # pixels in a copy, which decides between two classes.
    assert len(changes) > 5 and np.median(changes) < 0.05, changes
