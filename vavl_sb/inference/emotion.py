"""EmotionRecognizer: a clip in, an emotion out.

Every way to ask a model about a file goes once over it: files to features
(:mod:`vavl_sb.features.extractor`), features to the network's outputs, and
these to a prediction (:mod:`vavl_sb.inference.prediction`), in memory that does
not grow with the clip.
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
from vavl_sb.inference.loading import load_parts, read_weights
from vavl_sb.inference.prediction import (
    Analysis,
    Emotion,
    TimedEmotion,
    account,
    check_modality,
    mean_outputs,
    select_head,
    to_prediction,
    why_no_head,
)
from vavl_sb.inference.sliding_windows import CropSample, SlidingWindows
from vavl_sb.inference.speakers import Speaker, SpeakerEnrolment
from vavl_sb.inference.surroundings import (
    own_precision,
    refuse_after_fork,
    undisturbed,
)
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
BLOCK = 32  # Clips that go through the network together


class EmotionRecognizer(SpeakerEnrolment, Pretrained):
    """A trained VAVL model with its encoders, ready for clips.

    Make one with :meth:`from_hparams`.

    Example
    -------
    >>> source = "results/demo/inference"
    >>> model = EmotionRecognizer.from_hparams(source)  # doctest: +SKIP
    >>> model.predict_file("clip.mp4").label  # doctest: +SKIP
    'happy'
    """

    HPARAMS_NEEDED = ["task", "labels", "feature_extractor"]
    MODULES_NEEDED = ["vavl"]
    # What it is and was trained on (training.model_card.describe), if known.
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
            False: the model is data. Its objects are made by vavl_sb from
            model.json, its tensors are safetensors, and nothing outside of
            its folder is read. True: its hyperparams.yaml is loaded by
            SpeechBrain's ``Pretrained``, which runs whatever it names, such
            as an encoder of your own.
        overrides : dict
            Values in place of the model's: of model.json (see
            :func:`vavl_sb.inference.loading.load_parts`) or, with trust, of
            hyperparams.yaml.
        **kwargs
            ``run_opts``; for a hub id also ``revision``, ``token``,
            ``local_files_only`` and ``fetch_config``; with trust, what
            ``Pretrained.from_hparams`` takes. ``savedir`` has no effect:
            models stand in the hub's own cache.

        Returns
        -------
        EmotionRecognizer

        Raises
        ------
        EncoderError
            The folder does not hold a model, its weights do not fit, or it
            asks for trust.
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
        with contextlib.suppress(EncoderError):  # A trusted YAML may be alone.
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

        A clip of more than 30 s is taken in chunks of 6 s, and the prediction
        is the mean of theirs (see :mod:`vavl_sb.inference.prediction`).

        Arguments
        ---------
        path : str or Path
            Any container with sound, picture or both; None where features
            are all there is.
        modality : str
            "auto": both where the clip has both, otherwise what it has;
            "audio", "visual", "audiovisual": that head, or an error. Where
            only one of sound and picture can be read, and the other is not
            asked for, a warning says what was lost.
        audio_path : str or Path
            Sound that stands in a file of its own; then the sound in
            ``path`` is not used.
        audio_features, visual_features : str or Path
            Features in place of sound or picture, for a model that was trained
            on such: see :mod:`vavl_sb.utils.feature_files`.
        speaker : Speaker, str or Path
            Who speaks, for a model that was trained with speaker
            normalization: from :meth:`enrol`, the file of one, or "self" for
            what windows of the clip itself tell.

        Returns
        -------
        Emotion

        Raises
        ------
        MediaError
            The clip cannot be decoded, or lacks what ``modality`` needs.
        """
        found = self.analyze(
            path,
            modality,
            audio_path,
            window=None,
            crops=0,
            audio_features=audio_features,
            visual_features=visual_features,
            speaker=speaker,
        )
        assert found.emotion is not None  # analyze refuses such a clip
        return found.emotion

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

        Features are computed once, as for :meth:`predict_file`; each window
        takes those of its own time. A model whose audio frames are about as
        long as a window (``audio_frame_average``) encodes each by itself.

        Arguments
        ---------
        path : str or Path
            As for :meth:`predict_file`.
        window, hop : float
            Seconds of a window (30 at most), and from the start of one to the
            start of the next. The last window ends with the clip.
        modality, audio_path, speaker
            As for :meth:`predict_file`, for each window.

        Returns
        -------
        list of TimedEmotion
        """
        options = (modality, audio_path, window, hop)
        return self.analyze(path, *options, crops=0, speaker=speaker).timeline

    @undisturbed
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
        """Emotion, timeline, face crops and times of a clip, in one pass.

        Arguments
        ---------
        path, modality, audio_path
            As for :meth:`predict_file`.
        window, hop : float
            As for :meth:`timeline`; a window of None gives none.
        crops : int
            At most so many face crops, evenly over the clip.
        audio_features, visual_features, speaker
            As for :meth:`predict_file`.

        Returns
        -------
        Analysis

        Raises
        ------
        MediaError, VAVLError
            In one line: what is wrong with the clip or with the arguments.
        """
        check_modality(modality)
        wav, video, given = self._sources(
            path, audio_path, audio_features, visual_features
        )
        known = self._known_speaker(speaker, (wav, video, given))
        options = (wav, video, given, modality, window, hop, crops, known)
        try:
            found, has = self._one_pass(*options)
        except (MediaError, EncoderError) as error:
            found, has = self._without_the_fault(error, *options)
        if found.emotion is None:
            name = path or audio_path or visual_features or audio_features
            raise MediaError(f"{name}: {self._why_none(modality, has)}")
        return found

    @undisturbed
    def predict_batch(
        self,
        wavs: Values | None = None,
        wav_lens: Values | None = None,
        crops: Values | None = None,
        crop_lens: Values | None = None,
        modality: str = "auto",
        speaker: Speaker | str | Path | None = None,
    ) -> list[Emotion | None]:
        """Predicts the emotion of clips that are tensors already.

        Each clip is encoded by itself, as from a file, and is taken whole.

        Arguments
        ---------
        wavs : array, tensor or list
            16 kHz mono, shape (B, n): floats in [-1, 1], or int16 or int32,
            which are scaled as those of a file are. A list may have rows of
            different lengths. None for no sound.
        wav_lens : array, tensor or list
            Lengths relative to each row's, shape (B,), 0 for a clip without
            sound; None if all clips fill it.
        crops : array, tensor or list
            Face crops, uint8, RGB, shape (B, N, 3, H, W); None for none.
        crop_lens : array, tensor or list
            As ``wav_lens``.
        modality, speaker
            As for :meth:`predict_file`; all clips are of that speaker.

        Returns
        -------
        list of (Emotion or None)
            None for a clip without an answer, such as silence; a warning says
            why. The others stand.
        """
        check_modality(modality)
        rows = unpad(wavs, wav_lens, crops, crop_lens)
        given = {"audio": wavs, "visual": crops}
        self._refuse_batch(modality, {m for m in given if given[m] is not None})
        extractor = self.hparams.feature_extractor

        def encode(row, name):
            return encode_tensors(extractor, *row, name)

        return self._predict_each(rows, encode, modality, speaker)

    @undisturbed
    def predict_frames(
        self,
        frames: Values,
        frame_rate: float | None = None,
        modality: str = "visual",
        speaker: Speaker | str | Path | None = None,
    ) -> Emotion:
        """Predicts the emotion of a face from a sequence of its crops.

        Arguments
        ---------
        frames : array, tensor or list
            uint8, RGB, shape (N, H, W, 3), or (N, 3, H, W): pictures of one
            face in order of time. They are cut to a square and resized to what
            the visual encoder was trained on; no face is looked for in them.
        frame_rate : float
            Frames a second; those that are more than the model takes are left
            out. None: all are taken.
        modality : str
            "visual" or "auto", which is the same here.
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
        known = self._known_speaker(speaker)
        return self._predict(features, "frames", modality, known)

    @undisturbed
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
            Frames as the model's encoders give them, or, for a model that was
            trained on features, as those: floats of shape (T, D) of a clip,
            or (B, T, D) of several. None for a modality that they lack.
        audio_lens, visual_lens : array, tensor or list
            Of several clips: lengths relative to T, shape (B,), 0 for a clip
            that lacks the modality; None if all clips fill it.
        modality, speaker
            As for :meth:`predict_file`; all clips are of that speaker.

        Returns
        -------
        Emotion or list of (Emotion or None)
            A list for several clips, with None for one that lacks what
            ``modality`` needs; a warning says so.

        Raises
        ------
        VAVLError
            In one line: they have another shape, are no numbers, or the one
            clip lacks what ``modality`` needs.
        """
        check_modality(modality)
        clips, several = unpad_features(
            self.hparams.feature_extractor,
            *(audio, audio_lens, visual, visual_lens),
        )
        if several:
            options = (modality, speaker)
            return self._predict_each(clips, lambda clip, _: clip, *options)
        known = self._known_speaker(speaker)
        return self._predict(clips[0], "features", modality, known)

    @undisturbed
    def embed_file(
        self,
        path: str | Path | None,
        audio_path: str | Path | None = None,
        audio_features: str | Path | None = None,
        visual_features: str | Path | None = None,
        speaker: Speaker | str | Path | None = None,
    ) -> dict[str, np.ndarray]:
        """The network's representation of a clip, by modality.

        Of a clip of more than 30 s it is the mean over chunks of 6 s.

        Arguments
        ---------
        path, audio_path, audio_features, visual_features, speaker
            As for :meth:`predict_file`.

        Returns
        -------
        dict
            "audio" and "visual", as far as the clip has them and the network
            was trained on them, to float32 of shape (d_model,).

        Raises
        ------
        MediaError
            The clip cannot be decoded, or has nothing of this.
        """
        wav, video, given = self._sources(
            path, audio_path, audio_features, visual_features
        )
        known = self._known_speaker(speaker, (wav, video, given))
        parts, extractor = [], self.hparams.feature_extractor
        for chunk in extractor.chunks(wav, video, given=given):
            out, found = self._forward([chunk.features], known), {}
            for name in {*MODALITIES} & {*self.trained_heads}:
                rows = getattr(out, f"{name}_embedding")
                if rows is not None:
                    found[name] = rows[0].float().cpu()
            parts.append((chunk.end - chunk.start, found))
        means = mean_outputs(parts)
        if not means:
            name = path or audio_path or visual_features or audio_features
            raise MediaError(f"{name}: the network has no representation of it")
        return {name: values.numpy() for name, values in means.items()}

    @torch.no_grad()
    def outputs(
        self, features: ClipFeatures, speaker: Speaker | None = None
    ) -> dict[str, torch.Tensor]:
        """The numbers that each head gives for a clip's features.

        Arguments
        ---------
        features : vavl_sb.features.extractor.ClipFeatures
            From the model's own ``feature_extractor``, not pooled yet.
        speaker : Speaker
            From :meth:`enrol`; None where nothing is known of the speaker.

        Returns
        -------
        dict
            Each head that the clip allows and that was trained ("audio",
            "visual", "audiovisual") to a float32 tensor on the CPU, shape
            (n,): logits for classes, divided by the head's temperature;
            attributes in the corpus's own scale.
        """
        return self.batch_outputs([features], speaker)[0]

    @torch.no_grad()
    def batch_outputs(
        self, clips: Sequence[ClipFeatures], speaker: Speaker | None = None
    ) -> list[dict[str, torch.Tensor]]:
        """The same for several clips of one speaker, a block at a time."""
        temperatures, limits = {}, None
        if self.hparams.task == "classification":
            temperatures = getattr(self.hparams, "temperatures", None) or {}
        else:
            limits = getattr(self.hparams, "attribute_range", None)
        scale = AttributeScale(limits)
        found: list[dict] = [{} for _ in clips]
        for start in range(0, len(clips), BLOCK):
            block = slice(start, start + BLOCK)
            out = self._forward(clips[block], speaker)
            for head in self.trained_heads:
                values = getattr(out, head)
                if values is None:
                    continue
                values = values.float().cpu() / temperatures.get(head, 1.0)
                rows = scale.to_corpus(values)
                for clip, said, row in zip(clips[block], found[block], rows):
                    if clip.modalities >= {*READS[head]}:
                        said[head] = row
        return found

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
        """Heads that have learned."""
        trained = getattr(self.hparams, "trained_heads", None) or HEADS
        return tuple(head for head in HEADS if head in trained)

    @property
    def title(self) -> str:
        """The network's class and its corpus, as figures say them."""
        corpus = getattr(self.hparams, "corpus", "a corpus that is not known")
        return f"{type(self.mods.vavl).__name__}, trained on {corpus}"

    @classmethod
    def _from_yaml(cls, folder, overrides, **kwargs):
        """A model that is trusted, as SpeechBrain loads it."""
        if "<" in str(folder):
            # HyperPyYAML takes such a name for a reference to a key.
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
        # Whatever stands in a damaged YAML; what it makes raises its own.
        except (
            OSError,
            YAMLError,
            KeyError,
            ValueError,
            TypeError,
        ) as error:
            reason = " ".join(str(error).split())[:200]
            raise EncoderError(
                f"{path}: no model can be made from it "
                f"({type(error).__name__}: {reason}); export it again"
            ) from error

    def _sources(
        self,
        path=None,
        audio_path=None,
        audio_features=None,
        visual_features=None,
    ):
        """Files of sound and picture, and ClipFeatures of what is given."""
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
        # What is given as features is not looked for in the clip, nor is what
        # no head reads.
        if given.audio is not None or not self._reads("audio"):
            wav = None
        if given.visual is not None or not self._reads("visual"):
            video = None
        return wav, video, given

    def _one_pass(
        self, wav, video, given, modality, window, hop, crops, speaker
    ):
        """(Analysis, what the clip has); no emotion where no head has one."""
        extractor, watch = self.hparams.feature_extractor, Stopwatch()
        sample = CropSample(crops) if crops > 0 else None
        windows = None
        if window is not None:
            windows = SlidingWindows(window, hop, extractor, watch)
        parts, timeline, has, infos = [], [], set(), {}
        found = Analysis(None, 0.0, timeline)

        def weighted(start, end, features):
            """Seconds of a stretch, and the heads' outputs on it."""
            with watch("heads"):
                return end - start, self.outputs(features, speaker)

        on_crops = sample.add if sample else None
        for chunk in extractor.chunks(
            wav, video, watch, on_crops, given, infos
        ):
            has |= chunk.features.modalities
            parts.append(weighted(chunk.start, chunk.end, chunk.features))
            for span in windows.add(chunk) if windows else ():
                emotion = self._to_emotion([weighted(*span)], modality)
                timeline.append(TimedEmotion(*span[:2], emotion))
            found.duration = chunk.end
        found.emotion = self._to_emotion(parts, modality)
        if found.emotion is not None:
            head = found.emotion.modality
            used, left_out = account(
                *(infos, sorted(given.modalities), head, has)
            )
            if speaker is not None and {*READS[head]} & {*speaker.statistics}:
                used.append(
                    f"statistics of {speaker.clips} clips of the speaker"
                )
            found.emotion.used, found.emotion.left_out = used, left_out
        found.crops = sample.chosen() if sample else []
        found.profile = {s: watch.seconds.get(s, 0.0) for s in STAGES}
        return found, has

    def _without_the_fault(self, error, wav, video, given, modality, *options):
        """A pass over the one stream that is whole, where that is enough."""
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
        if len(faults) != 1 or any(f.emotion is None for f, _ in good.values()):
            raise error
        ((lost, why),) = faults.items()
        logger.warning(
            "%s: answering without its %s (%s)",
            *(video or wav, WORDS[lost], why),
        )
        ((found, has),) = good.values()
        found.emotion.left_out.append(f"{WORDS[lost]}: {why.text}")
        return found, has

    def _predict_each(self, clips, encode, modality, speaker):
        """An Emotion for each clip of a batch, or None with a warning.

        ``encode`` gives features of a clip and of its name, for an error.
        """
        known = self._known_speaker(speaker)
        found = []
        for number, clip in enumerate(clips):
            name = f"clip {number} of the batch"
            try:
                features = encode(clip, name)
                emotion = self._predict(features, name, modality, known)
            except MediaError as reason:
                emotion = None
                logger.warning("%s; its answer is None", reason)
            found.append(emotion)
        return found

    def _predict(self, features, name, modality, speaker):
        """The emotion of a clip's features, which are taken whole."""
        outputs = self.outputs(features, speaker)
        emotion = self._to_emotion([(1.0, outputs)], modality)
        if emotion is None:
            why = self._why_none(modality, features.modalities)
            raise MediaError(f"{name}: {why}")
        return emotion

    def _to_emotion(self, parts, modality):
        """The Emotion of (seconds, outputs) of chunks, or None."""
        head = select_head(parts, modality)
        if head is None:
            return None
        task, labels = self.hparams.task, self.hparams.labels
        return to_prediction(head, mean_outputs(parts), task, labels)

    @torch.no_grad()
    def _forward(self, clips, speaker=None):
        """What the network says about clips' features."""
        extractor, inputs = self.hparams.feature_extractor, {}
        pooled = [extractor.pool(features) for features in clips]
        for name in MODALITIES:
            rows = [getattr(features, name) for features in pooled]
            if all(row is None for row in rows):
                continue
            nothing = torch.zeros(0, extractor.dim(name))
            frames, lens = pad_frames(
                [
                    nothing if row is None else torch.from_numpy(row).float()
                    for row in rows
                ]
            )
            frames, lens = frames.to(self.device), lens.to(self.device)
            if speaker is not None and name in speaker.statistics:
                known = speaker.statistics[name].to(self.device)
                normalize = self.mods.speaker_normalizer
                frames = normalize(name, frames, known, lens)
            inputs[name], inputs[f"{name}_lens"] = frames, lens
        with self.inference_ctx:
            return self.mods.vavl(**inputs) if inputs else VAVLOutput()

    def _refuse_batch(self, modality, given):
        """Refuses to predict where no clip can have an answer."""
        takes_features = self.hparams.feature_extractor.takes_features
        for name in given:
            if takes_features(name) and self._reads(name):
                raise MediaError(f"predict_batch: {needs_features(name)}")
        heads = [h for h in self.trained_heads if h in given]
        if given == {*MODALITIES}:
            heads = self.trained_heads
        if not heads or modality not in ("auto", *heads):
            why = self._why_none(modality, given)
            raise MediaError(f"predict_batch: {why}")

    def _why_none(self, modality, has):
        """Why no head has a prediction for a clip that has so much."""
        needed = READS["audiovisual" if modality == "auto" else modality]
        if modality == "auto" and has:
            needed = ()
        for name in needed:
            # Of what no head reads, an export leaves the encoder out.
            lacks = name not in has and self._reads(name)
            if lacks and self.hparams.feature_extractor.takes_features(name):
                return needs_features(name)
        return why_no_head(modality, has, self.trained_heads)

    def _reads(self, modality):
        """Whether a trained head reads a modality."""
        return any(modality in READS[head] for head in self.trained_heads)
