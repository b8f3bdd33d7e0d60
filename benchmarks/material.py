"""Inputs of the benchmarks: synthetic clips and untrained encoders.

They need no downloads: the encoders have the size of the recipes' encoders and
random weights, which take the same time. The clips are those of the synthetic
corpus, 480 x 360 at 29.97 frames per second as in CREMA-D.
"""

import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from vavl_sb.faces.tracker import FaceTracker
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.lobes.audio_encoder import AudioEncoder
from vavl_sb.lobes.visual_encoder import VisualEncoder, create_backbone
from vavl_sb.media.reader import decode

# synthetic is in the repository, but not in the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from synthetic import generate_corpus  # noqa: E402
from synthetic.media import write_video  # noqa: E402

FRAME_RATE = Fraction(30000, 1001)
RATE = 16000


def speech_model(width=1024, layers=12):
    """Creates the first layers of wav2vec2-large-robust, with random weights.

    Arguments
    ---------
    width : int
        Hidden size of the transformer.
    layers : int
        Number of layers.

    Returns
    -------
    transformers.Wav2Vec2Model
    """
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=4 * width,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        layerdrop=0.0,
        apply_spec_augment=False,
    )
    return Wav2Vec2Model(config)


def feature_extractor(folder, quick=False, device="cpu"):
    """Creates the recipes' encoders: 12 layers of wav2vec2-large,
    EfficientNet-B2.

    As in the recipes, encodes 10 frames per second and detects faces in 5.

    Arguments
    ---------
    folder : str or Path
        Folder for the encoders, which are written if missing.
    quick : bool
        Whether to use a tiny speech encoder.
    device : str
        Device of the encoders.

    Returns
    -------
    vavl_sb.features.extractor.FeatureExtractor
    """
    source = Path(folder) / "speech"
    if not (source / "preprocessor_config.json").exists():
        model = speech_model(32, 1) if quick else speech_model()
        model.save_pretrained(source)
        settings = {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "sampling_rate": RATE,
            "do_normalize": True,
            "return_attention_mask": True,
        }
        text = json.dumps(settings)
        (source / "preprocessor_config.json").write_text(text)
    return FeatureExtractor(
        AudioEncoder(source, num_layers=12),
        VisualEncoder(_visual_weights(Path(folder))),
        FaceTracker(),
    ).to(device)


def _visual_weights(folder):
    """Writes random weights of EfficientNet-B2, if missing."""
    path = folder / "visual.safetensors"
    if not path.exists():
        save_file(create_backbone().state_dict(), path)
    return path


def corpus(folder, clips):
    """Generates clips of the synthetic corpus.

    Arguments
    ---------
    folder : str or Path
        Output folder; existing clips are kept.
    clips : int
        Number of clips, a multiple of 2.

    Returns
    -------
    list of (str, str)
        Audio and video file of each clip.
    """
    folder = Path(folder) / f"corpus_{clips}"
    generate_corpus(
        folder,
        speakers=2,
        clips_per_speaker=clips // 2,
        frame_rate=FRAME_RATE,
        progress=False,
    )
    videos = sorted(folder.glob("VideoFlash/*.flv"))
    sounds = [folder / "AudioWAV" / f"{v.stem}.wav" for v in videos]
    return [(str(s), str(v)) for s, v in zip(sounds, videos, strict=True)]


def long_clip(folder, seconds):
    """Generates an MP4 with a talking face, of any length.

    Repeats a clip of the synthetic corpus, forwards and backwards.

    Arguments
    ---------
    folder : str or Path
        Output folder.
    seconds : float
        Duration.

    Returns
    -------
    str
        Path of the file.
    """
    path = Path(folder) / f"clip_{seconds:g}s.mp4"
    if path.exists():
        return str(path)
    sound, video = corpus(folder, 2)[0]
    frames = [
        Image.fromarray(frame)
        for batch in decode(video, audio=False)
        for frame in batch.frames
    ]
    frames += frames[::-1]
    samples = np.concatenate([c.samples for c in decode(sound, video=False)])
    count = round(seconds * FRAME_RATE)
    write_video(
        path,
        (frames[i % len(frames)] for i in range(count)),
        np.resize(samples, int(seconds * RATE)),
        frame_rate=FRAME_RATE,
    )
    return str(path)
