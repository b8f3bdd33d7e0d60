"""Training with speaker normalization: each clip meets other clips of its
speaker, as many as chance wants."""

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
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.logger import get_logger
from vavl_sb.utils.seeding import clip_generator

logger = get_logger(__name__)

# Of the draws, so many have no other clip, and as many have all of them.
EXTREMES = 0.25


class SpeakerDraws:
    """What other clips of each clip's speaker tell, drawn anew every epoch.

    A quarter of the draws has no clip, a quarter has all other clips of the
    speaker, and the rest a number between, of which each doubling is as likely
    as the next; so the network learns to do with whatever is there. A draw
    depends on the seed, the epoch and the clip alone. :meth:`fit` fills the
    normalization.
    """

    def __init__(self, normalization: SpeakerNormalization, seed: int):
        self.normalization, self.seed = normalization, seed
        self.clips: dict[str, list] = {}  # speaker to ids
        self.speakers: dict[str, str] = {}  # id to speaker
        # Modality to the places of ids in a table of time means.
        self.places: dict[str, dict] = {m: {} for m in MODALITIES}
        self.means: dict[str, torch.Tensor] = {}
        self.targets: dict[str, torch.Tensor] = {}

    def fit(
        self,
        train_set: DynamicItemDataset,
        valid_set: DynamicItemDataset | None,
    ) -> None:
        """Reads the clips, of :func:`vavl_sb.dataio.datasets.emotion_datasets`,
        and fits the normalization to those of training."""
        tables: dict[str, list] = {m: [] for m in MODALITIES}
        for dataset in filter(None, (train_set, valid_set)):
            for item in dataset:
                self._read(item, dataset.data[item["id"]]["spk_id"], tables)
        for modality, rows in tables.items():
            if rows:
                self.means[modality] = torch.stack(rows)
        run_on_main(self._fit, [list(train_set.data)])

    def _read(self, item, speaker, tables):
        """Notes one clip."""
        clip, label = item["id"], item["label"]
        if not label.is_floating_point():
            classes = self.normalization.settings["num_outputs"]
            label = torch.nn.functional.one_hot(label.squeeze(-1), classes)
        self.targets[clip] = label.float()
        self.speakers[clip] = speaker
        self.clips.setdefault(speaker, []).append(clip)
        for modality, rows in tables.items():
            frames = item[modality]
            if frames.ndim == 1:
                raise VAVLError(
                    "speaker_normalization: is of features; set "
                    "freeze_audio_encoder to True, or speaker_normalization "
                    "to none"
                )
            if len(frames):
                self.places[modality][clip] = len(rows)
                rows.append(frames.float().mean(dim=0))

    def _fit(self, train_clips):
        """Fits the normalization, in the main process."""
        for modality, places in self.places.items():
            clips = [clip for clip in train_clips if clip in places]
            if not clips:
                continue
            rows = [places[clip] for clip in clips]
            targets = torch.stack([self.targets[clip] for clip in clips])
            speakers = [self.speakers[clip] for clip in clips]
            if len(set(speakers)) == 1:
                logger.warning(
                    "speaker_normalization: one training speaker does not "
                    "tell how speakers differ; no speaker's mean is moved"
                )
            self.normalization.fit(
                modality, self.means[modality][rows], targets, speakers
            )

    def draw(self, clip: str, epoch: int) -> list[str]:
        """Other clips of a clip's speaker, as many as chance wants."""
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

    def statistics(
        self, modality: str, clips: list[str], epoch: int
    ) -> SpeakerStatistics:
        """What an epoch's draw tells of the speakers of B clips, by their ids."""
        found: list[SpeakerStatistics | None] = []
        places = self.places[modality]
        for clip in clips:
            drawn = [c for c in self.draw(clip, epoch) if c in places]
            if not drawn:
                found.append(None)
                continue
            rows = self.means[modality][[places[c] for c in drawn]]
            one = SpeakerStatistics(
                torch.tensor([float(len(drawn))]),
                rows.mean(dim=0, keepdim=True),
                rows.var(dim=0, correction=0, keepdim=True),
            )
            if self.normalization.iterative:
                targets = torch.stack([self.targets[c] for c in drawn])
                one = self._without_emotion(modality, one, targets)
            found.append(one)
        return SpeakerStatistics.stack(found, self.normalization.dim(modality))

    def _without_emotion(self, modality, statistics, targets):
        """What enrolment does, by what the clips are known to be."""
        device = self.normalization.get_buffer("audio_mean").device
        return self.normalization.without_emotion(
            modality,
            statistics.to(device),
            targets.mean(dim=0, keepdim=True).to(device),
        ).to("cpu")

    @torch.no_grad()
    def normalize(
        self, modality: str, frames: torch.Tensor, clips: list[str], epoch: int
    ) -> torch.Tensor:
        """A batch of features (B, T, D) of B clips, each normalized by its
        speaker's draw in an epoch."""
        device = self.normalization.get_buffer("audio_mean").device
        statistics = self.statistics(modality, clips, epoch).to(device)
        moved = self.normalization(modality, frames.to(device), statistics)
        return moved.to(frames.device)

    def normalize_batch(self, batch: PaddedBatch, epoch: int) -> PaddedBatch:
        """A batch whose ``audio`` and ``visual`` are replaced; padding is 0."""
        for modality in MODALITIES:
            frames, lens = getattr(batch, modality)
            moved = self.normalize(modality, frames, list(batch.id), epoch)
            place = torch.arange(frames.shape[1], device=frames.device)
            ends = (lens * frames.shape[1]).round().unsqueeze(1)
            moved = moved.masked_fill((place >= ends).unsqueeze(2), 0.0)
            setattr(batch, modality, PaddedData(moved, lens))
        return batch
