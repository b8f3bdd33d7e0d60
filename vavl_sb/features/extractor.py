"""The one path from a clip to features: training's cache and inference.

Whatever turns a media file into the numbers that VAVL reads is here, so that
an exported model sees a clip exactly as training saw it, half-precision
rounding included. (A speech encoder that learned was trained without that
rounding, which moves its model's probabilities by about 1e-3.)

Authors
 * The vavl_sb authors 2026
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import torch

from vavl_sb.faces.tracker import CropBatch, Decided
from vavl_sb.media.frames import AudioChunk
from vavl_sb.media.reader import decode, is_silent, refuse_endless
from vavl_sb.utils.errors import MediaError
from vavl_sb.utils.profiler import Stopwatch

SAMPLE_RATE = 16000

# Raised when this file changes what features a clip gives.
PATH_VERSION = 1


@dataclass
class ClipFeatures:
    """Features of one clip; None where the clip lacks the modality.

    Arguments
    ---------
    audio : np.ndarray
        float16, shape (Ta, audio_dim).
    visual : np.ndarray
        float16, shape (Tv, visual_dim): frames that show a face.
    """

    audio: np.ndarray | None = None
    visual: np.ndarray | None = None


@dataclass
class FaceChunk:
    """Features of a clip's face for a stretch of time.

    Arguments
    ---------
    features : np.ndarray
        float16, shape (n, visual_dim).
    crops : torch.Tensor
        What they were computed from: uint8, shape (n, 3, H, W), RGB.
    times : np.ndarray
        float64, shape (n,), seconds from the start of the presentation.
    """

    features: np.ndarray
    crops: torch.Tensor
    times: np.ndarray


class FeatureExtractor:
    """Decodes a clip and runs the frozen encoders on it.

    Memory does not grow with the picture: frames are decoded, cropped and
    encoded a batch at a time, and only features are kept.

    Arguments
    ---------
    audio_encoder : vavl_sb.lobes.audio_encoder.AudioEncoder
        Or any :class:`vavl_sb.lobes.feature_encoder.FeatureEncoder` whose
        ``forward(wavs, wav_lens)`` maps 16 kHz mono (B, n) in [-1, 1] and
        relative lengths (B,), or None, to features (B, T, D) and their
        lengths; with ``output_dim`` and ``frame_rate``.
    visual_encoder : vavl_sb.lobes.visual_encoder.VisualEncoder
        Or any that maps uint8 crops (N, 3, H, W) to (N, D), with
        ``output_dim``.
    face_tracker : vavl_sb.faces.tracker.FaceTracker
        What turns frames into crops.
    frame_rate : float
        At most that many pictures a second are encoded; None for all.
    batch_frames : int
        Frames that are decoded and encoded together.
    """

    def __init__(
        self,
        audio_encoder,
        visual_encoder,
        face_tracker,
        frame_rate=10.0,
        batch_frames=32,
    ):
        self.audio_encoder = audio_encoder
        self.visual_encoder = visual_encoder
        self.face_tracker = face_tracker
        self.frame_rate = frame_rate
        self.batch_frames = batch_frames
        # Those that are no objects, for an export.
        self.arguments = {
            "frame_rate": frame_rate,
            "batch_frames": batch_frames,
        }

    def to(self, device):
        """Moves encoders and face detector to a device.

        Arguments
        ---------
        device : str or torch.device
            Where to compute.

        Returns
        -------
        FeatureExtractor
            This object.
        """
        self.audio_encoder.to(device)
        self.visual_encoder.to(device)
        self.face_tracker.to(device)
        return self

    def fingerprint(self, modality):
        """Names everything but the clip that a feature depends on.

        Arguments
        ---------
        modality : str
            "audio" or "visual".

        Returns
        -------
        str
            16 hexadecimal digits.
        """
        parts = {"version": PATH_VERSION, "sample_rate": SAMPLE_RATE}
        if modality == "audio":
            parts["encoder"] = self.audio_encoder.fingerprint()
        else:
            parts["encoder"] = self.visual_encoder.fingerprint()
            parts["faces"] = self.face_tracker.settings()
            parts["frame_rate"] = self.frame_rate
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def encode(self, wav=None, video=None):
        """Features of a clip.

        Arguments
        ---------
        wav : str
            File whose sound is used (any container); None for no sound.
        video : str
            File whose picture is used; None for no picture. Where it is the
            same file as ``wav``, both are read in one pass.

        Returns
        -------
        ClipFeatures
            ``audio`` is None for digital silence or no sound, ``visual`` where
            no frame shows a face.

        Raises
        ------
        MediaError
            A file cannot be decoded, or a feature is not finite.
        """
        samples, visual = self.read(wav, video)
        if samples is None:
            return ClipFeatures(visual=visual)
        return ClipFeatures(self.encode_audio(samples, wav), visual)

    def read(self, wav=None, video=None):
        """Sound of a clip as samples, and the features of its picture.

        For whoever changes the sound before :meth:`encode_audio`.

        Arguments
        ---------
        wav, video : str
            As in :meth:`encode`.

        Returns
        -------
        samples : torch.Tensor
            16 kHz mono in [-1, 1], shape (n,), n = 0 for a file without
            sound; None without ``wav``.
        visual : np.ndarray
            As in :class:`ClipFeatures`.
        """
        if wav is not None and wav == video:
            return self._decode_once(wav, True, True)
        samples = visual = None
        if wav is not None:
            samples, _ = self._decode_once(wav, True, False)
        if video is not None:
            _, visual = self._decode_once(video, False, True)
        return samples, visual

    def _decode_once(self, path, audio, video):
        """One pass over one file: (samples, visual features)."""
        samples, visual = [np.zeros(0, np.float32)], []
        seconds = 0.0
        for item in self._stream_file(path, audio, video, Stopwatch()):
            if isinstance(item, AudioChunk):
                samples.append(item.samples)
                seconds += len(item.samples) / SAMPLE_RATE
                refuse_endless(path, seconds)
            elif isinstance(item, FaceChunk):
                visual.append(item.features)
        return (
            torch.from_numpy(np.concatenate(samples)) if audio else None,
            np.concatenate(visual) if visual else None,
        )

    def stream(self, wav=None, video=None, watch=None):
        """A clip bit by bit, in bounded memory: for clips of any length.

        Arguments
        ---------
        wav, video : str
            As in :meth:`encode`. Two files are read side by side.
        watch : vavl_sb.utils.profiler.Stopwatch
            Counts "decode", "faces" and "visual encoder".

        Yields
        ------
        AudioChunk or FaceChunk or Decided
            Sound; features of the face; how far the latter are complete.
        """
        watch = watch or Stopwatch()
        if wav is not None and wav == video:
            yield from self._stream_file(wav, True, True, watch)
            return
        streams = []
        if wav is not None:
            streams.append(self._stream_file(wav, True, False, watch))
        if video is not None:
            streams.append(self._stream_file(video, False, True, watch))
        yield from _side_by_side(streams)

    def _stream_file(self, path, audio, video, watch):
        """The generator behind :meth:`stream`, for one file."""
        stream = decode(
            path,
            sample_rate=SAMPLE_RATE,
            frame_rate=self.frame_rate,
            audio=audio,
            video=video,
            batch_frames=self.batch_frames,
        )
        stream = watch.each("decode", stream)
        if video:
            stream = watch.each("faces", self.face_tracker.follow(stream))
        for item in stream:
            if isinstance(item, CropBatch):
                with watch("visual encoder"):
                    features = self.encode_faces(item.crops, path)
                yield FaceChunk(features, item.crops, item.times)
            else:
                yield item

    def encode_audio(self, samples, name="<tensor>"):
        """Audio features of a waveform.

        Arguments
        ---------
        samples : torch.Tensor
            16 kHz mono in [-1, 1], shape (n,).
        name : str
            What an error calls the clip.

        Returns
        -------
        np.ndarray
            float16, shape (Ta, audio_dim); None for silence or no samples.
        """
        if len(samples) == 0 or is_silent(samples):
            return None
        return _half([self._encode_once(samples)], name)

    @torch.inference_mode()
    def _encode_once(self, samples):
        """Features of a sound as it is, float32, shape (T, audio_dim)."""
        device = _device(self.audio_encoder)
        features, _ = self.audio_encoder(samples[None].to(device), None)
        return features[0].float().cpu().numpy()

    def encode_faces(self, crops, name="<tensor>"):
        """Visual features of face crops, as they are cached.

        Arguments
        ---------
        crops : torch.Tensor
            uint8, shape (N, 3, H, W).
        name : str
            What an error calls the clip.

        Returns
        -------
        np.ndarray
            float16, shape (N, visual_dim).
        """
        return _half([self.encode_crops(crops)], name)

    @torch.inference_mode()
    def encode_crops(self, crops):
        """Visual features of face crops.

        Arguments
        ---------
        crops : torch.Tensor
            uint8, shape (N, 3, H, W).

        Returns
        -------
        np.ndarray
            float32, shape (N, visual_dim).
        """
        device = _device(self.visual_encoder)
        return self.visual_encoder(crops.to(device)).float().cpu().numpy()


def end_of(chunk):
    """Where a stretch of sound ends.

    Arguments
    ---------
    chunk : AudioChunk
        At 16 kHz.

    Returns
    -------
    float
        Seconds from the start of the presentation.
    """
    return chunk.start + len(chunk.samples) / SAMPLE_RATE


def _side_by_side(streams):
    """Items of several streams, always of the one that is furthest behind."""
    reached = {id(stream): 0.0 for stream in streams}
    while streams:
        stream = min(streams, key=lambda stream: reached[id(stream)])
        item = next(stream, None)
        if item is None:
            streams.remove(stream)
            continue
        if isinstance(item, AudioChunk):
            reached[id(stream)] = end_of(item)
        elif isinstance(item, Decided):
            reached[id(stream)] = item.until
        yield item


def _half(parts, name):
    """Joined features in half precision, checked to be finite."""
    with np.errstate(over="ignore"):
        features = np.concatenate(parts).astype(np.float16)
    if not np.isfinite(features).all():
        raise MediaError(
            f"{name}: the encoder gave features that half precision cannot "
            "hold (NaN or above 65504); leave the clip out"
        )
    return features


def _device(module):
    """Device of a module's first tensor; CPU if it has none."""
    tensors = (*module.parameters(), *module.buffers())
    return next(iter(tensors)).device if tensors else torch.device("cpu")
