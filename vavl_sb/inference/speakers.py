"""What a model knows of a speaker, from clips without labels."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

MAX_FILE = 64 * 2**20  # Bytes of a speaker's file
MAX_CLIPS = 10**6
ROUNDS = 10  # of iterative normalization, at most
STILL = 1e-3  # Probabilities that move by less have converged
ONE_SIDED = 0.8  # A larger share of one emotion is worth a warning


@dataclass
class Speaker:
    """Statistics of a speaker's clips, for one model.

    ``model`` is the fingerprint of the model whose features they are of,
    ``clips`` their number, and ``statistics`` maps "audio" and "visual", as far
    as the clips have them, to
    :class:`vavl_sb.lobes.speaker_normalization.SpeakerStatistics` of one
    speaker.
    """

    model: str
    clips: int
    statistics: dict[str, SpeakerStatistics]

    def save(self, path: str | Path) -> None:
        """Writes a JSON file: means and variances of features, and counts."""
        content = {"model": self.model, "clips": self.clips}
        for modality, found in self.statistics.items():
            content[modality] = {
                "count": int(found.count),
                **{
                    name: [float(f"{x:.9g}") for x in values.flatten().tolist()]
                    for name, values in (
                        ("mean", found.mean),
                        ("variance", found.variance),
                    )
                },
            }
        write_json(path, content)

    @classmethod
    def load(cls, path: str | Path) -> "Speaker":
        """Reads what :meth:`save` has written. VAVLError, in one line: it is no
        such file."""
        try:
            with open(path, "rb") as file:
                text = file.read(MAX_FILE + 1)
            if len(text) > MAX_FILE:
                raise ValueError("too large")
            content = parse_json(text.decode("utf-8"))
            statistics = {
                modality: _statistics(content[modality])
                for modality in MODALITIES
                if modality in content
            }
            model, clips = content["model"], content["clips"]
            if type(model) is not str or not statistics:
                raise ValueError("no model, or no statistics")
            if type(clips) is not int or not 0 < clips <= MAX_CLIPS:
                raise ValueError("clips is no number of clips")
        except OSError as error:
            raise VAVLError(
                f"{path}: cannot be read ({error.strerror}); make it with "
                "vavl enrol"
            ) from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = " ".join(str(error).split())[:80]
            raise VAVLError(
                f"{path}: is no speaker's file ({reason}); make it with vavl "
                "enrol"
            ) from None
        return cls(model, clips, statistics)


def _statistics(content):
    """One modality's statistics; ValueError, KeyError or TypeError where they
    cannot be."""
    count = content["count"]
    if type(count) is not int or not 0 < count <= MAX_CLIPS:
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


def time_means(clips: Sequence[ClipFeatures]) -> dict[str, torch.Tensor]:
    """The time means of clips' features, pooled as the network reads them.

    Modalities that some clip has, each to a tensor of shape (n, D).
    """
    found: dict[str, list] = {modality: [] for modality in MODALITIES}
    for features in clips:
        for modality, rows in found.items():
            frames = getattr(features, modality)
            if frames is not None:
                rows.append(torch.from_numpy(frames).float().mean(dim=0))
    return {m: torch.stack(rows) for m, rows in found.items() if rows}


def estimate_speaker(
    model: str,
    normalization: SpeakerNormalization,
    clips: Sequence[ClipFeatures],
    targets_of: Callable[[Speaker], torch.Tensor],
) -> Speaker:
    """A speaker's statistics, from clips pooled as the network reads them, each
    with at least one modality; of an iterative model, in rounds.

    ``model`` is the model's fingerprint. ``targets_of`` gives what the model
    says of the clips, once a speaker is known: probabilities of classes, or
    attributes, (n, num_outputs).
    """
    device = normalization.get_buffer("audio_mean").device
    plain = Speaker(
        model,
        len(clips),
        {m: SpeakerStatistics.of(x) for m, x in time_means(clips).items()},
    )
    speaker, before = plain, None
    for _ in range(ROUNDS if normalization.iterative else 0):
        targets = targets_of(speaker)
        # Sorted, as for SpeakerStatistics.of.
        targets = targets.double().sort(dim=0).values.mean(dim=0)[None].float()
        if before is not None and bool(
            ((targets - before).abs() < STILL).all()
        ):
            break
        before = targets
        corrected = {
            modality: normalization.without_emotion(
                modality, found.to(device), targets
            ).to("cpu")
            for modality, found in plain.statistics.items()
        }
        speaker = dataclasses.replace(plain, statistics=corrected)
    return speaker


def best_head(outputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The output of the head that reads most of what a clip has."""
    return outputs[[head for head in HEADS if head in outputs][-1]]


def one_sided(shares: dict[str, float]) -> str | None:
    """A warning where the clips of an enrolment nearly all say the same, by the
    mean probability of each class; else None.

    Example
    -------
    >>> one_sided({"happy": 0.9, "sad": 0.1})[:45]
    'the model takes 90 % of the enrolment for hap'
    >>> one_sided({"happy": 0.5, "sad": 0.5}) is None
    True
    """
    label, share = max(shares.items(), key=lambda pair: pair[1])
    if share < ONE_SIDED:
        return None
    return (
        f"the model takes {share:.0%} of the enrolment for {label}: ".replace(
            "%", " %"
        )
        + "part of the emotion may be taken for the speaker; enrol clips of "
        "several emotions if there are any"
    )
