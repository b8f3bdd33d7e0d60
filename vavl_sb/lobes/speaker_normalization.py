"""Speaker normalization: features as if the average speaker had given them.

How people sound and look at rest differs more than how their emotions do. A
few clips of a speaker, without labels, tell how; with none, nothing changes.

Source: Busso, Metallinou and Narayanan, "Iterative feature normalization for
emotional speech detection", ICASSP 2011; the shrinkage is empirical Bayes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.utils.errors import VAVLError

# What `speaker_normalization` in the YAML may be.
MODES = ("none", "speaker", "iterative")
# A deviation is drawn to that of the training speakers by so many clips.
PRIOR_CLIPS = 10
# Likewise the emotions in a speaker's clips to those of the corpus.
PRIOR_EMOTIONS = 8
# Between-speaker variance at least, in within-speaker variances: with few
# training speakers its estimate may be 0 by chance.
LEAST_BETWEEN = 0.01


@dataclass
class SpeakerStatistics:
    """What clips tell of their speakers, in one modality, for B speakers.

    ``count`` of clips, float (B,), 0 where nothing is known; ``mean`` (B, D)
    over the clips of their features' time mean; and ``variance`` (B, D) over
    the clips, divided by their number.
    """

    count: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor

    @classmethod
    def of(cls, clips: torch.Tensor) -> "SpeakerStatistics":
        """The statistics of one speaker's clips, (n, D), in any order.

        Example
        -------
        >>> statistics = SpeakerStatistics.of(torch.tensor([[1.0], [3.0]]))
        >>> statistics.count, statistics.mean, statistics.variance
        (tensor([2.]), tensor([[2.]]), tensor([[1.]]))
        """
        # Sorted, so that a sum's rounding does not tell the clips' order.
        clips = clips.detach().double().cpu().sort(dim=0).values
        count, mean = torch.tensor([float(len(clips))]), clips.mean(dim=0)
        variance = (clips - mean).square().mean(dim=0)
        return cls(count, mean.float()[None], variance.float()[None])

    @classmethod
    def stack(
        cls, statistics: Sequence["SpeakerStatistics | None"], dim: int
    ) -> "SpeakerStatistics":
        """One for several speakers; None stands for one without clips."""
        nobody = cls(torch.zeros(1), torch.zeros(1, dim), torch.zeros(1, dim))
        rows = [nobody if one is None else one for one in statistics]
        return cls(
            *(
                torch.cat([getattr(row, name) for row in rows])
                for name in ("count", "mean", "variance")
            )
        )

    def to(self, device: torch.device | str) -> "SpeakerStatistics":
        """The same on another device."""
        return SpeakerStatistics(
            self.count.to(device),
            self.mean.to(device),
            self.variance.to(device),
        )


class SpeakerNormalization(nn.Module):
    """Moves features from where a speaker's are to where the average one's are.

    With m the mean of a speaker's n clips, mu that of the corpus, and b and w
    the variances between and within the training speakers, the speaker's mean
    is estimated as ``mu + n b / (n b + w) (m - mu)``, the posterior mean; the
    variance as that of the n clips with 10 of variance w beside them. Features
    become ``(x - mean) sqrt(w / variance) + mu``. All is done dimension by
    dimension, and for all frames of a clip alike. For n = 0 nothing changes.

    Arguments
    ---------
    audio_dim, visual_dim : int
        Sizes of the feature vectors.
    num_outputs : int
        Number of classes or attributes.
    iterative : bool
        Whether enrolment takes out of m what the clips' emotions put in: see
        :meth:`without_emotion`.

    Example
    -------
    >>> normalization = SpeakerNormalization(1, 1, num_outputs=2)
    >>> x = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> normalization.fit("audio", x, torch.eye(2).repeat(2, 1), list("aabb"))
    >>> clips = SpeakerStatistics.of(torch.full((1000, 1), 30.0))
    >>> normalization("audio", torch.tensor([[[30.0]]]), clips).round()
    tensor([[[6.]]])
    """

    def __init__(
        self,
        audio_dim: int,
        visual_dim: int,
        num_outputs: int,
        iterative: bool = False,
    ):
        super().__init__()
        self.iterative = iterative
        self.settings = dict(
            audio_dim=audio_dim,
            visual_dim=visual_dim,
            num_outputs=num_outputs,
            iterative=iterative,
        )
        for modality, dim in zip(MODALITIES, (audio_dim, visual_dim)):
            for name, shape in (
                ("mean", (dim,)),
                ("between", (dim,)),
                ("within", (dim,)),
                ("slopes", (num_outputs, dim)),
                ("target_mean", (num_outputs,)),
            ):
                value = torch.ones if name == "within" else torch.zeros
                self.register_buffer(f"{modality}_{name}", value(shape))

    def dim(self, modality: str) -> int:
        """The size of a modality's feature vectors."""
        return self.settings[f"{modality}_dim"]

    def fit(
        self,
        modality: str,
        x: torch.Tensor,
        targets: torch.Tensor,
        speakers: Sequence[str],
    ) -> None:
        """Learns how training speakers differ, and how one speaker's clips do.

        Of the N clips: ``x`` (N, D) are time means of their features of "audio"
        or "visual", targets (N, num_outputs) classes as one-hot vectors or
        attributes, and ``speakers`` who speaks in each.
        """
        x, targets = x.detach().double().cpu(), targets.double().cpu()
        names = sorted(set(speakers))
        row = torch.tensor([names.index(speaker) for speaker in speakers])
        counts = torch.bincount(row).double().unsqueeze(1)

        def means(values):
            zeros = values.new_zeros(len(names), values.shape[1])
            return zeros.index_add(0, row, values) / counts

        apart, varied = x - means(x)[row], targets - means(targets)[row]
        freedom = max(len(x) - len(names), 1)
        within = (apart.square().sum(dim=0) / freedom).clamp(min=1e-12)
        between = torch.zeros_like(within)
        if len(names) > 1:
            # The means of n clips also differ by the w / n of chance.
            chance = within * (1 / counts).mean()
            between = means(x).var(dim=0) - chance
            between = between.clamp(min=LEAST_BETWEEN * within)
        slopes = torch.linalg.lstsq(varied, apart, driver="gelsd").solution
        for name, value in (
            ("mean", x.mean(dim=0)),
            ("between", between),
            ("within", within),
            ("slopes", slopes),
            ("target_mean", targets.mean(dim=0)),
        ):
            self.get_buffer(f"{modality}_{name}").copy_(value)

    def without_emotion(
        self,
        modality: str,
        statistics: SpeakerStatistics,
        targets: torch.Tensor,
    ) -> SpeakerStatistics:
        """Takes out of a speaker's mean what the emotions in the clips put in.

        Iterative feature normalization takes its statistics from those clips
        that the model holds to be neutral. Here all clips count, less what
        their probable emotions do on average; so clips of one emotion do not
        pass for the speaker's rest. What the model says of n clips counts half
        at the most, n / (2 n + 8), since it is most wrong for the speakers that
        are farthest from the average. Of B speakers; targets (B, num_outputs)
        are means over the clips of class probabilities or attributes.
        """
        slopes = self.get_buffer(f"{modality}_slopes")
        usual = self.get_buffer(f"{modality}_target_mean")
        count = statistics.count.unsqueeze(1)
        believed = count / (2 * count + PRIOR_EMOTIONS)
        moved = (believed * (targets.to(slopes) - usual)) @ slopes
        mean = statistics.mean - moved
        return SpeakerStatistics(statistics.count, mean, statistics.variance)

    def forward(
        self, modality: str, x: torch.Tensor, statistics: SpeakerStatistics
    ) -> torch.Tensor:
        """Normalizes each clip's features (B, T, D) by the statistics of its
        speaker, B of them."""
        mu = self.get_buffer(f"{modality}_mean")
        between = self.get_buffer(f"{modality}_between")
        within = self.get_buffer(f"{modality}_within")
        count = statistics.count.unsqueeze(1)
        known = count * between / (count * between + within)
        mean = mu + known * (statistics.mean - mu)
        squares = statistics.variance + (statistics.mean - mean).square()
        variance = count * squares + PRIOR_CLIPS * within
        variance = variance / (count + PRIOR_CLIPS)
        scale = (within / variance).sqrt()
        moved = (x - mean.unsqueeze(1)) * scale.unsqueeze(1) + mu
        return torch.where(count.unsqueeze(2) > 0, moved.to(x.dtype), x)


def make_speaker_normalization(
    mode: str, audio_dim: int, visual_dim: int, num_outputs: int
) -> SpeakerNormalization | None:
    """What ``speaker_normalization`` in the YAML asks for; None for "none".

    Example
    -------
    >>> make_speaker_normalization("none", 4, 4, 6) is None
    True
    >>> make_speaker_normalization("iterative", 4, 4, 6).iterative
    True
    """
    if mode not in MODES:
        raise VAVLError(
            f"speaker_normalization: must be one of {', '.join(MODES)}, not "
            f"{mode!r}"
        )
    if mode == "none":
        return None
    return SpeakerNormalization(
        audio_dim, visual_dim, num_outputs, iterative=mode == "iterative"
    )
