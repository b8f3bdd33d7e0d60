"""What networks have in common that read both modalities at once."""

from typing import NamedTuple

import torch

from vavl_sb.lobes.fusion.transformer import normalized
from vavl_sb.lobes.vavl import HEADS, READS, AudioVisualNetwork, VAVLOutput
from vavl_sb.nnet.masking import PresentRows, have_all, scatter_rows


class Frames(NamedTuple):
    """One modality's frames (n, T, D), and where they are padding (n, T)."""

    frames: torch.Tensor
    padding_mask: torch.Tensor


class JointFusion(AudioVisualNetwork):
    """One network for what a clip has: what it lacks is a frame of zeros.

    All three heads are that network: "audio" with zeros for the face, "visual"
    with zeros for the voice, "audiovisual" with both. A batch takes one step
    with the sum of the three losses, so that the network learns to do without
    either, from clips that have both and from clips that do not. Subclasses
    say what the network computes.
    """

    updates = ("joint",)

    def fuse(self, audio: Frames, visual: Frames) -> torch.Tensor:
        """Predicts (n, num_outputs) from normalized features of n clips."""
        raise NotImplementedError

    def predict(self, head: str, inputs: dict[str, Frames]) -> torch.Tensor:
        """What a head says, (n, num_outputs), of n clips' frames; zeros where
        the head does without."""
        return self.fuse(**inputs)

    def forward_rows(
        self,
        inputs: dict[str, PresentRows],
        freeze_backbone: bool = False,
        detach_pair: bool = False,
    ) -> VAVLOutput:
        """Predicts from whatever the batch has; see the base class."""
        # Once, so that all heads see the same noise.
        features = {
            modality: normalized(self.get_submodule(f"{modality}_branch"), rows)
            for modality, rows in inputs.items()
            if rows.count
        }
        found = {}
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
            found[head] = scatter_rows(self.predict(head, clips), chosen)
        return VAVLOutput(**found)

    def _zeros(self, modality, chosen):
        """A single frame of zeros for each of the chosen clips."""
        branch = self.get_submodule(f"{modality}_branch")
        size = int(chosen.sum()), 1, len(branch["normalize"].mean)
        zeros = torch.zeros(size, device=chosen.device)
        return Frames(zeros, torch.zeros_like(zeros[..., 0], dtype=torch.bool))


def _clips(rows, features, chosen):
    """Frames of the chosen clips, all of which have the modality."""
    kept = chosen[rows.present]
    return Frames(features[kept], rows.padding_mask[kept])
