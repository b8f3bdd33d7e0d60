"""What a model knows of a speaker, from clips without labels."""

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vavl_sb.features.extractor import ClipFeatures, Stopwatch
from vavl_sb.inference.prediction import why_no_head
from vavl_sb.inference.sliding_windows import SlidingWindows
from vavl_sb.inference.surroundings import undisturbed
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

MAX_FILE = 16 * 2**20  # Bytes of a speaker's file
MAX_CLIPS = 10**6
ROUNDS = 10  # of iterative normalization, at most
TOLERANCE = 1e-3  # Predictions that change by less have converged
# The correction for emotions is whole where a quarter of their diversity is
# missing, and none where nothing is.
SKEW = 4.0
ONE_SIDED = 0.5  # A lower diversity of emotions is worth a warning


@dataclass(eq=False)
class Speaker:
    """Statistics of a speaker's clips, for one model.

    Arguments
    ---------
    model : str
        Fingerprint of the model whose features they are of.
    clips : int
        How many clips they are of; of a clip of more than 30 s, its chunks.
    statistics : dict
        "audio" and "visual", as far as the clips have them, to
        :class:`vavl_sb.lobes.speaker_normalization.SpeakerStatistics` of one
        speaker.
    left_out : list of str
        Why clips could not be used, a line each; not in the file.
    """

    model: str
    clips: int
    statistics: dict[str, SpeakerStatistics]
    left_out: list[str] = field(default_factory=list)

    def save(self, path: str | Path) -> None:
        """Writes a JSON file that only its owner may read: means and variances
        of features, and counts."""
        content: dict = {"model": self.model, "clips": self.clips}
        for modality, found in self.statistics.items():
            content[modality] = {"count": float(found.count)}
            for name in ("mean", "variance"):
                values = getattr(found, name).flatten().tolist()
                content[modality][name] = [float(f"{x:.9g}") for x in values]
        write_json(path, content)
        os.chmod(path, 0o600)

    @classmethod
    def load(cls, path: str | Path) -> "Speaker":
        """Reads what :meth:`save` has written.

        Raises
        ------
        VAVLError
            In one line: it is no such file.
        """
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
                raise ValueError("clips is no number of clips")
            statistics = {
                modality: _statistics(content[modality], clips)
                for modality in MODALITIES
                if modality in content
            }
            if type(model) is not str or not statistics:
                raise ValueError("no model, or no statistics")
        except OSError as error:
            raise VAVLError(
                f"{path}: cannot be read ({error.strerror}); make it with "
                "vavl enrol"
            ) from None
        except (
            *(ValueError, KeyError, TypeError),
            *(OverflowError, RecursionError),
        ) as error:
            reason = " ".join(str(error).split())[:80]
            raise VAVLError(
                f"{path}: is no speaker's file ({reason}); make it with vavl "
                "enrol"
            ) from None
        return cls(model, clips, statistics)


def _statistics(content, clips):
    """One modality's statistics; ValueError, KeyError or TypeError where they
    cannot be."""
    count = content["count"]
    if type(count) not in (int, float) or not 0 <= count <= clips:
        raise ValueError("count is no number of clips")
    rows = [content["mean"], content["variance"]]
    if not all(type(x) in (int, float) for row in rows for x in row):
        raise ValueError("mean or variance is no list of numbers")
    mean, variance = values = torch.tensor(rows, dtype=torch.float64).float()
    if not bool(torch.isfinite(values).all()) or bool((variance < 0).any()):
        raise ValueError("mean or variance is not finite, or below 0")
    count = torch.tensor([float(count)])
    return SpeakerStatistics(count, mean[None], variance[None])


def estimate_speaker(
    model: str,
    normalization: SpeakerNormalization,
    clips: Sequence[ClipFeatures],
    predict: Callable[[Speaker], torch.Tensor],
    classes: bool,
) -> Speaker:
    """A speaker's statistics; of an iterative model, in rounds.

    Of a model of that fingerprint, its normalization, and ``clips`` that are
    pooled as the network reads them, with at least one modality each.
    ``predict`` is from a speaker to predictions for the clips, (n,
    num_outputs): probabilities of ``classes``, or attributes.
    """
    means = {m: _time_means(clips, m) for m in MODALITIES}
    plain = {
        m: SpeakerStatistics.of(x) for m, (x, _) in means.items() if len(x)
    }
    speaker, before = Speaker(model, len(clips), plain), None
    for _ in range(ROUNDS if normalization.iterative else 0):
        targets = predict(speaker)
        if before is not None and bool(
            ((targets - before).abs() < TOLERANCE).all()
        ):
            break
        before, found = targets, {}
        for modality, statistics in plain.items():
            own = targets[means[modality][1]]
            found[modality] = _corrected(
                normalization, modality, statistics, own, classes
            )
        speaker = dataclasses.replace(speaker, statistics=found)
    return speaker


def _time_means(clips, modality):
    """Time means (n, D) of the clips that have a modality, and their places."""
    rows = [getattr(features, modality) for features in clips]
    places = [place for place, row in enumerate(rows) if row is not None]
    found = [torch.from_numpy(rows[p]).float().mean(dim=0) for p in places]
    return (torch.stack(found) if found else []), places


def _corrected(normalization, modality, statistics, targets, classes):
    """Statistics without the mean effect of the emotions in the clips, which
    count for less the fewer emotions there are."""
    device = normalization.audio_mean.device
    # Sorted, as in SpeakerStatistics.of.
    mean = targets.double().sort(dim=0).values.mean(dim=0)[None].float()
    usual = normalization.get_buffer(f"{modality}_target_mean").cpu()
    shown = 1.0
    if classes:
        shown = diversity(targets.argmax(dim=-1), usual)
        # Where all emotions are shown there is nothing to correct, and the
        # errors of the predictions would be taken for emotions.
        mean = usual + min(1.0, SKEW * (1 - shown)) * (mean - usual)
    found = normalization.without_emotion(
        modality, statistics.to(device), mean.to(device)
    ).to("cpu")
    found.count = found.count * shown
    return found


def diversity(labels: torch.Tensor, usual: torch.Tensor) -> float:
    """How many emotions clips show, next to as many clips of the corpus.

    It is the share of pairs of clips with different emotions (Simpson's
    unbiased index of diversity), divided by what the corpus's shares give.

    Arguments
    ---------
    labels : torch.Tensor
        A class for each clip, int64, shape (n,).
    usual : torch.Tensor
        The classes' shares in the corpus, shape (num_classes,).

    Returns
    -------
    float
        From 0, all of one emotion, to 1, as many as in the corpus or more. A
        lone clip has 1.

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
    expected = 1 - usual.cpu().double().square().sum()
    return min(1.0, float(different / expected.clamp(min=1e-6)))


class SpeakerEnrolment:
    """What an EmotionRecognizer learns of a speaker, from clips."""

    # Of the EmotionRecognizer.
    hparams: Any
    mods: Any
    batch_outputs: Callable
    _sources: Callable
    _reads: Callable

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
            chunks = extractor.chunks(wav, video, given=given)
            chunks = itertools.islice(chunks, most)
            if windows:
                cut = SlidingWindows(3.0, 3.0, extractor, Stopwatch())
                parts = [f for chunk in chunks for *_, f in cut.add(chunk)]
            else:
                parts = [chunk.features for chunk in chunks]
            return [part for part in parts if part.modalities]

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
        """Features of a clip, or of each of its chunks, for
        :meth:`enrol_features`.

        ``clip`` is as of :meth:`enrol`; of one of more than 30 s, ``most``
        chunks of 6 s are read. MediaError, EncoderError, in one line: the clip
        cannot be used.
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
        read = [m for m in MODALITIES if self._reads(m)]
        clips = [
            ClipFeatures(**{m: getattr(clip, m) for m in read})
            for clip in clips
        ]
        classes = self.hparams.task == "classification"

        def predict(speaker):
            found = self.batch_outputs(clips, speaker)
            # Of the head that reads most of what a clip has.
            found = [said[max(said, key=HEADS.index)] for said in found]
            values = torch.stack(found)
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
        if warn and classes and len(clips) > 2:
            labels = predict(speaker).argmax(dim=-1)
            usual = normalization.audio_target_mean
            if not usual.any():  # No training clip had sound.
                usual = normalization.visual_target_mean
            if diversity(labels, usual) < ONE_SIDED:
                common = int(torch.bincount(labels.cpu()).argmax())
                logger.warning(
                    "enrol: the model predicts %s for most clips of the "
                    "enrolment; part of the emotion may be taken for the "
                    "speaker: enrol clips of several emotions if there are any",
                    self.hparams.labels[common],
                )
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
