"""What networks have in common that read both modalities at once."""

from typing import NamedTuple

import torch

from vavl_sb.lobes.fusion.transformer import normalized
from vavl_sb.lobes.vavl import HEADS, MODALITIES, AudioVisualNetwork, VAVLOutput
from vavl_sb.nnet.masking import PresentRows


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

    def forward(
        self,
        audio: torch.Tensor | None = None,
        audio_lens: torch.Tensor | None = None,
        visual: torch.Tensor | None = None,
        visual_lens: torch.Tensor | None = None,
        freeze_backbone: bool = False,
        detach_pair: bool = False,
    ) -> VAVLOutput:
        """Predicts from whatever the batch has, as
        :meth:`vavl_sb.lobes.vavl.VAVL.forward`.

        ``freeze_backbone`` and ``detach_pair`` have no effect: there is no
        audio-visual head apart from the rest.
        """
        rows = {
            "audio": PresentRows(audio, audio_lens),
            "visual": PresentRows(visual, visual_lens),
        }
        # Once, so that all heads see the same noise.
        features = {
            modality: normalized(self.get_submodule(f"{modality}_branch"), has)
            for modality, has in rows.items()
            if has.count
        }
        found = {}
        for head in HEADS:
            needs = MODALITIES if head == "audiovisual" else (head,)
            if not set(needs) <= features.keys():
                continue
            chosen = torch.stack([rows[m].present for m in needs]).all(dim=0)
            if not chosen.any():
                continue
            count = int(chosen.sum())
            inputs = {
                modality: _clips(rows[modality], features[modality], chosen)
                if modality in needs
                else self._zeros(modality, count, chosen.device)
                for modality in MODALITIES
            }
            out = self.predict(head, inputs)
            full = out.new_zeros(len(chosen), out.shape[-1])
            found[head] = full.masked_scatter(chosen.unsqueeze(-1), out)
        return VAVLOutput(**found)

    def _zeros(self, modality, count, device):
        """A single frame of zeros for each clip."""
        branch = self.get_submodule(f"{modality}_branch")
        dim = len(branch["normalize"].mean)
        padding = torch.zeros(count, 1, dtype=torch.bool, device=device)
        return Frames(torch.zeros(count, 1, dim, device=device), padding)


def _clips(rows, features, chosen):
    """Frames of the chosen clips, all of which have the modality."""
    kept = chosen[rows.present]
    return Frames(features[kept], rows.padding_mask[kept])
