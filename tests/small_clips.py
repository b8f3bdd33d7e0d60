"""Small media files with known pictures and tones, in many containers."""

import io
import json
from fractions import Fraction

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from vavl_sb.lobes.visual_encoder import create_backbone

av = pytest.importorskip("av")

# name: (video codec, audio codec, audio rate, options)
CONTAINERS = {
    "clip.mp4": ("libx264", "aac", 44100, {"movflags": "faststart"}),
    "clip.mkv": ("libx264", "aac", 48000, {}),
    "clip.flv": ("flv1", "aac", 44100, {}),
    "clip.avi": ("mpeg4", "libmp3lame", 44100, {}),
    "pcm.avi": ("mjpeg", "pcm_s16le", 16000, {}),
    "clip.ts": ("libx264", "aac", 48000, {}),
    "clip.webm": ("libvpx", "libopus", 48000, {}),
    "clip.mov": ("mjpeg", "pcm_s16le", 8000, {}),
}
FPS = 25
TONE = 440.0


def write(
    path,
    images=None,
    sound=None,
    times=None,
    codecs=("libx264", "aac"),
    rate=16000,
    fps=FPS,
    offset=0.0,
    late=0.0,
    options=None,
    setup=None,
):
    """Writes images (at times, or at a fixed rate) and mono sound, which may
    begin some seconds late."""
    with av.open(str(path), "w", options=options or {}) as out:
        video = audio = None
        if images is not None:
            video = out.add_stream(codecs[0], rate=fps)
            video.height, video.width = images[0].shape[:2]
            video.pix_fmt = {
                "mjpeg": "yuvj420p",
                "ffv1": "bgr0",
                "png": "rgb24",
            }.get(codecs[0], "yuv420p")
            video.time_base = Fraction(1, fps if times is None else 1000)
            video.codec_context.time_base = video.time_base
            if setup is not None:
                setup(video)
        if sound is not None:
            audio = out.add_stream(codecs[1], rate=rate, layout="mono")
        packets = []
        if video is not None:
            if times is None:
                times = np.arange(len(images)) / fps
            for image, time in zip(images, times, strict=True):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.time_base = video.codec_context.time_base
                frame.pts = round((time + offset) / frame.time_base)
                packets += video.encode(frame)
            packets += video.encode(None)
        if audio is not None:
            block = rate // 10
            pcm = np.round(sound * 32767).astype(np.int16)
            for start in range(0, len(pcm), block):
                frame = av.AudioFrame.from_ndarray(
                    pcm[None, start : start + block], "s16", "mono"
                )
                frame.sample_rate = rate
                frame.time_base = Fraction(1, rate)
                frame.pts = start + round((offset + late) * rate)
                packets += audio.encode(frame)
            packets += audio.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


def break_picture(clip, path, bad=range(150, 199)):
    """A copy of a clip, some packets of whose picture hold garbage."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as out:
        copies = {
            s.index: out.add_stream_from_template(s) for s in source.streams
        }
        seen = 0
        for packet in source.demux():
            if packet.dts is None:
                continue
            stream = copies[packet.stream.index]
            if packet.stream.type == "video":
                if seen in bad:
                    new = av.Packet(b"\x00garbage" * 8)
                    new.pts, new.dts = packet.pts, packet.dts
                    new.time_base = packet.time_base
                    new.duration = packet.duration
                    packet = new
                seen += 1
            packet.stream = stream
            out.mux(packet)
    return path


def grays(levels, height=48, width=64):
    """One even picture for each level."""
    return [np.full((height, width, 3), g, np.uint8) for g in levels]


def pictures(count=3, size=96, seed=5):
    """Blobs of colour, uint8 of shape (count, 3, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 9, 9, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    return (255 * fine).round().clamp(0, 255).to(torch.uint8)


def save_efficientnet(folder):
    """A file of weights for the visual encoder, random ones."""
    path = folder / "efficientnet.safetensors"
    save_file(create_backbone().state_dict(), path)
    return path


def cover_mp3(path, seconds=2.0):
    """An mp3 with a picture in an ID3v2 tag, put together by hand."""
    from PIL import Image

    sound = sine(seconds, 44100)
    write(path, sound=sound, codecs=(None, "libmp3lame"), rate=44100)
    sound = path.read_bytes()
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 0, 0)).save(picture, "JPEG")
    body = b"\x00image/jpeg\x00\x03\x00" + picture.getvalue()
    tag = b"APIC" + len(body).to_bytes(4, "big") + b"\0\0" + body
    size = bytes(len(tag) >> shift & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\0\0" + size + tag + sound)
    return path


def sine(seconds, rate, frequency=TONE, level=0.3):
    time = np.arange(int(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def write_manifests(folder):
    """Voices of a few speakers, as a prepare script leaves them, and the
    options of a small run on them."""
    random = np.random.default_rng(0)
    for split, speakers in {"train": 3, "valid": 1, "test": 1}.items():
        entries = {}
        for speaker in range(speakers):
            for emotion in ("angry", "happy", "sad"):
                id = f"{split}{speaker}_{emotion}"
                path = folder / f"{id}.wav"
                soundfile.write(path, 0.1 * random.standard_normal(4800), 16000)
                entries[id] = {
                    "wav": str(path),
                    "video": None,
                    "duration": 0.3,
                    "spk_id": f"{split}{speaker}",
                    "emotion": emotion,
                }
        (folder / f"{split}.json").write_text(json.dumps(entries))
    options = {
        "data_folder": folder,
        "skip_prep": True,
        "feature_folder": folder / "features",
        "train_annotation": folder / "train.json",
        "valid_annotation": folder / "valid.json",
        "test_annotation": folder / "test.json",
        "audio_encoder_source": "logmel",
        "face_detector": "null",
        "visual_encoder_weights": "null",
        "d_model": 16,
        "device": "cpu",
        "distributed_backend": "gloo",
    }
    return [f"--{key}={value}" for key, value in options.items()]
