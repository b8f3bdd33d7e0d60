"""Training with speaker normalization: each clip is normalized by a random
number of other clips of its speaker."""

import math

import torch
from speechbrain.dataio.batch import PaddedBatch, PaddedData
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.distributed import run_on_main

from vavl_sb.lobes.speaker_normalization import (
    SpeakerNormalization,
    SpeakerStatistics,
)
from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.utils.logger import get_logger
from vavl_sb.utils.seeding import clip_generator

logger = get_logger(__name__)

# Share of the samples without any other clip, and share with all of them.
EXTREMES = 0.25


class SpeakerSamples:
    """Random samples of the other training clips of each clip's speaker.

    A quarter of the samples is empty, a quarter has all other clips of the
    speaker, and the rest have a log-uniform number of clips, so that the
    network is trained on any number. A sample depends only on the seed, the
    epoch and the clip.

    Arguments
    ---------
    normalization : SpeakerNormalization
        Module that :meth:`fit` fits.
    seed : int
        Seed of the samples.
    """

    def __init__(self, normalization: SpeakerNormalization, seed: int):
        self.normalization, self.seed = normalization, seed
        self.clips: dict[str, list] = {}  # speaker to ids
        self.speakers: dict[str, str] = {}  # id to speaker
        # Modality to id to row in `means`.
        self.rows: dict[str, dict] = {m: {} for m in MODALITIES}
        self.means: dict[str, torch.Tensor] = {}  # time means of the clips

    def fit(self, train_set: DynamicItemDataset) -> None:
        """Fits the normalization to the training clips."""
        tables: dict[str, list] = {m: [] for m in MODALITIES}
        targets = {}
        for item in train_set:
            clip, label = item["id"], item["label"]
            if not label.is_floating_point():
                classes = self.normalization.settings["num_outputs"]
                label = torch.nn.functional.one_hot(label.squeeze(-1), classes)
            targets[clip] = label.float()
            self.speakers[clip] = train_set.data[clip]["spk_id"]
            self.clips.setdefault(self.speakers[clip], []).append(clip)
            for modality, table in tables.items():
                if len(item[modality]):
                    self.rows[modality][clip] = len(table)
                    table.append(item[modality].float().mean(dim=0))
        self.means = {m: torch.stack(t) for m, t in tables.items() if t}
        if len(self.clips) in (1, len(self.speakers)):
            logger.warning(
                "speaker_normalization: requires several training speakers "
                "with several clips each; means are not normalized"
            )
        run_on_main(self._fit, [targets])

    def _fit(self, targets):
        """Fits the normalization, in the main process."""
        for modality, means in self.means.items():
            clips = list(self.rows[modality])
            self.normalization.fit(
                modality,
                means,
                torch.stack([targets[clip] for clip in clips]),
                [self.speakers[clip] for clip in clips],
            )

    def sample(self, clip: str, epoch: int) -> list[str]:
        """Samples ids of other clips of a clip's speaker."""
        others = [c for c in self.clips[self.speakers[clip]] if c != clip]
        random = clip_generator(clip, self.seed, f"speaker, epoch {epoch}")
        kind = random.random()
        if kind < EXTREMES or not others:
            return []
        if kind < 2 * EXTREMES:
            return others
        count = int(math.exp(random.uniform(0, math.log(len(others)))))
        places = random.permutation(len(others))[:count]
        return [others[place] for place in places]

    @torch.no_grad()
    def normalize(
        self,
        modality: str,
        frames: torch.Tensor,
        clips: list[str],
        epoch: int,
        lens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Normalizes a batch of features by the samples of an epoch.

        Arguments
        ---------
        modality : str
            "audio" or "visual".
        frames : torch.Tensor
            Shape (B, T, D).
        clips : list of str
            Ids of the B clips.
        epoch : int
            Epoch of the samples.
        lens : torch.Tensor
            Relative lengths, shape (B,); None: no padding.

        Returns
        -------
        torch.Tensor
            Shape (B, T, D), 0 past a clip's end.
        """
        speakers: list[SpeakerStatistics | None] = []
        rows = self.rows[modality]
        for clip in clips:
            sample = [c for c in self.sample(clip, epoch) if c in rows]
            if not sample:
                speakers.append(None)
                continue
            means = self.means[modality][[rows[c] for c in sample]]
            mean = means.mean(dim=0, keepdim=True)
            # Twice as fast as torch.var over clips.
            var = (means - mean).square().mean(dim=0, keepdim=True)
            count = torch.tensor([float(len(sample))])
            speakers.append(SpeakerStatistics(count, mean, var))
        device = self.normalization.audio_mean.device
        dim = self.normalization.dim(modality)
        statistics = SpeakerStatistics.stack(speakers, dim).to(device)
        lens = None if lens is None else lens.to(device)
        moved = self.normalization(
            modality, frames.to(device), statistics, lens
        )
        return moved.to(frames.device)

    def normalize_batch(self, batch: PaddedBatch, epoch: int) -> PaddedBatch:
        """Normalizes ``audio`` and ``visual`` of a batch in place; returns
        it."""
        for modality in MODALITIES:
            frames, lens = getattr(batch, modality)
            named = (modality, frames, list(batch.id), epoch, lens)
            setattr(batch, modality, PaddedData(self.normalize(*named), lens))
        return batch
