"""EmotionRecognizer: predicts the emotion of clips.

Each method reads a file once: the feature extractor
(:mod:`vavl_sb.features.extractor`) computes features in chunks, the network
their outputs, and :mod:`vavl_sb.inference.prediction` the prediction. Memory
does not grow with the length of the clip.
"""

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ruamel.yaml import YAMLError
from speechbrain.inference.interfaces import Pretrained

from vavl_sb.dataio.datasets import pad_frames
from vavl_sb.features.extractor import ClipFeatures, Stopwatch, needs_features
from vavl_sb.inference.batch_inputs import (
    Values,
    encode_tensors,
    prepare_frames,
    unpad,
    unpad_features,
)
from vavl_sb.inference.hub import hub_options, model_folder
from vavl_sb.inference.isolation import (
    inference_method,
    own_precision,
    refuse_after_fork,
)
from vavl_sb.inference.loading import load_parts, read_weights
from vavl_sb.inference.prediction import (
    Analysis,
    Emotion,
    TimedEmotion,
    check_modality,
    mean_outputs,
    select_head,
    to_prediction,
    used_and_left_out,
    why_no_head,
)
from vavl_sb.inference.sliding_windows import CropSample, SlidingWindows
from vavl_sb.inference.speakers import Speaker, SpeakerEnrolment
from vavl_sb.lobes.vavl import HEADS, MODALITIES, READS, VAVLOutput
from vavl_sb.media.demuxing import check_file
from vavl_sb.nnet.attribute_scale import AttributeScale
from vavl_sb.training.model_card import describe
from vavl_sb.training.model_file import YAML
from vavl_sb.utils.errors import EncoderError, MediaError, VAVLError
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

STAGES = ("decode", "faces", "audio encoder", "visual encoder", "heads")
WORDS = {"audio": "sound", "visual": "picture"}
BATCH_SIZE = 32


class EmotionRecognizer(SpeakerEnrolment, Pretrained):
    """A trained VAVL model with its encoders.

    Load one with :meth:`from_hparams`.

    Example
    -------
    >>> source = "results/demo/inference"
    >>> model = EmotionRecognizer.from_hparams(source)  # doctest: +SKIP
    >>> model.predict_file("clip.mp4").label  # doctest: +SKIP
    'happy'
    """

    HPARAMS_NEEDED = ["task", "labels", "feature_extractor"]
    MODULES_NEEDED = ["vavl"]
    # From training.model_card.describe; None without model.json.
    metadata: dict | None = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        encoder = self.hparams.feature_extractor
        for part in (self.mods, encoder.audio_encoder, encoder.visual_encoder):
            read_weights(part)
        refuse_after_fork(self)

    @classmethod
    @own_precision()
    def from_hparams(
        cls,
        source: str | Path,
        trust: bool = False,
        overrides: dict | None = None,
        **kwargs,
    ) -> "EmotionRecognizer":
        """Loads an exported model.

        Arguments
        ---------
        source : str or Path
            A folder such as a run's ``inference/``, or a hub id.
        trust : bool
            False: the model is data. vavl_sb creates its objects from
            model.json, its tensors are safetensors, and nothing outside its
            folder is read. True: SpeechBrain's ``Pretrained`` loads its
            hyperparams.yaml, which can run any code, such as your own encoder.
        overrides : dict
            Values that replace those of model.json (see
            :func:`vavl_sb.inference.loading.load_parts`) or, with trust, of
            hyperparams.yaml.
        **kwargs
            ``run_opts``; for a hub id also ``revision``, ``token``,
            ``local_files_only`` and ``fetch_config``; with trust, arguments of
            ``Pretrained.from_hparams``. ``savedir`` has no effect: models are
            stored in the cache of the hub.

        Returns
        -------
        EmotionRecognizer

        Raises
        ------
        EncoderError
            The folder contains no model, the weights do not fit, or the model
            requires trust.
        """
        folder = model_folder(source, **hub_options(kwargs))
        kwargs.pop("savedir", None)
        if trust:
            model = cls._from_yaml(folder, overrides, **kwargs)
        else:
            unknown = kwargs.keys() - {"run_opts", "freeze_params"}
            if unknown:
                raise VAVLError(
                    f"{min(unknown)}: needs trust=True, which loads the "
                    "model's hyperparams.yaml; or leave it out"
                )
            modules, hparams = load_parts(folder, overrides)
            model = cls(modules, hparams, **kwargs)
        # With trust, a folder may have a YAML and no model.json.
        with contextlib.suppress(EncoderError):
            model.metadata = describe(folder)
        model.hparams.feature_extractor.to(model.device)
        return model

    def predict_file(
        self,
        path: str | Path | None,
        modality: str = "auto",
        audio_path: str | Path | None = None,
        audio_features: str | Path | None = None,
        visual_features: str | Path | None = None,
        speaker: Speaker | str | Path | None = None,
    ) -> Emotion:
        """Predicts the emotion of a clip.

        A clip longer than 30 s is split into chunks of 6 s, whose outputs are
        averaged (see :func:`vavl_sb.inference.prediction.mean_outputs`).

        Arguments
        ---------
        path : str or Path
            A file in any container, with audio, video or both; None if only
            features are given.
        modality : str
            "auto": the audio-visual head if the clip has both modalities,
            otherwise the head of the one it has. "audio", "visual" or
            "audiovisual": that head, or an error. If audio or video cannot be
            decoded and is not required, the other is used, with a warning.
        audio_path : str or Path
            A separate audio file; audio in ``path`` is then ignored.
        audio_features, visual_features : str or Path
            Features that replace audio or video, for a model that was trained
            on features: see :mod:`vavl_sb.utils.feature_files`.
        speaker : Speaker, str or Path
            For a model trained with speaker normalization: a Speaker from
            :meth:`enrol`, its file, or "self" to estimate the statistics from
            windows of the clip itself.

        Returns
        -------
        Emotion

        Raises
        ------
        MediaError
            The clip cannot be decoded, or lacks what ``modality`` needs.
        """
        analysis = self.analyze(
            path,
            modality,
            audio_path,
            window=None,
            crops=0,
            audio_features=audio_features,
            visual_features=visual_features,
            speaker=speaker,
        )
        assert analysis.emotion is not None  # analyze raises otherwise
        return analysis.emotion

    def timeline(
        self,
        path: str | Path,
        window: float = 3.0,
        hop: float = 1.0,
        modality: str = "auto",
        audio_path: str | Path | None = None,
        speaker: Speaker | str | Path | None = None,
    ) -> list[TimedEmotion]:
        """Predicts the emotion of a clip over time.

        Features are computed once, as in :meth:`predict_file`, and cut into
        windows. If audio frames are about as long as a window
        (``audio_frame_average``), the audio of each window is encoded alone.

        Arguments
        ---------
        path : str or Path
            As for :meth:`predict_file`.
        window, hop : float
            Length of a window (at most 30) and distance between the starts of
            two windows, in seconds. The last window ends with the clip.
        modality, audio_path, speaker
            As for :meth:`predict_file`, for each window.

        Returns
        -------
        list of TimedEmotion
        """
        options = (modality, audio_path, window, hop)
        return self.analyze(path, *options, crops=0, speaker=speaker).timeline

    @inference_method
    def analyze(
        self,
        path: str | Path | None,
        modality: str = "auto",
        audio_path: str | Path | None = None,
        window: float | None = 3.0,
        hop: float = 1.0,
        crops: int = 8,
        audio_features: str | Path | None = None,
        visual_features: str | Path | None = None,
        speaker: Speaker | str | Path | None = None,
    ) -> Analysis:
        """Computes prediction, timeline, face crops and timings of a clip, in
        one pass.

        Arguments
        ---------
        path, modality, audio_path
            As for :meth:`predict_file`.
        window, hop : float
            As for :meth:`timeline`; no timeline if ``window`` is None.
        crops : int
            Maximum number of face crops, evenly spaced over the clip.
        audio_features, visual_features, speaker
            As for :meth:`predict_file`.

        Returns
        -------
        Analysis

        Raises
        ------
        MediaError, VAVLError
            The clip cannot be used, or an argument is invalid.
        """
        check_modality(modality)
        wav, video, given = self._sources(
            path, audio_path, audio_features, visual_features
        )
        enrolled = self._load_speaker(speaker, (wav, video, given))
        options = (wav, video, given, modality, window, hop, crops, enrolled)
        try:
            analysis, present = self._one_pass(*options)
        except (MediaError, EncoderError) as error:
            analysis, present = self._analyze_intact_stream(error, *options)
        if analysis.emotion is None:
            name = path or audio_path or visual_features or audio_features
            raise MediaError(f"{name}: {self._why_none(modality, present)}")
        return analysis

    @inference_method
    def predict_batch(
        self,
        wavs: Values | None = None,
        wav_lens: Values | None = None,
        crops: Values | None = None,
        crop_lens: Values | None = None,
        modality: str = "auto",
        speaker: Speaker | str | Path | None = None,
    ) -> list[Emotion | None]:
        """Predicts the emotion of clips given as tensors.

        Each clip is encoded alone, as from a file, but not split into chunks.

        Arguments
        ---------
        wavs : array, tensor or list
            16 kHz mono, shape (B, n): floats in [-1, 1], or int16 or int32,
            which are scaled as in a file. A list may have rows of different
            lengths. None for no audio.
        wav_lens : array, tensor or list
            Relative lengths, shape (B,), 0 for a clip without audio; None for
            no padding.
        crops : array, tensor or list
            Face crops, uint8, RGB, shape (B, N, 3, H, W); None for none.
        crop_lens : array, tensor or list
            As ``wav_lens``.
        modality, speaker
            As for :meth:`predict_file`; the speaker applies to all clips.

        Returns
        -------
        list of (Emotion or None)
            None, with a warning, for a clip without a prediction, such as
            silence.
        """
        check_modality(modality)
        rows = unpad(wavs, wav_lens, crops, crop_lens)
        given = {"audio": wavs, "visual": crops}
        self._refuse_batch(modality, {m for m in given if given[m] is not None})
        extractor = self.hparams.feature_extractor

        def encode(row, name):
            return encode_tensors(extractor, *row, name)

        return self._predict_each(rows, encode, modality, speaker)

    @inference_method
    def predict_frames(
        self,
        frames: Values,
        frame_rate: float | None = None,
        modality: str = "visual",
        speaker: Speaker | str | Path | None = None,
    ) -> Emotion:
        """Predicts the emotion of one face from a sequence of crops.

        Arguments
        ---------
        frames : array, tensor or list
            uint8, RGB, shape (N, H, W, 3) or (N, 3, H, W), in order of time.
            They are cropped to a square and resized for the visual encoder;
            no face detector runs.
        frame_rate : float
            Frames a second, reduced to the frame rate of the model; None to
            use all frames.
        modality : str
            "visual" or "auto", which are the same here.
        speaker
            As for :meth:`predict_file`.

        Returns
        -------
        Emotion
        """
        check_modality(modality, ("auto", "visual"))
        extractor = self.hparams.feature_extractor
        size = extractor.face_tracker.size
        faces = prepare_frames(frames, frame_rate, extractor.frame_rate, size)
        features = encode_tensors(extractor, None, faces, "frames")
        enrolled = self._load_speaker(speaker)
        return self._predict(features, "frames", modality, enrolled)

    @inference_method
    def predict_features(
        self,
        audio: Values | None = None,
        visual: Values | None = None,
        audio_lens: Values | None = None,
        visual_lens: Values | None = None,
        modality: str = "auto",
        speaker: Speaker | str | Path | None = None,
    ) -> Emotion | list[Emotion | None]:
        """Predicts the emotion of clips from their features.

        Arguments
        ---------
        audio, visual : array, tensor or list
            Outputs of the model's encoders, or features like those that the
            model was trained on: floats of shape (T, D) for one clip, or
            (B, T, D) for a batch. None for a missing modality.
        audio_lens, visual_lens : array, tensor or list
            For a batch: relative lengths, shape (B,), 0 for a clip that lacks
            the modality; None for no padding.
        modality, speaker
            As for :meth:`predict_file`; the speaker applies to all clips.

        Returns
        -------
        Emotion or list of (Emotion or None)
            A list for a batch, with None and a warning for a clip that lacks
            what ``modality`` needs.

        Raises
        ------
        VAVLError
            The shape is wrong, values are not numbers, or a single clip lacks
            what ``modality`` needs.
        """
        check_modality(modality)
        clips, is_batch = unpad_features(
            self.hparams.feature_extractor,
            audio,
            audio_lens,
            visual,
            visual_lens,
        )
        if is_batch:
            options = (modality, speaker)
            return self._predict_each(clips, lambda clip, _: clip, *options)
        enrolled = self._load_speaker(speaker)
        return self._predict(clips[0], "features", modality, enrolled)

    @inference_method
    def embed_file(
        self,
        path: str | Path | None,
        audio_path: str | Path | None = None,
        audio_features: str | Path | None = None,
        visual_features: str | Path | None = None,
        speaker: Speaker | str | Path | None = None,
    ) -> dict[str, np.ndarray]:
        """Computes the embedding of each modality of a clip.

        For a clip longer than 30 s: the mean over chunks of 6 s.

        Arguments
        ---------
        path, audio_path, audio_features, visual_features, speaker
            As for :meth:`predict_file`.

        Returns
        -------
        dict
            "audio" and "visual", if the clip has them and that head was
            trained, to float32 of shape (d_model,).

        Raises
        ------
        MediaError
            The clip cannot be decoded, or has neither.
        """
        wav, video, given = self._sources(
            path, audio_path, audio_features, visual_features
        )
        enrolled = self._load_speaker(speaker, (wav, video, given))
        parts, extractor = [], self.hparams.feature_extractor
        for chunk in extractor.chunks(wav, video, given=given):
            out, embeddings = self._forward([chunk.features], enrolled), {}
            for modality in {*MODALITIES} & {*self.trained_heads}:
                rows = getattr(out, f"{modality}_embedding")
                if rows is not None:
                    embeddings[modality] = rows[0].float().cpu()
            parts.append((chunk.end - chunk.start, embeddings))
        means = mean_outputs(parts)
        if not means:
            name = path or audio_path or visual_features or audio_features
            raise MediaError(f"{name}: the network has no embedding for it")
        return {name: values.numpy() for name, values in means.items()}

    @torch.no_grad()
    def outputs(
        self, features: ClipFeatures, speaker: Speaker | None = None
    ) -> dict[str, torch.Tensor]:
        """Computes the output of each head for the features of a clip.

        Arguments
        ---------
        features : vavl_sb.features.extractor.ClipFeatures
            From the model's ``feature_extractor``, before pooling.
        speaker : Speaker
            From :meth:`enrol`; None for an unknown speaker.

        Returns
        -------
        dict
            Each trained head whose inputs the clip has ("audio", "visual",
            "audiovisual") to a float32 tensor on the CPU, shape (n,): logits
            divided by the temperature of the head, or attributes in the scale
            of the corpus.
        """
        return self.batch_outputs([features], speaker)[0]

    @torch.no_grad()
    def batch_outputs(
        self, clips: Sequence[ClipFeatures], speaker: Speaker | None = None
    ) -> list[dict[str, torch.Tensor]]:
        """Computes :meth:`outputs` for several clips of one speaker, in
        batches."""
        temperatures, limits = {}, None
        if self.hparams.task == "classification":
            temperatures = getattr(self.hparams, "temperatures", None) or {}
        else:
            limits = getattr(self.hparams, "attribute_range", None)
        scale = AttributeScale(limits)
        outputs: list[dict] = [{} for _ in clips]
        for start in range(0, len(clips), BATCH_SIZE):
            batch = slice(start, start + BATCH_SIZE)
            out = self._forward(clips[batch], speaker)
            for head in self.trained_heads:
                values = getattr(out, head)
                if values is None:
                    continue
                values = values.float().cpu() / temperatures.get(head, 1.0)
                rows = scale.to_corpus(values)
                for clip, by_head, row in zip(
                    clips[batch], outputs[batch], rows
                ):
                    if clip.modalities >= {*READS[head]}:
                        by_head[head] = row
        return outputs

    def forward(
        self,
        audio: torch.Tensor | None = None,
        audio_lens: torch.Tensor | None = None,
        visual: torch.Tensor | None = None,
        visual_lens: torch.Tensor | None = None,
    ) -> VAVLOutput:
        """Runs the network on features, as ``VAVL.forward``."""
        return self.mods.vavl(audio, audio_lens, visual, visual_lens)

    @property
    def trained_heads(self) -> tuple[str, ...]:
        """Heads that were trained."""
        trained = getattr(self.hparams, "trained_heads", None) or HEADS
        return tuple(head for head in HEADS if head in trained)

    @property
    def title(self) -> str:
        """Network class and corpus, for titles of figures."""
        corpus = getattr(self.hparams, "corpus", "an unknown corpus")
        return f"{type(self.mods.vavl).__name__}, trained on {corpus}"

    @classmethod
    def _from_yaml(cls, folder, overrides, **kwargs):
        """Loads a trusted model with SpeechBrain."""
        if "<" in str(folder):
            # HyperPyYAML would parse "<" as a reference to a key.
            with tempfile.TemporaryDirectory(prefix="vavl-") as link:
                link = Path(link) / "model"
                link.symlink_to(folder.absolute())
                return cls._from_yaml(link, overrides, **kwargs)
        overrides = {"pretrained_path": str(folder), **(overrides or {})}
        path = folder / kwargs.get("hparams_file", YAML)
        try:
            return super().from_hparams(
                source=str(folder), overrides=overrides, **kwargs
            )
        # Errors of a damaged YAML.
        except (OSError, YAMLError, KeyError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise EncoderError(
                f"{path}: no model can be loaded from it "
                f"({type(error).__name__}: {reason}); export it again"
            ) from error

    def _sources(
        self,
        path=None,
        audio_path=None,
        audio_features=None,
        visual_features=None,
    ):
        """Returns the audio file, the video file, and the given features."""
        extractor, given = self.hparams.feature_extractor, ClipFeatures()
        references = {"audio": audio_features, "visual": visual_features}
        for modality, reference in references.items():
            if reference is None:
                continue
            if not extractor.takes_features(modality):
                raise MediaError(
                    f"{reference}: the model takes {WORDS[modality]}, not "
                    f"{modality} features; give a clip"
                )
            frames = extractor.read_features(modality, reference)
            setattr(given, modality, frames)
        video = None if path is None else str(path)
        wav = video if audio_path is None else str(audio_path)
        for file in filter(None, (video, wav)):
            check_file(file)
        # Streams replaced by features, or read by no head, are not decoded.
        if given.audio is not None or not self._reads("audio"):
            wav = None
        if given.visual is not None or not self._reads("visual"):
            video = None
        return wav, video, given

    def _one_pass(
        self, wav, video, given, modality, window, hop, crops, speaker
    ):
        """Returns the Analysis (its emotion None without a prediction) and the
        modalities of the clip."""
        extractor, watch = self.hparams.feature_extractor, Stopwatch()
        sample = CropSample(crops) if crops > 0 else None
        windows = None
        if window is not None:
            windows = SlidingWindows(window, hop, extractor, watch)
        parts, timeline, present, infos = [], [], set(), {}
        analysis = Analysis(None, 0.0, timeline)

        def weighted(start, end, features):
            """Returns duration in seconds and outputs by head."""
            with watch("heads"):
                return end - start, self.outputs(features, speaker)

        on_crops = sample.add if sample else None
        for chunk in extractor.chunks(
            wav, video, watch, on_crops, given, infos
        ):
            present |= chunk.features.modalities
            parts.append(weighted(chunk.start, chunk.end, chunk.features))
            for span in windows.add(chunk) if windows else ():
                emotion = self._to_emotion([weighted(*span)], modality)
                timeline.append(TimedEmotion(*span[:2], emotion))
            analysis.duration = chunk.end
        analysis.emotion = self._to_emotion(parts, modality)
        if analysis.emotion is not None:
            head = analysis.emotion.modality
            used, left_out = used_and_left_out(
                infos, sorted(given.modalities), head, present
            )
            if speaker is not None and {*READS[head]} & {*speaker.statistics}:
                used.append(
                    f"statistics of {speaker.clips} clips of the speaker"
                )
            analysis.emotion.used, analysis.emotion.left_out = used, left_out
        analysis.crops = sample.chosen() if sample else []
        analysis.profile = {s: watch.seconds.get(s, 0.0) for s in STAGES}
        return analysis, present

    def _analyze_intact_stream(
        self, error, wav, video, given, modality, *options
    ):
        """Analyzes audio or video alone, if the other one raised ``error``."""
        if modality == "audiovisual":
            raise error
        good, faults = {}, {}
        for name, files in (("audio", (wav, None)), ("visual", (None, video))):
            alone = ClipFeatures(**{name: getattr(given, name)})
            try:
                good[name] = self._one_pass(*files, alone, modality, *options)
            except (MediaError, EncoderError) as fault:
                faults[name] = fault
        if modality in faults:
            raise faults[modality]
        if len(faults) != 1 or any(a.emotion is None for a, _ in good.values()):
            raise error
        ((lost, reason),) = faults.items()
        logger.warning(
            "%s: predicting without its %s (%s)",
            video or wav,
            WORDS[lost],
            reason,
        )
        ((analysis, present),) = good.values()
        analysis.emotion.left_out.append(f"{WORDS[lost]}: {reason.text}")
        return analysis, present

    def _predict_each(self, clips, encode, modality, speaker):
        """Returns an Emotion, or None with a warning, for each clip of a batch;
        ``encode(clip, name)`` returns its features."""
        enrolled = self._load_speaker(speaker)
        emotions = []
        for number, clip in enumerate(clips):
            name = f"clip {number} of the batch"
            try:
                features = encode(clip, name)
                emotion = self._predict(features, name, modality, enrolled)
            except MediaError as reason:
                emotion = None
                logger.warning("%s; its prediction is None", reason)
            emotions.append(emotion)
        return emotions

    def _predict(self, features, name, modality, speaker):
        """Predicts from the features of a clip, without chunks."""
        outputs = self.outputs(features, speaker)
        emotion = self._to_emotion([(1.0, outputs)], modality)
        if emotion is None:
            reason = self._why_none(modality, features.modalities)
            raise MediaError(f"{name}: {reason}")
        return emotion

    def _to_emotion(self, parts, modality):
        """Returns the Emotion for (seconds, outputs) of chunks, or None."""
        head = select_head(parts, modality)
        if head is None:
            return None
        task, labels = self.hparams.task, self.hparams.labels
        return to_prediction(head, mean_outputs(parts), task, labels)

    @torch.no_grad()
    def _forward(self, clips, speaker=None):
        """Runs the network on the features of clips."""
        extractor, inputs = self.hparams.feature_extractor, {}
        pooled = [extractor.pool(features) for features in clips]
        for name in MODALITIES:
            rows = [getattr(features, name) for features in pooled]
            if all(row is None for row in rows):
                continue
            no_frames = torch.zeros(0, extractor.dim(name))
            frames, lens = pad_frames(
                [
                    no_frames if row is None else torch.from_numpy(row).float()
                    for row in rows
                ]
            )
            frames, lens = frames.to(self.device), lens.to(self.device)
            if speaker is not None and name in speaker.statistics:
                statistics = speaker.statistics[name].to(self.device)
                normalize = self.mods.speaker_normalizer
                frames = normalize(name, frames, statistics, lens)
            inputs[name], inputs[f"{name}_lens"] = frames, lens
        with self.inference_ctx:
            return self.mods.vavl(**inputs) if inputs else VAVLOutput()

    def _refuse_batch(self, modality, given):
        """Raises if no clip of the batch can have a prediction."""
        takes_features = self.hparams.feature_extractor.takes_features
        for name in given:
            if takes_features(name) and self._reads(name):
                raise MediaError(f"predict_batch: {needs_features(name)}")
        heads = [h for h in self.trained_heads if h in given]
        if given == {*MODALITIES}:
            heads = self.trained_heads
        if not heads or modality not in ("auto", *heads):
            reason = self._why_none(modality, given)
            raise MediaError(f"predict_batch: {reason}")

    def _why_none(self, modality, present):
        """Explains why no head has a prediction for a clip with modalities
        ``present``."""
        needed = READS["audiovisual" if modality == "auto" else modality]
        if modality == "auto" and present:
            needed = ()
        for name in needed:
            # Exports omit the encoder of a modality that no head reads.
            missing = name not in present and self._reads(name)
            if missing and self.hparams.feature_extractor.takes_features(name):
                return needs_features(name)
        return why_no_head(modality, present, self.trained_heads)

    def _reads(self, modality):
        """Whether a trained head reads a modality."""
        return any(modality in READS[head] for head in self.trained_heads)
