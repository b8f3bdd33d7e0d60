"""Base class of networks that always take both modalities as input."""

from typing import NamedTuple

import torch

from vavl_sb.lobes.fusion.transformer import normalized
from vavl_sb.lobes.vavl import HEADS, READS, AudioVisualNetwork, VAVLOutput
from vavl_sb.nnet.masking import PresentRows, have_all, scatter_rows


class Frames(NamedTuple):
    """Frames of one modality (n, T, D), and a mask (n, T) that is True where a
    frame is padding."""

    frames: torch.Tensor
    padding_mask: torch.Tensor


class JointFusion(AudioVisualNetwork):
    """A network that replaces a missing modality by a frame of zeros.

    The three heads are the same network: "audio" with zeros for visual,
    "visual" with zeros for audio, "audiovisual" with both. A batch takes one
    step with the sum of the three losses. So the network is also trained
    without either modality, on clips with one or both. Subclasses define the
    network.
    """

    updates = ("joint",)

    def fuse(self, audio: Frames, visual: Frames) -> torch.Tensor:
        """Predicts (n, num_outputs) from normalized features of n clips."""
        raise NotImplementedError

    def predict(self, head: str, inputs: dict[str, Frames]) -> torch.Tensor:
        """Predictions of a head, (n, num_outputs), from the frames of n clips;
        the modality that the head does not use is zeros."""
        return self.fuse(**inputs)

    def forward_rows(
        self,
        inputs: dict[str, PresentRows],
        freeze_backbone: bool = False,
        detach_pair: bool = False,
    ) -> VAVLOutput:
        """Predicts from the modalities that each clip has; see the base
        class."""
        # Once, so that all heads get the same noise.
        features = {
            modality: normalized(self.get_submodule(f"{modality}_branch"), rows)
            for modality, rows in inputs.items()
            if rows.count
        }
        predictions = {}
        for head in HEADS:
            chosen = have_all(inputs[modality] for modality in READS[head])
            if chosen is None:
                continue
            clips = {
                modality: _clips(rows, features[modality], chosen)
                if modality in READS[head]
                else self._zeros(modality, chosen)
                for modality, rows in inputs.items()
            }
            predictions[head] = scatter_rows(self.predict(head, clips), chosen)
        return VAVLOutput(**predictions)

    def _zeros(self, modality, chosen):
        """Returns one frame of zeros for each of the chosen clips."""
        branch = self.get_submodule(f"{modality}_branch")
        size = int(chosen.sum()), 1, len(branch["normalize"].mean)
        zeros = torch.zeros(size, device=chosen.device)
        return Frames(zeros, torch.zeros_like(zeros[..., 0], dtype=torch.bool))


def _clips(rows, features, chosen):
    """Selects the frames of the chosen clips, which all have the modality."""
    kept = chosen[rows.present]
    return Frames(features[kept], rows.padding_mask[kept])
