"""What a model's heads say about clips, and how well they score.

Authors
 * The vavl_sb authors 2026
"""

import torch

from vavl_sb.utils.metrics import ConcordanceStats, EmotionStats

HEADS = ("audio", "visual", "audiovisual")


class Answers:
    """Outputs of each head, and scores of any choice among them.

    Arguments
    ---------
    task : str
        "classification" or "regression".
    labels : list
        Names of classes or attributes.

    Example
    -------
    >>> answers = Answers("classification", ["angry", "happy"])
    >>> right = {"audio": torch.tensor([2.0, 1.0])}
    >>> answers.add("clip", right, answers.target({"emotion": "angry"}))
    >>> answers.scores(["audio"])["audio"]["uar"]
    1.0
    """

    def __init__(self, task, labels):
        self.task, self.labels = task, labels
        self.outputs = {head: {} for head in (*HEADS, "auto")}
        self.targets = {}

    def target(self, entry):
        """What a head should say about a clip.

        Arguments
        ---------
        entry : dict
            Of a manifest.

        Returns
        -------
        torch.Tensor
            Class index, shape (1,), or attributes, shape (1, n).
        """
        if self.task == "classification":
            return torch.tensor([self.labels.index(entry["emotion"])])
        return torch.tensor([[float(entry[name]) for name in self.labels]])

    def add(self, clip, outputs, target):
        """Adds a clip.

        Arguments
        ---------
        clip : str
            Its id.
        outputs : dict
            From :meth:`vavl_sb.inference.emotion.EmotionRecognizer.outputs`,
            not empty.
        target : torch.Tensor
            From :meth:`target`.
        """
        for head, values in outputs.items():
            self.outputs[head][clip] = values
        # As EmotionRecognizer chooses: both where there are both.
        best = [head for head in HEADS if head in outputs][-1]
        self.outputs["auto"][clip] = outputs[best]
        self.targets[clip] = target

    def ids(self, head="auto"):
        """Clips that a head has answered for.

        Arguments
        ---------
        head : str
            One of ``HEADS``, or "auto" for any.

        Returns
        -------
        list of str
        """
        return list(self.outputs[head])

    def scores(self, heads, clips=None):
        """Scores of some heads, each on its own.

        Arguments
        ---------
        heads : sequence of str
            Of ``HEADS`` and "auto".
        clips : list of str
            Only these. "audiovisual" then stands for "auto" where a clip has
            lost a modality, as in use. None: all that a head answered for.

        Returns
        -------
        dict
            Head to its scores with ``n``, the clips that it answered for.
            Heads without any are not in it.
        """
        found = {}
        for head in heads:
            chosen = self.ids(head) if clips is None else clips
            source = head
            if clips is not None and head == "audiovisual":
                source = "auto"
            chosen = [c for c in chosen if c in self.outputs[source]]
            if chosen:
                found[head] = self.score_of(dict.fromkeys(chosen, source))
        return found

    def score_of(self, heads):
        """Scores where each clip is answered for by a head of its own.

        Arguments
        ---------
        heads : dict
            Clip to head, not empty.

        Returns
        -------
        dict
            ``n``, and ``f1_macro``, ``f1_micro``, ``uar``, or ``ccc`` and
            ``ccc_mean``.
        """
        summary = dict(self.stats(heads).summarize())
        summary.pop("confusion", None)
        return {"n": len(heads), **summary}

    def stats(self, heads):
        """The same as a statistics object.

        Arguments
        ---------
        heads : dict
            Clip to head.

        Returns
        -------
        EmotionStats or ConcordanceStats
        """
        kinds = {"classification": EmotionStats, "regression": ConcordanceStats}
        stats = kinds[self.task](self.labels)
        if heads:
            stats.append(
                list(heads),
                torch.stack([self.outputs[heads[c]][c] for c in heads]),
                torch.cat([self.targets[clip] for clip in heads]),
            )
        return stats
