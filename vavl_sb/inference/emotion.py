"""EmotionRecognizer: a clip in, an emotion out.

Authors
 * The vavl_sb authors 2026
"""

import torch
from ruamel.yaml import YAMLError
from speechbrain.inference.interfaces import Pretrained

from vavl_sb.inference.analysis import analyze_file
from vavl_sb.inference.batch_inputs import encode_tensors, prepare_frames, unpad
from vavl_sb.inference.hub import hub_options, model_folder
from vavl_sb.inference.loading import load_parts, read_weights
from vavl_sb.inference.prediction import (
    MODALITIES,
    Emotion,
    check_modality,
    choose,
    why_no_answer,
)
from vavl_sb.nnet.attribute_scale import AttributeScale
from vavl_sb.training.model_file import YAML
from vavl_sb.utils.errors import EncoderError, MediaError, VAVLError


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

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        encoder = self.hparams.feature_extractor
        for part in (self.mods, encoder.audio_encoder, encoder.visual_encoder):
            read_weights(part)

    @classmethod
    def from_hparams(cls, source, trust=False, overrides=None, **kwargs):
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
        model.hparams.feature_extractor.to(model.device)
        return model

    @classmethod
    def _from_yaml(cls, folder, overrides, **kwargs):
        """A model that is trusted, as SpeechBrain loads it."""
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

    def predict_file(self, path, modality="auto", audio_path=None):
        """Predicts the emotion of a clip.

        A clip of more than 30 s is taken in pieces of 6 s, and the answer is
        the mean of theirs (see :mod:`vavl_sb.inference.prediction`).

        Arguments
        ---------
        path : str or Path
            Any container with sound, picture or both.
        modality : str
            "auto": both where the clip has both, otherwise what it has;
            "audio", "visual", "audiovisual": that head, or an error. Where
            only one of sound and picture can be read, and the other is not
            asked for, a warning says what was lost.
        audio_path : str or Path
            Sound that stands in a file of its own; then the sound in
            ``path`` is not used.

        Returns
        -------
        Emotion

        Raises
        ------
        MediaError
            The clip cannot be decoded, or lacks what ``modality`` needs.
        """
        return analyze_file(self, path, modality, audio_path).emotion

    def timeline(
        self, path, window=3.0, hop=1.0, modality="auto", audio_path=None
    ):
        """Predicts the emotion of a clip over time.

        Features are computed once, as for :meth:`predict_file`; each window
        takes those of its own time. A model whose audio frames are about as
        long as a window (``audio_frame_average``) hears each by itself.

        Arguments
        ---------
        path : str or Path
            As for :meth:`predict_file`.
        window, hop : float
            Seconds of a window (30 at most), and from the start of one to the
            start of the next. The last window ends with the clip.
        modality, audio_path
            As for :meth:`predict_file`, for each window.

        Returns
        -------
        list of TimedEmotion
        """
        found = analyze_file(self, path, modality, audio_path, window, hop)
        return found.timeline

    def analyze(
        self,
        path,
        modality="auto",
        audio_path=None,
        window=3.0,
        hop=1.0,
        crops=8,
    ):
        """Emotion, timeline, face crops and times of a clip, in one pass.

        Arguments
        ---------
        path, modality, audio_path
            As for :meth:`predict_file`.
        window, hop : float
            As for :meth:`timeline`.
        crops : int
            At most so many face crops, evenly over the clip.

        Returns
        -------
        vavl_sb.inference.analysis.Analysis
        """
        return analyze_file(
            self, path, modality, audio_path, window, hop, crops
        )

    def predict_batch(
        self,
        wavs=None,
        wav_lens=None,
        crops=None,
        crop_lens=None,
        modality="auto",
    ):
        """Predicts the emotion of clips that are tensors already.

        Each clip is encoded by itself, as from a file, and is taken whole.

        Arguments
        ---------
        wavs : torch.Tensor
            16 kHz mono in [-1, 1], shape (B, n); None for no sound.
        wav_lens : torch.Tensor
            Lengths relative to n, shape (B,), 0 for a clip without sound;
            None if all clips fill it.
        crops : torch.Tensor
            Face crops, uint8, RGB, shape (B, N, 3, H, W); None for none.
        crop_lens : torch.Tensor
            As ``wav_lens``.
        modality : str
            As for :meth:`predict_file`.

        Returns
        -------
        list of Emotion
        """
        check_modality(modality)
        rows = unpad(wavs, wav_lens, crops, crop_lens)
        encoder = self.hparams.feature_extractor
        answers = []
        for number, (samples, faces) in enumerate(rows):
            name = f"clip {number} of the batch"
            answers.append(
                self._predict(
                    encode_tensors(encoder, samples, faces, name),
                    modality,
                    name,
                )
            )
        return answers

    def predict_frames(self, frames, frame_rate=None, modality="visual"):
        """Predicts the emotion of a face from a sequence of its crops.

        Arguments
        ---------
        frames : np.ndarray or torch.Tensor
            uint8, RGB, shape (N, H, W, 3), or (N, 3, H, W): pictures of one
            face in order of time. They are cut to a square and resized to what
            the visual encoder was trained on; no face is looked for in them.
        frame_rate : float
            Frames a second; those that are more than the model takes are left
            out. None: all are taken.
        modality : str
            "visual" or "auto", which is the same here.

        Returns
        -------
        Emotion
        """
        check_modality(modality, ("auto", "visual"))
        encoder = self.hparams.feature_extractor
        faces = prepare_frames(
            frames, frame_rate, encoder.frame_rate, encoder.face_tracker.size
        )
        features = encode_tensors(encoder, None, faces, "frames")
        return self._predict(features, modality, "frames")

    def _predict(self, features, modality, name):
        """The emotion of a clip's features."""
        outputs = {}
        has = {m for m in vars(features) if getattr(features, m) is not None}
        if has:
            outputs = self.outputs(features)
        head = choose([(1.0, outputs)], modality)
        if head is None:
            raise MediaError(f"{name}: {self.why_no_answer(modality, has)}")
        return self.say(head, outputs)

    def say(self, modality, outputs):
        """An answer in words, from numbers.

        Arguments
        ---------
        modality : str
            The head that answers.
        outputs : dict
            From :meth:`outputs`.

        Returns
        -------
        Emotion
        """
        answers = {m: self._readable(values) for m, values in outputs.items()}
        return Emotion(
            modality=modality, **answers[modality], per_modality=answers
        )

    def why_no_answer(self, modality, has):
        """Why no head can answer for a clip.

        Arguments
        ---------
        modality : str
            What was asked for.
        has : set
            Of "audio" and "visual": what the clip has.

        Returns
        -------
        str
            To stand after the clip's name.
        """
        return why_no_answer(modality, has, self.trained_heads)

    @property
    def trained_heads(self):
        """Heads that have learned; exports without a record have them all."""
        recorded = getattr(self.hparams, "trained_heads", None)
        return tuple(m for m in MODALITIES if m in (recorded or MODALITIES))

    @torch.no_grad()
    def outputs(self, features):
        """The numbers that each head gives for a clip's features.

        Arguments
        ---------
        features : vavl_sb.features.extractor.ClipFeatures
            From the model's own ``feature_extractor``.

        Returns
        -------
        dict
            Each head that the clip allows and that was trained ("audio",
            "visual", "audiovisual") to a float32 tensor on the CPU, shape (n,): logits
            for classes, attributes in the corpus's own scale.
        """
        inputs = {}
        for name in ("audio", "visual"):
            found = getattr(features, name)
            if found is not None:
                inputs[name] = torch.from_numpy(found).float()[None]
        inputs = {k: v.to(self.device) for k, v in inputs.items()}
        with self.inference_ctx:
            out = self.mods.vavl(**inputs)
        return {
            name: self._in_corpus_scale(getattr(out, name)[0].float().cpu())
            for name in self.trained_heads
            if getattr(out, name) is not None
        }

    def _in_corpus_scale(self, values):
        """Logits as they are; attributes in the corpus's own scale."""
        if self.hparams.task == "classification":
            return values
        limits = getattr(self.hparams, "attribute_range", None)
        return AttributeScale(limits).to_corpus(values)

    def _readable(self, values):
        """One head's numbers (n,) with names."""
        labels = self.hparams.labels
        if self.hparams.task == "classification":
            shares = torch.softmax(values, dim=-1).tolist()
            return {
                "label": labels[int(values.argmax())],
                "probabilities": dict(zip(labels, shares)),
            }
        return {"attributes": dict(zip(labels, values.tolist()))}

    def forward(
        self, audio=None, audio_lens=None, visual=None, visual_lens=None
    ):
        """Runs the network on features.

        Arguments
        ---------
        audio, audio_lens, visual, visual_lens : torch.Tensor
            As for ``VAVL.forward``.

        Returns
        -------
        vavl_sb.lobes.vavl.VAVLOutput
        """
        return self.mods.vavl(audio, audio_lens, visual, visual_lens)
