"""What a prepare script kept, what it left out, and why.

Authors
 * The vavl_sb authors 2026
"""

import dataclasses

from vavl_sb.utils.files import write_json


@dataclasses.dataclass
class PrepareReport:
    """What a prepare script kept, what it left out, and why.

    Arguments
    ---------
    kept : dict
        Split to counts of its clips; filled by :meth:`keep`.
    left_out : dict
        Reason to {clip: detail}: clips that are in no manifest.
    one_modality : dict
        Reason to {clip: detail}: clips that are kept with one modality.
    noted : dict
        Remark to {clip: detail}: clips that are kept as they are.

    Example
    -------
    >>> report = PrepareReport()
    >>> report.leave_out("1001_DFA_FEA_XX", "no majority", "5 of 10 votes")
    >>> report.summary()
    ['left out: 1 clip (1 no majority)']
    """

    kept: dict = dataclasses.field(default_factory=dict)
    left_out: dict = dataclasses.field(default_factory=dict)
    one_modality: dict = dataclasses.field(default_factory=dict)
    noted: dict = dataclasses.field(default_factory=dict)

    def leave_out(self, clip, reason, detail=""):
        """Records that a clip is in no manifest.

        Arguments
        ---------
        clip : str
            Its id, or the file's name where it has none.
        reason : str
            A few words, the same for all clips left out for it.
        detail : str
            What holds for this clip, in one line.
        """
        self.left_out.setdefault(reason, {})[clip] = detail

    def lose_modality(self, clip, reason, detail=""):
        """Records that a clip is kept with one modality.

        Arguments
        ---------
        clip : str
            Its id.
        reason : str
            A few words that name the modality, the same for all such clips.
        detail : str
            What holds for this clip, in one line.
        """
        self.one_modality.setdefault(reason, {})[clip] = detail

    def note(self, clip, remark, detail=""):
        """Records a remark on a clip that is kept as it is.

        Arguments
        ---------
        clip : str
            Its id.
        remark : str
            A few words, the same for all such clips.
        detail : str
            What holds for this clip, in one line.
        """
        self.noted.setdefault(remark, {})[clip] = detail

    def keep(self, split, entries):
        """Counts the clips of a split, as they are in its manifest.

        Arguments
        ---------
        split : str
            "train", "valid" or "test".
        entries : dict
            Clip id to entry.
        """
        rows = list(entries.values())
        audio_only = sum(row["video"] is None for row in rows)
        visual_only = sum(row["wav"] is None for row in rows)
        withheld = [row.get("withheld") for row in rows]
        self.kept[split] = {
            "clips": len(rows),
            "speakers": len({row["spk_id"] for row in rows}),
            "audiovisual": len(rows) - audio_only - visual_only,
            "audio_only": audio_only,
            "visual_only": visual_only,
            "withheld_audio": withheld.count("audio"),
            "withheld_visual": withheld.count("visual"),
            "hours": round(sum(row["duration"] for row in rows) / 3600, 4),
        }

    def reasons(self, clips=None):
        """Why clips were left out, in one phrase.

        Arguments
        ---------
        clips : callable, optional
            Tells of a clip id whether to count it; None counts all.

        Returns
        -------
        str
            "1529 no majority, 2 not on disk", most frequent first; or
            "nothing".
        """
        counts = {
            reason: sum(clips is None or clips(clip) for clip in members)
            for reason, members in self.left_out.items()
        }
        return _phrase(counts) or "nothing"

    def summary(self):
        """The report in a few lines.

        Returns
        -------
        list of str
            A line for each split, and one for each kind of remark that was
            made.
        """
        lines = [
            f"{split}: {n['clips']} clips, speakers: {n['speakers']} "
            f"({n['audiovisual']} audio-visual, {n['audio_only']} audio only, "
            f"{n['visual_only']} face only; withheld: {n['withheld_audio']} "
            f"audio, {n['withheld_visual']} face)"
            for split, n in self.kept.items()
        ]
        for title, groups in (
            ("left out", self.left_out),
            ("kept with one modality", self.one_modality),
            ("noted", self.noted),
        ):
            clips = {clip for group in groups.values() for clip in group}
            if clips:
                counts = {reason: len(groups[reason]) for reason in groups}
                plural = "s" * (len(clips) != 1)
                lines.append(
                    f"{title}: {len(clips)} clip{plural} ({_phrase(counts)})"
                )
        return lines

    def log(self, logger):
        """Logs the summary.

        Arguments
        ---------
        logger : logging.Logger
            The prepare script's.
        """
        for line in self.summary():
            logger.info("%s", line)

    def write(self, path, **more):
        """Writes the report as JSON, atomically.

        Arguments
        ---------
        path : str or Path
            Where to write; by custom ``prepare_report.json`` beside the
            manifests.
        **more
            Further keys, for example the arguments of the prepare script.
        """
        content = {"kept": self.kept}
        for name in ("left_out", "one_modality", "noted"):
            groups = getattr(self, name)
            content[name] = {
                reason: {
                    "count": len(groups[reason]),
                    "clips": dict(sorted(groups[reason].items())),
                }
                for reason in sorted(groups)
            }
        write_json(path, {**content, **more})


def _phrase(counts):
    """Counts as "3 this, 1 that", most frequent first, without zeros."""
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {what}" for what, count in order if count)
