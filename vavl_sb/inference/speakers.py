"""What a model knows of a speaker, from clips without labels."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vavl_sb.features.extractor import ClipFeatures
from vavl_sb.lobes.speaker_normalization import (
    SpeakerNormalization,
    SpeakerStatistics,
)
from vavl_sb.lobes.vavl import HEADS, MODALITIES
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import parse_json, write_json

MAX_FILE = 16 * 2**20  # Bytes of a speaker's file
MAX_CLIPS = 10**6
ROUNDS = 10  # of iterative normalization, at most
TOLERANCE = 1e-3  # Predictions that change by less have converged
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
            content[modality] = {
                "count": float(found.count),
                **{
                    name: [float(f"{x:.9g}") for x in values.flatten().tolist()]
                    for name, values in (
                        ("mean", found.mean),
                        ("variance", found.variance),
                    )
                },
            }
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
    tensors = []
    for name in ("mean", "variance"):
        values = content[name]
        if type(values) is not list or not all(
            type(x) in (int, float) for x in values
        ):
            raise ValueError(f"{name} is no list of numbers")
        tensor = torch.tensor([values], dtype=torch.float64).float()
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} has a number that is not finite")
        tensors.append(tensor)
    mean, variance = tensors
    if mean.shape != variance.shape or bool((variance < 0).any()):
        raise ValueError("variance does not fit")
    return SpeakerStatistics(torch.tensor([float(count)]), mean, variance)


def estimate_speaker(
    model: str,
    normalization: SpeakerNormalization,
    clips: Sequence[ClipFeatures],
    predict: Callable[[Speaker], torch.Tensor],
    classes: bool,
) -> Speaker:
    """A speaker's statistics; of an iterative model, in rounds.

    Arguments
    ---------
    model : str
        Fingerprint of the model.
    normalization : SpeakerNormalization
        The model's.
    clips : sequence of ClipFeatures
        Pooled as the network reads them; each has at least one modality.
    predict : callable
        From a speaker to predictions for the clips, shape (n, num_outputs):
        probabilities of classes, or attributes.
    classes : bool
        Whether they are of classes.

    Returns
    -------
    Speaker
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
    found = normalization.without_emotion(
        modality, statistics.to(device), mean.to(device)
    ).to("cpu")
    if classes:
        usual = normalization.get_buffer(f"{modality}_target_mean")
        found.count = found.count * diversity(targets.argmax(dim=-1), usual)
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


def best_head(outputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The output of the head that reads most of what a clip has."""
    return outputs[[head for head in HEADS if head in outputs][-1]]


def one_sided(
    labels: torch.Tensor, usual: torch.Tensor, names: Sequence[str]
) -> str | None:
    """A warning where the clips of an enrolment show few emotions.

    Arguments
    ---------
    labels, usual : torch.Tensor
        As of :func:`diversity`.
    names : sequence of str
        Of the classes.

    Returns
    -------
    str or None

    Example
    -------
    >>> usual = torch.full((3,), 1 / 3)
    >>> one_sided(torch.tensor([0, 0, 0]), usual, ["sad", "calm", "angry"])[:50]
    'the model predicts sad for most clips of the enrol'
    >>> one_sided(torch.tensor([0, 1, 2]), usual, ["sad", "calm", "angry"])
    """
    if len(labels) < 3 or diversity(labels, usual) >= ONE_SIDED:
        return None
    common = torch.bincount(labels.cpu()).topk(1).indices[0]
    return (
        f"the model predicts {names[common]} for most clips of the enrolment; "
        "part of the emotion may be taken for the speaker: enrol clips of "
        "several emotions if there are any"
    )
