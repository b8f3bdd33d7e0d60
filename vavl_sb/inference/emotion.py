"""EmotionRecognizer: a clip in, an emotion out.

Every way to ask a model about a file goes once over it: files to features
(:mod:`vavl_sb.features.extractor`), features to the network's outputs, and
these to a prediction (:mod:`vavl_sb.inference.prediction`), in memory that does
not grow with the clip.
"""

import contextlib
import functools
import itertools
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
from vavl_sb.inference.speakers import (
    Speaker,
    best_head,
    estimate_speaker,
    one_sided,
)
from vavl_sb.inference.surroundings import (
    own_precision,
    refuse_after_fork,
    undisturbed,
)
from vavl_sb.lobes.feature_encoder import hash_state
from vavl_sb.lobes.vavl import HEADS, MODALITIES, VAVLOutput
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


class EmotionRecognizer(Pretrained):
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
    about: dict | None = None

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
            model.about = describe(folder)
        model.hparams.feature_extractor.to(model.device)
        return model

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
            *(path, audio_path, audio_features, visual_features)
        )
        name = str(path or audio_path or visual_features or audio_features)
        known = self._known_speaker(speaker, (wav, video, given))
        options = (modality, window, hop, crops, known)
        try:
            found, has = self._one_pass(wav, video, given, *options)
        except (MediaError, EncoderError) as error:
            found, has = self._without_the_fault(
                error, wav, video, given, *options
            )
        if found.emotion is None:
            raise MediaError(f"{name}: {self._why_none(modality, has)}")
        if known is not None and found.emotion.used is not None:
            head = found.emotion.modality
            read = MODALITIES if head == "audiovisual" else (head,)
            if {*read} & {*known.statistics}:
                said = f"statistics of {known.clips} clips of the speaker"
                found.emotion.used.append(said)
        return found

    def _sources(
        self,
        path=None,
        audio_path=None,
        audio_features=None,
        visual_features=None,
    ):
        """Files of sound and picture, and what is given as features."""
        references = {"audio": audio_features, "visual": visual_features}
        given = self._read_features(references)
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

    def _read_features(self, references):
        """ClipFeatures of what is given in files, by modality."""
        extractor, found = self.hparams.feature_extractor, ClipFeatures()
        for modality, reference in references.items():
            if reference is None:
                continue
            if not extractor.takes_features(modality):
                raise MediaError(
                    f"{reference}: the model takes {WORDS[modality]}, not "
                    f"{modality} features; give a clip"
                )
            frames = extractor.read_features(modality, reference)
            setattr(found, modality, frames)
        return found

    def _why_none(self, modality, has):
        """Why no head has a prediction for a clip that has so much."""
        needed = set(MODALITIES) if modality == "audiovisual" else {modality}
        if modality == "auto":
            needed = set(MODALITIES) if not has else set()
        for name in MODALITIES:
            # Of what no head reads, an export leaves the encoder out.
            lacks = name in needed - has and self._reads(name)
            if lacks and self.hparams.feature_extractor.takes_features(name):
                return needs_features(name)
        return why_no_head(modality, has, self.trained_heads)

    def _reads(self, modality):
        """Whether a trained head reads a modality."""
        return bool({modality, "audiovisual"} & {*self.trained_heads})

    def _one_pass(
        self, wav, video, given, modality, window, hop, crops, speaker
    ):
        """(Analysis, what the clip has); no emotion where no head has one."""
        extractor, watch = self.hparams.feature_extractor, Stopwatch()
        sample = CropSample(crops) if crops > 0 else None
        windows = None
        if window is not None:
            windows = SlidingWindows(window, hop, extractor, watch)
        parts, timeline, has, duration = [], [], set(), 0.0
        on_crops = sample.add if sample else None
        infos: dict = {}
        for chunk in extractor.chunks(
            wav, video, watch, on_crops, given, infos
        ):
            has |= _modalities(chunk.features)
            with watch("heads"):
                outputs = self.outputs(chunk.features, speaker)
            parts.append((chunk.end - chunk.start, outputs))
            for start, end, features in windows.add(chunk) if windows else ():
                with watch("heads"):
                    part = (end - start, self.outputs(features, speaker))
                emotion = self._to_emotion([part], modality)
                timeline.append(TimedEmotion(start, end, emotion))
            duration = chunk.end
        emotion = self._to_emotion(parts, modality)
        if emotion is not None:
            names = [
                n for n, frames in vars(given).items() if frames is not None
            ]
            found = account(infos, names, emotion.modality, has)
            emotion.used, emotion.left_out = found
        return Analysis(
            emotion=emotion,
            duration=duration,
            timeline=timeline,
            crops=sample.chosen() if sample else [],
            profile={s: watch.seconds.get(s, 0.0) for s in STAGES},
        ), has

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

    def _to_emotion(self, parts, modality):
        """The Emotion of (seconds, outputs) of chunks, or None."""
        head = select_head(parts, modality)
        if head is None:
            return None
        task, labels = self.hparams.task, self.hparams.labels
        return to_prediction(head, mean_outputs(parts), task, labels)

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
        found: list[Emotion | None] = []
        options = (modality, self._known_speaker(speaker))
        for number, (samples, faces) in enumerate(rows):
            name = f"clip {number} of the batch"
            try:
                emotion = self._predict_tensors(samples, faces, name, *options)
                found.append(emotion)
            except MediaError as reason:
                found.append(_no_answer(reason))
        return found

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
        known = self._known_speaker(speaker)
        return self._predict_tensors(None, faces, "frames", modality, known)

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
        clips, several = unpad_features(audio, audio_lens, visual, visual_lens)
        found: list[Emotion | None] = []
        known = self._known_speaker(speaker)
        for number, clip in enumerate(clips):
            name = f"clip {number} of the batch" if several else "features"
            features = ClipFeatures()
            for kind, frames in clip.items():
                if frames is not None:
                    read = self.hparams.feature_extractor.read_features
                    setattr(features, kind, read(kind, frames, name))
            try:
                found.append(self._predict(features, name, modality, known))
            except MediaError as reason:
                if not several:
                    raise
                found.append(_no_answer(reason))
        return found if several else found[0]  # type: ignore[return-value]

    def _predict_tensors(self, samples, faces, name, modality, speaker):
        """The emotion of a clip's samples and face crops."""
        extractor = self.hparams.feature_extractor
        features = encode_tensors(extractor, samples, faces, name)
        return self._predict(features, name, modality, speaker)

    def _predict(self, features, name, modality, speaker):
        """The emotion of a clip's features, which are taken whole."""
        outputs = self.outputs(features, speaker)
        emotion = self._to_emotion([(1.0, outputs)], modality)
        if emotion is None:
            why = self._why_none(modality, _modalities(features))
            raise MediaError(f"{name}: {why}")
        return emotion

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

    @undisturbed
    def enrol(self, clips: Sequence[str | Path | dict]) -> Speaker:
        """What clips tell of their speaker; they need no labels.

        Arguments
        ---------
        clips : sequence of str, Path or dict
            Clips of one speaker, of any emotion: the more the better, and five
            at least to be of use. A dict has arguments of
            :meth:`predict_file`: ``path``, ``audio_path``, ``audio_features``
            and ``visual_features``. A clip that cannot be used is left out
            with a warning. Of a clip of more than 30 s every chunk of 6 s
            counts. The features of all clips are held in memory.

        Returns
        -------
        Speaker
            For this model's ``predict_file(..., speaker=...)``. The order of
            the clips does not matter.

        Raises
        ------
        MediaError, VAVLError
            In one line: no clip can be used, or the model was trained without
            speaker normalization.
        """
        self.refuse_speaker()
        if isinstance(clips, (str, Path, dict)):
            clips = [clips]
        found, left_out = [], []
        for clip in clips:
            try:
                found += self.clip_features(clip)
            except (MediaError, EncoderError) as error:
                logger.warning("%s; left out of the enrolment", error)
                left_out.append(error.text)
        speaker = self.enrol_features(found)
        speaker.left_out = left_out
        return speaker

    def _parts(self, wav, video, given, windows=False, most=None):
        """Features of a clip's chunks, ``most`` of them, or of its windows of
        3 s; of one stream where the other one is broken."""
        extractor = self.hparams.feature_extractor

        def read(wav, video, given):
            chunks = extractor.chunks(wav, video, Stopwatch(), None, given)
            chunks = itertools.islice(chunks, most)
            if windows:
                cut = SlidingWindows(3.0, 3.0, extractor, Stopwatch())
                parts = [f for chunk in chunks for *_, f in cut.add(chunk)]
            else:
                parts = [chunk.features for chunk in chunks]
            return [part for part in parts if _modalities(part)]

        try:
            return read(wav, video, given)
        except (MediaError, EncoderError):
            found = []
            for one in ((wav, None), (None, video)):
                with contextlib.suppress(MediaError, EncoderError):
                    found += read(*one, given)
            if not found:
                raise
            return found

    @undisturbed
    def clip_features(
        self, clip: str | Path | dict, most: int | None = None
    ) -> list[ClipFeatures]:
        """Features of a clip, as :meth:`enrol_features` takes them.

        Arguments
        ---------
        clip : str, Path or dict
            As of :meth:`enrol`.
        most : int
            Of a clip of more than 30 s, read so many chunks of 6 s and no
            more.

        Returns
        -------
        list of ClipFeatures
            Of the whole clip, or of each chunk; one at least.

        Raises
        ------
        MediaError, EncoderError
            In one line: the clip cannot be used.
        """
        given = clip if isinstance(clip, dict) else {"path": clip}
        wav, video, features = self._sources(**given)
        parts = self._parts(wav, video, features, most=most)
        if not parts:
            name = next(filter(None, given.values()), "clip")
            raise MediaError(f"{name}: {why_no_head('auto', set(), ())}")
        return parts

    @torch.no_grad()
    def enrol_features(
        self, clips: Sequence[ClipFeatures], warn: bool = True
    ) -> Speaker:
        """As :meth:`enrol`, from clips' features, not pooled yet.

        ``warn``: whether to say where they show few emotions.
        """
        self.refuse_speaker()
        # What no head reads would tell of the person, and be of no use.
        read = {m: self._reads(m) for m in MODALITIES}
        clips = [
            ClipFeatures(
                audio=clip.audio if read["audio"] else None,
                visual=clip.visual if read["visual"] else None,
            )
            for clip in clips
        ]
        classes = self.hparams.task == "classification"

        def predict(speaker):
            found = self.batch_outputs(clips, speaker)
            values = torch.stack([best_head(outputs) for outputs in found])
            return torch.softmax(values, dim=-1) if classes else values

        outputs = self.batch_outputs(clips)
        clips = [clip for clip, said in zip(clips, outputs) if said]
        if not clips:
            raise MediaError("enrol: none of the clips can be used")

        normalization = self.mods.speaker_normalizer
        pooled = [self.hparams.feature_extractor.pool(clip) for clip in clips]
        speaker = estimate_speaker(
            self.fingerprint, normalization, pooled, predict, classes
        )
        if warn and classes:
            labels = predict(speaker).argmax(dim=-1)
            usual = normalization.audio_target_mean
            if not usual.any():  # No training clip had sound.
                usual = normalization.visual_target_mean
            line = one_sided(labels, usual, self.hparams.labels)
            if line:
                logger.warning("enrol: %s", line)
        return speaker

    def read_speaker(self, path: str | Path) -> Speaker:
        """Reads the file of ``vavl enrol``, which must be of this model."""
        return self._known_speaker(path)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the network and its encoders, 16 hexadecimal digits."""
        parts = [self.mods.vavl]
        if "speaker_normalizer" in self.mods:
            parts.append(self.mods.speaker_normalizer)
        extractor = self.hparams.feature_extractor
        encoders = [extractor.fingerprint(modality) for modality in MODALITIES]
        digests = [hash_state({}, part.state_dict()) for part in parts]
        return hash_state({"parts": encoders + digests}, {})[:16]

    def refuse_speaker(self) -> None:
        """Refuses a speaker for a model that can do nothing with one."""
        if "speaker_normalizer" not in self.mods:
            raise VAVLError(
                "speaker: the model was trained without speaker normalization; "
                "train one with --speaker_normalization speaker, or leave the "
                "speaker out"
            )

    def _known_speaker(self, speaker, sources=None):
        """The Speaker that an argument names, of this very model; ``sources``
        are those of the clip at hand."""
        if speaker is None:
            return None
        self.refuse_speaker()
        if speaker == "self":
            return self._speaker_of_windows(sources)
        if not isinstance(speaker, (Speaker, str, Path)):
            raise VAVLError(
                "speaker: must be a Speaker from enrol(), the path of its "
                f"file, or self, not {speaker!r:.40}"
            )
        known, name = speaker, "speaker"
        if not isinstance(speaker, Speaker):
            known, name = Speaker.load(speaker), str(speaker)
        if known.model != self.fingerprint:
            raise VAVLError(
                f"{name}: was enrolled with another model; enrol the clips "
                "again with this one"
            )
        for modality, found in known.statistics.items():
            dim = self.mods.speaker_normalizer.dim(modality)
            if found.mean.shape[1] != dim:
                raise VAVLError(f"{name}: does not fit the model; enrol again")
        return known

    def _speaker_of_windows(self, sources):
        """The speaker of a long clip, by its own windows of 3 s."""
        if sources is None:
            raise VAVLError("speaker: self needs a clip; enrol others instead")
        found = self._parts(*sources, windows=True)
        if len(found) < 2:
            logger.warning("speaker: the clip is too short to tell of itself")
            return None
        return self.enrol_features(found)

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
        blocks = [clips[i : i + BLOCK] for i in range(0, len(clips), BLOCK)]
        return [one for b in blocks for one in self._block_outputs(b, speaker)]

    def _block_outputs(self, clips, speaker):
        """What :meth:`batch_outputs` gives, in one pass."""
        out = self._forward(clips, speaker)
        if out is None:
            return [{} for _ in clips]
        scaling, to_corpus = {}, AttributeScale(None).to_corpus
        if self.hparams.task == "classification":
            scaling = getattr(self.hparams, "temperatures", None) or {}
        else:
            limits = getattr(self.hparams, "attribute_range", None)
            to_corpus = AttributeScale(limits).to_corpus
        found: list[dict] = [{} for _ in clips]
        for head in self.trained_heads:
            values = getattr(out, head)
            if values is None:
                continue
            values = to_corpus(values.float().cpu() / scaling.get(head, 1.0))
            needed = MODALITIES if head == "audiovisual" else (head,)
            for row, clip in enumerate(clips):
                if _modalities(clip) >= {*needed}:
                    found[row][head] = values[row]
        return found

    @undisturbed
    def embed_file(self, path: str | Path) -> dict[str, np.ndarray]:
        """The network's representation of a clip, by modality.

        Arguments
        ---------
        path : str or Path
            Any container with sound, picture or both. Of a clip of more than
            30 s it is the mean over chunks of 6 s.

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
        check_file(str(path))
        sums, seconds = {}, {}
        for chunk in self.hparams.feature_extractor.chunks(
            str(path), str(path)
        ):
            out = self._forward([chunk.features])
            for name in set(MODALITIES) & set(self.trained_heads):
                found = out and getattr(out, f"{name}_embedding")
                if found is not None:
                    length = chunk.end - chunk.start
                    part = length * found[0].float().cpu().numpy()
                    sums[name] = sums.get(name, 0) + part
                    seconds[name] = seconds.get(name, 0) + length
        if not sums:
            raise MediaError(f"{path}: the network has no representation of it")
        return {name: sums[name] / seconds[name] for name in sums}

    @torch.no_grad()
    def _forward(self, clips, speaker=None):
        """What the network says about clips' features; None where there are
        none."""
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
            return self.mods.vavl(**inputs) if inputs else None

    def forward(
        self,
        audio: torch.Tensor | None = None,
        audio_lens: torch.Tensor | None = None,
        visual: torch.Tensor | None = None,
        visual_lens: torch.Tensor | None = None,
    ) -> VAVLOutput:
        """Runs the network on features, as ``VAVL.forward``."""
        return self.mods.vavl(audio, audio_lens, visual, visual_lens)


def _no_answer(reason):
    """None, in place of an answer, with the reason as a warning."""
    logger.warning("%s; its answer is None", reason)


def _modalities(features):
    """Which of "audio" and "visual" a clip has features of."""
    return {m for m in MODALITIES if getattr(features, m) is not None}
