"""EmotionRecognizer: a clip in, an emotion out.

Authors
 * The vavl_sb authors 2026
"""

from dataclasses import asdict, dataclass
from typing import Optional

import torch
from ruamel.yaml import YAMLError
from speechbrain.inference.interfaces import Pretrained

from vavl_sb.inference.hub import hub_options, model_folder
from vavl_sb.nnet.attribute_scale import AttributeScale
from vavl_sb.utils.errors import EncoderError, MediaError, VAVLError

MODALITIES = ("audio", "visual", "audiovisual")


@dataclass
class Emotion:
    """What a model says about one clip.

    Arguments
    ---------
    modality : str
        Which head answered: "audio", "visual" or "audiovisual".
    label : str
        The most probable class; None for attributes.
    probabilities : dict
        Class to probability; None for attributes.
    attributes : dict
        Attribute to value, in the corpus's own scale; None for classes.
    per_modality : dict
        The same, from each head that the clip allows.
    """

    modality: str
    label: Optional[str] = None
    probabilities: Optional[dict] = None
    attributes: Optional[dict] = None
    per_modality: Optional[dict] = None

    def as_dict(self):
        """The fields that are not None, as plain Python.

        Returns
        -------
        dict
        """
        return {k: v for k, v in asdict(self).items() if v is not None}


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

    HPARAMS_NEEDED = ["task", "labels", "clip_encoder"]
    MODULES_NEEDED = ["vavl"]

    @classmethod
    def from_hparams(cls, source, overrides=None, **kwargs):
        """Loads an exported model.

        The model's YAML can make any Python object: load only models from
        people you trust.

        Arguments
        ---------
        source : str or Path
            A folder such as a run's ``inference/``, or a hub id.
        overrides : dict
            Keys of the model's hyperparams.yaml to change.
        **kwargs
            As in ``Pretrained.from_hparams``, such as ``run_opts``; for a
            hub id also ``revision``, ``token`` and ``local_files_only``.

        Returns
        -------
        EmotionRecognizer

        Raises
        ------
        EncoderError
            The folder does not hold a model, or its weights do not fit.
        """
        folder = model_folder(source, **hub_options(kwargs))
        overrides = {"pretrained_path": str(folder), **(overrides or {})}
        try:
            model = super().from_hparams(
                source=str(folder), overrides=overrides, **kwargs
            )
        # Whatever stands in a damaged YAML; what it makes raises its own.
        except (YAMLError, KeyError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise EncoderError(
                f"{folder / 'hyperparams.yaml'}: no model can be made from it "
                f"({type(error).__name__}: {reason}); export it again"
            ) from error
        model.hparams.clip_encoder.to(model.device)
        return model

    def predict_file(self, path, modality="auto", audio_path=None):
        """Predicts the emotion of a clip.

        Arguments
        ---------
        path : str or Path
            Any container with sound, picture or both.
        modality : str
            "auto": both where the clip has both, otherwise what it has;
            "audio", "visual", "audiovisual": that head, or an error.
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
        if modality not in ("auto", *MODALITIES):
            raise VAVLError(
                f"modality: must be auto or one of {', '.join(MODALITIES)}, "
                f"not {modality!r}"
            )
        wav = str(audio_path if audio_path is not None else path)
        features = self.hparams.clip_encoder.encode(wav=wav, video=str(path))
        answers = self._answers(features)
        if not answers:
            raise MediaError(
                f"{path}: neither sound nor a face was found in it"
            )
        if modality == "auto":
            modality = [name for name in MODALITIES if name in answers][-1]
        if modality not in answers:
            missing = "sound" if features.audio is None else "face"
            raise MediaError(
                f"{path}: no {missing} was found in it, so the {modality} "
                "head cannot answer; use modality auto"
            )
        return Emotion(
            modality=modality, **answers[modality], per_modality=answers
        )

    def _answers(self, features):
        """What each head says, for the heads that the clip allows."""
        return {
            name: self._readable(values)
            for name, values in self.outputs(features).items()
        }

    @torch.no_grad()
    def outputs(self, features):
        """The numbers that each head gives for a clip's features.

        Arguments
        ---------
        features : vavl_sb.dataio.clip.ClipFeatures
            From the model's own ``clip_encoder``.

        Returns
        -------
        dict
            Each head that the clip allows ("audio", "visual",
            "audiovisual") to a float32 tensor on the CPU, shape (n,): logits
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
            for name in MODALITIES
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
