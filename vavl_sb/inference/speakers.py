"""Speaker enrolment: feature statistics of a speaker, from unlabelled clips."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vavl_sb.features.extractor import ClipFeatures, Stopwatch
from vavl_sb.inference.isolation import inference_method
from vavl_sb.inference.prediction import why_no_head
from vavl_sb.inference.sliding_windows import SlidingWindows
from vavl_sb.lobes.feature_encoder import hash_state
from vavl_sb.lobes.speaker_normalization import (
    SpeakerNormalization,
    SpeakerStatistics,
)
from vavl_sb.lobes.vavl import HEADS, MODALITIES
from vavl_sb.utils.errors import EncoderError, MediaError, VAVLError
from vavl_sb.utils.files import parse_json, write_json
from vavl_sb.utils.logger import get_logger

logger = get_logger(__name__)

MAX_FILE = 16 * 2**20  # bytes of a speaker file
MAX_CLIPS = 10**6
MAX_ROUNDS = 10  # of iterative normalization
TOLERANCE = 1e-3  # on predictions, for convergence
# The correction for emotions grows linearly from none at diversity 1 to full
# at diversity 1 - 1 / SKEW = 0.75.
SKEW = 4.0
MIN_DIVERSITY = 0.5  # of emotions, below which enrolment warns


@dataclass(eq=False)
class Speaker:
    """Feature statistics of one speaker, for one model.

    Arguments
    ---------
    model : str
        Fingerprint of the model.
    clips : int
        Number of clips; each chunk of a clip longer than 30 s counts.
    statistics : dict
        "audio" and "visual", if the clips have them, to
        :class:`vavl_sb.lobes.speaker_normalization.SpeakerStatistics`.
    left_out : list of str
        Why clips could not be used, a line each; not saved.
    """

    model: str
    clips: int
    statistics: dict[str, SpeakerStatistics]
    left_out: list[str] = field(default_factory=list)

    def save(self, path: str | Path) -> None:
        """Writes means, variances and counts to a JSON file, readable by its
        owner only."""
        content: dict = {"model": self.model, "clips": self.clips}
        for modality, statistics in self.statistics.items():
            content[modality] = {"count": float(statistics.count)}
            for name in ("mean", "variance"):
                values = getattr(statistics, name).flatten().tolist()
                content[modality][name] = [float(f"{x:.9g}") for x in values]
        write_json(path, content)
        os.chmod(path, 0o600)

    @classmethod
    def load(cls, path: str | Path) -> "Speaker":
        """Reads a file of :meth:`save`; raises VAVLError if it is not one."""
        try:
            if os.path.exists(path) and not os.path.isfile(path):
                raise ValueError("not a file")
            with open(path, "rb") as file:
                text = file.read(MAX_FILE + 1)
            if len(text) > MAX_FILE:
                raise ValueError("too large")
            content = parse_json(text.decode("utf-8"))
            model, clips = content["model"], content["clips"]
            if type(clips) is not int or not 0 < clips <= MAX_CLIPS:
                raise ValueError("invalid number of clips")
            statistics = {
                modality: _statistics(content[modality], clips)
                for modality in MODALITIES
                if modality in content
            }
            if type(model) is not str or not statistics:
                raise ValueError("no model or statistics")
        except OSError as error:
            raise VAVLError(
                f"{path}: cannot be read ({error.strerror}); make it with "
                "vavl enrol"
            ) from None
        except (
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
            RecursionError,
        ) as error:
            reason = " ".join(str(error).split())[:80]
            raise VAVLError(
                f"{path}: is not a speaker file ({reason}); make it with vavl "
                "enrol"
            ) from None
        return cls(model, clips, statistics)


def _statistics(content, clips):
    """Checks and converts the statistics of one modality."""
    count = content["count"]
    if type(count) not in (int, float) or not 0 <= count <= clips:
        raise ValueError("invalid count")
    rows = [content["mean"], content["variance"]]
    if not all(type(x) in (int, float) for row in rows for x in row):
        raise ValueError("mean or variance is not a list of numbers")
    mean, variance = values = torch.tensor(rows, dtype=torch.float64).float()
    if not bool(torch.isfinite(values).all()) or bool((variance < 0).any()):
        raise ValueError("mean or variance is not finite, or negative")
    count = torch.tensor([float(count)])
    return SpeakerStatistics(count, mean[None], variance[None])


def estimate_speaker(
    model: str,
    normalization: SpeakerNormalization,
    clips: Sequence[ClipFeatures],
    predict: Callable[[Speaker], torch.Tensor],
    classes: bool,
) -> Speaker:
    """Estimates the statistics of a speaker; in rounds if the normalization is
    iterative.

    ``model`` is the fingerprint of the model. ``clips`` are pooled features
    with at least one modality each. ``predict`` maps a Speaker to predictions
    for the clips, (n, num_outputs): probabilities if ``classes``, else
    attributes.
    """
    means = {m: _time_means(clips, m) for m in MODALITIES}
    uncorrected = {
        m: SpeakerStatistics.of(x) for m, (x, _) in means.items() if len(x)
    }
    speaker, previous = Speaker(model, len(clips), uncorrected), None
    for _ in range(MAX_ROUNDS if normalization.iterative else 0):
        targets = predict(speaker)
        if previous is not None and bool(
            ((targets - previous).abs() < TOLERANCE).all()
        ):
            break
        previous, corrected = targets, {}
        for modality, statistics in uncorrected.items():
            _, rows = means[modality]
            corrected[modality] = _corrected(
                normalization, modality, statistics, targets[rows], classes
            )
        speaker = dataclasses.replace(speaker, statistics=corrected)
    return speaker


def _time_means(clips, modality):
    """Returns time means (n, D) of the clips with a modality, and their
    indices."""
    clips = [getattr(features, modality) for features in clips]
    indices = [i for i, frames in enumerate(clips) if frames is not None]
    means = [torch.from_numpy(clips[i]).float().mean(dim=0) for i in indices]
    return (torch.stack(means) if means else []), indices


def _corrected(normalization, modality, statistics, targets, classes):
    """Removes the mean effect of the emotions of the clips, and scales the
    count by their diversity."""
    device = normalization.audio_mean.device
    # Sorted, so that the order of clips does not matter.
    mean = targets.double().sort(dim=0).values.mean(dim=0)[None].float()
    prior = normalization.get_buffer(f"{modality}_target_mean").cpu()
    variety = 1.0
    if classes:
        variety = diversity(targets.argmax(dim=-1), prior)
        # Clips of all emotions need no correction, which would only add the
        # errors of the predictions.
        mean = prior + min(1.0, SKEW * (1 - variety)) * (mean - prior)
    corrected = normalization.without_emotion(
        modality, statistics.to(device), mean.to(device)
    ).to("cpu")
    corrected.count = corrected.count * variety
    return corrected


def diversity(labels: torch.Tensor, prior: torch.Tensor) -> float:
    """Computes the diversity of emotions among clips, relative to the corpus.

    It is the share of pairs of clips with different emotions (Simpson's
    unbiased index of diversity), divided by its expectation in the corpus.

    Arguments
    ---------
    labels : torch.Tensor
        Class of each clip, int64, shape (n,).
    prior : torch.Tensor
        Class frequencies in the corpus, shape (num_classes,).

    Returns
    -------
    float
        From 0 (one emotion) to 1 (as diverse as the corpus, or more); 1 for a
        single clip.

    Example
    -------
    >>> diversity(torch.tensor([0, 0, 0, 1]), torch.tensor([0.5, 0.5]))
    1.0
    >>> diversity(torch.tensor([0, 0, 0, 1]), torch.full((8,), 0.125))
    0.5714285714285714
    """
    n = len(labels)
    if n < 2:
        return 1.0
    counts = torch.bincount(labels.cpu()).double()
    different = 1 - (counts * (counts - 1)).sum() / (n * (n - 1))
    expected = 1 - prior.cpu().double().square().sum()
    return min(1.0, float(different / expected.clamp(min=1e-6)))


class SpeakerEnrolment:
    """Speaker enrolment of an EmotionRecognizer."""

    # Defined by EmotionRecognizer.
    hparams: Any
    mods: Any
    batch_outputs: Callable
    _sources: Callable
    _reads: Callable

    @inference_method
    def enrol(self, clips: Sequence[str | Path | dict]) -> Speaker:
        """Estimates the statistics of a speaker from clips without labels.

        Arguments
        ---------
        clips : sequence of str, Path or dict
            Clips of one speaker, of any emotions; use at least five. A dict
            has arguments of :meth:`predict_file`: ``path``, ``audio_path``,
            ``audio_features`` and ``visual_features``. A clip that cannot be
            used is left out with a warning. Each chunk of 6 s of a clip longer
            than 30 s counts as a clip. All features are kept in memory.

        Returns
        -------
        Speaker
            For ``predict_file(..., speaker=...)`` of this model. It does not
            depend on the order of the clips.

        Raises
        ------
        MediaError, VAVLError
            No clip can be used, or the model was trained without speaker
            normalization.
        """
        self.refuse_speaker()
        if isinstance(clips, (str, Path, dict)):
            clips = [clips]
        features, left_out = [], []
        for clip in clips:
            try:
                features += self._clip_features(clip)
            except (MediaError, EncoderError) as error:
                logger.warning("%s; left out of the enrolment", error)
                left_out.append(error.text)
        speaker = self.enrol_features(features)
        speaker.left_out = left_out
        return speaker

    def _parts(self, wav, video, given, windows=False):
        """Returns features of the chunks of a clip, or of its windows of 3 s;
        of one stream if the other cannot be decoded."""
        extractor = self.hparams.feature_extractor

        def read(wav, video, given):
            chunks = extractor.chunks(wav, video, given=given)
            if windows:
                cut = SlidingWindows(3.0, 3.0, extractor, Stopwatch())
                parts = [f for chunk in chunks for *_, f in cut.add(chunk)]
            else:
                parts = [chunk.features for chunk in chunks]
            return [part for part in parts if part.modalities]

        try:
            return read(wav, video, given)
        except (MediaError, EncoderError):
            parts = []
            for files in ((wav, None), (None, video)):
                with contextlib.suppress(MediaError, EncoderError):
                    parts += read(*files, given)
            if not parts:
                raise
            return parts

    def _clip_features(self, clip):
        """Returns features of each chunk of a clip; raises if there are none."""
        given = clip if isinstance(clip, dict) else {"path": clip}
        wav, video, features = self._sources(**given)
        parts = self._parts(wav, video, features)
        if not parts:
            name = next(filter(None, given.values()), "clip")
            raise MediaError(f"{name}: {why_no_head('auto', set(), ())}")
        return parts

    @torch.no_grad()
    def enrol_features(
        self, clips: Sequence[ClipFeatures], warn: bool = True
    ) -> Speaker:
        """Enrols a speaker as :meth:`enrol`, from features before pooling.

        ``warn``: whether to warn if the clips show few emotions.
        """
        self.refuse_speaker()
        # Do not store personal data that no head uses.
        read = [m for m in MODALITIES if self._reads(m)]
        clips = [
            ClipFeatures(**{m: getattr(clip, m) for m in read})
            for clip in clips
        ]
        classes = self.hparams.task == "classification"

        def predict(speaker):
            outputs = self.batch_outputs(clips, speaker)
            # The audio-visual head, the last one, if it has an output.
            values = torch.stack(
                [heads[max(heads, key=HEADS.index)] for heads in outputs]
            )
            return torch.softmax(values, dim=-1) if classes else values

        outputs = self.batch_outputs(clips)
        clips = [clip for clip, heads in zip(clips, outputs) if heads]
        if not clips:
            raise MediaError("enrol: no clip can be used")

        normalization = self.mods.speaker_normalizer
        pooled = [self.hparams.feature_extractor.pool(clip) for clip in clips]
        speaker = estimate_speaker(
            self.fingerprint, normalization, pooled, predict, classes
        )
        if warn and classes and len(clips) > 2:
            labels = predict(speaker).argmax(dim=-1)
            prior = normalization.audio_target_mean
            if not prior.any():  # No training clip had audio.
                prior = normalization.visual_target_mean
            if diversity(labels, prior) < MIN_DIVERSITY:
                common = int(torch.bincount(labels.cpu()).argmax())
                logger.warning(
                    "enrol: the model predicts %s for most clips, so the "
                    "statistics may include the emotion: enrol clips of "
                    "several emotions if there are any",
                    self.hparams.labels[common],
                )
        return speaker

    def read_speaker(self, path: str | Path) -> Speaker:
        """Reads a file of ``vavl enrol``, which must belong to this model."""
        return self._load_speaker(path)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Fingerprint of network and encoders, 16 hexadecimal digits."""
        parts = [self.mods.vavl]
        if "speaker_normalizer" in self.mods:
            parts.append(self.mods.speaker_normalizer)
        extractor = self.hparams.feature_extractor
        encoders = [extractor.fingerprint(modality) for modality in MODALITIES]
        digests = [hash_state({}, part.state_dict()) for part in parts]
        return hash_state({"parts": encoders + digests}, {})[:16]

    def refuse_speaker(self) -> None:
        """Raises VAVLError if the model has no speaker normalization."""
        if "speaker_normalizer" not in self.mods:
            raise VAVLError(
                "speaker: the model was trained without speaker normalization; "
                "train one with --speaker_normalization speaker, or leave the "
                "speaker out"
            )

    def _load_speaker(self, speaker, sources=None):
        """Returns the Speaker for a ``speaker`` argument; ``sources`` are those
        of the clip, for "self"."""
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
        loaded, name = speaker, "speaker"
        if not isinstance(speaker, Speaker):
            loaded, name = Speaker.load(speaker), str(speaker)
        if loaded.model != self.fingerprint:
            raise VAVLError(
                f"{name}: was enrolled with another model; enrol the clips "
                "again with this one"
            )
        for modality, statistics in loaded.statistics.items():
            dim = self.mods.speaker_normalizer.dim(modality)
            if statistics.mean.shape[1] != dim:
                raise VAVLError(f"{name}: does not fit the model; enrol again")
        return loaded

    def _speaker_of_windows(self, sources):
        """Enrols the speaker of a long clip from its own windows of 3 s."""
        if sources is None:
            raise VAVLError("speaker: self needs a clip; use enrol() instead")
        parts = self._parts(*sources, windows=True)
        if len(parts) < 2:
            logger.warning("speaker: the clip is too short for speaker=self")
            return None
        return self.enrol_features(parts)
