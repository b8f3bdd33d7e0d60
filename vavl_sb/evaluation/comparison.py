"""A paired comparison of two protocols, by speaker.

Authors
 * The vavl_sb authors 2026
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vavl_sb.evaluation.results import (
    MODALITIES,
    Head,
    read_result,
    speaker_tables,
)
from vavl_sb.evaluation.statistics import (
    draw_speakers,
    holm,
    interval,
    mean_scores,
    swap_test,
)
from vavl_sb.evaluation.sufficient_statistics import score_function
from vavl_sb.evaluation.summary import SUMMARY, table, title
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json, write_json, write_lines


@dataclass
class Protocol:
    """A protocol's finished runs.

    Arguments
    ---------
    folder : Path
        Its folder.
    results : dict
        (partition, seed) to :class:`~vavl_sb.evaluation.results.Result`.
    unfinished : set
        (partition, seed) of runs that did not finish.
    """

    folder: Path
    results: dict
    unfinished: set


def read_protocol(folder):
    """Reads the finished runs of a protocol.

    Arguments
    ---------
    folder : str or Path
        Where ``vavl protocol`` left protocol.json.

    Returns
    -------
    Protocol

    Raises
    ------
    VAVLError
        In one line: it is no such folder, or a run's files cannot be used.
    """
    path = Path(folder) / SUMMARY
    try:
        runs = read_json(path)["runs"]
        keyed = {(r["partition"], r["seed"]): r for r in runs}
    except OSError as error:
        raise VAVLError(
            f"{path}: cannot be read ({error.strerror}); give a folder that "
            "vavl protocol has filled"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise VAVLError(f"{path}: cannot be used ({error})") from None
    return Protocol(
        Path(folder),
        {
            key: read_result(path.parent / run["folder"])
            for key, run in keyed.items()
            if run["finished"]
        },
        {key for key, run in keyed.items() if not run["finished"]},
    )


def compare(first, second):
    """Compares two protocols on the clips of the runs that both have.

    Arguments
    ---------
    first, second : Protocol
        From :func:`read_protocol`.

    Returns
    -------
    dict
        What comparison.json holds: ``runs`` in common, ``only_first`` and
        ``only_second``, and ``modalities``: for each ``n_runs``,
        ``n_speakers``, ``n_clips``, ``n_unpaired`` (clips that one side lacks),
        ``exact``, ``smallest_p`` and ``scores``: ``first``, ``second``,
        ``difference`` (first - second), ``low``, ``high``, ``p`` and
        ``p_holm``.

    Raises
    ------
    VAVLError
        In one line: tasks or labels differ, or there is nothing in common.
    """
    common = [key for key in first.results if key in second.results]
    if not common:
        raise VAVLError(
            f"{first.folder} and {second.folder}: have no finished run "
            "(partition, seed) in common; run both with the same --partitions "
            "and --seeds"
        )
    pairs = [(first.results[key], second.results[key]) for key in common]
    for one, other in pairs:
        if (one.task, one.labels) != (other.task, other.labels):
            raise VAVLError(
                f"{first.folder} and {second.folder}: are not of the same "
                f"task and labels ({one.task} {one.labels}, {other.task} "
                f"{other.labels})"
            )
    score = score_function(pairs[0][0].task, pairs[0][0].labels)
    modalities = {}
    for modality in MODALITIES:
        found = _one_modality(pairs, modality, score, (first, second))
        if found:
            modalities[modality] = found
    if not modalities:
        raise VAVLError(
            f"{first.folder} and {second.folder}: have no test clip in common"
        )
    _correct([part["scores"] for part in modalities.values()])
    return {
        "first": str(first.folder),
        "second": str(second.folder),
        "runs": [list(key) for key in common],
        "only_first": _missing(first, second),
        "only_second": _missing(second, first),
        "modalities": modalities,
    }


def _missing(one, other):
    """Runs that only one side has finished."""
    return [list(key) for key in one.results if key not in other.results]


def _one_modality(pairs, modality, score, protocols):
    """The comparison of one head; None where no run scored it twice."""
    heads, unpaired = [], 0
    for one, other in pairs:
        if modality in one.heads and modality in other.heads:
            a, b, left = _pair(one.heads[modality], other.heads[modality])
            unpaired += left
            if a is None:
                raise VAVLError(
                    f"{protocols[0].folder} and {protocols[1].folder}: {b}; "
                    "the two must be scored on the same labels"
                )
            if a.clips:
                heads.append((a, b))
    if not heads:
        return None
    first, tested, speakers = speaker_tables([a for a, _ in heads])
    second, _, _ = speaker_tables([b for _, b in heads], speakers)
    weights = draw_speakers(tested)
    ones = mean_scores(first, weights, score)
    others = mean_scores(second, weights, score)
    tests, exact = swap_test(first, second, score)
    unit = np.ones((1, len(speakers)))
    values = [mean_scores(t, unit, score) for t in (first, second)]
    scores = {}
    for name, (difference, p) in tests.items():
        low, high = interval(ones[name] - others[name])
        scores[name] = {
            "first": float(values[0][name][0]),
            "second": float(values[1][name][0]),
            "difference": difference,
            "low": low,
            "high": high,
            "p": p,
        }
    return {
        "n_runs": len(heads),
        "n_speakers": len(speakers),
        "n_clips": len({clip for a, _ in heads for clip in a.clips}),
        "n_unpaired": unpaired,
        "exact": exact,
        "smallest_p": 0.5 ** (len(speakers) - 1) if exact else None,
        "scores": scores,
    }


def _pair(one, other):
    """The clips that both heads have, in one order, and how many have not.

    None and the reason where labels differ.
    """
    places = [{clip: i for i, clip in enumerate(h.clips)} for h in (one, other)]
    common = sorted(places[0].keys() & places[1].keys())
    heads = []
    for head, place in zip((one, other), places):
        rows = np.array([place[clip] for clip in common], dtype=int)
        heads.append(
            Head(
                common,
                [head.speakers[row] for row in rows],
                head.truths[rows],
                head.tables[rows],
            )
        )
    a, b = heads
    same = np.isclose(a.truths, b.truths, atol=1e-5)
    same = same.reshape(len(common), -1).all(axis=1)
    for clip, equal, who, other_who in zip(
        common, same, a.speakers, b.speakers
    ):
        if not equal or who != other_who:
            return None, f"clip {clip} has another label or speaker", 0
    unpaired = len(one.clips) + len(other.clips) - 2 * len(common)
    return a, b, unpaired


def _correct(families):
    """Adds Holm's p for each score, over the dicts of scores given."""
    for name in families[0]:
        having = [scores[name] for scores in families if name in scores]
        for entry, p in zip(having, holm([e["p"] for e in having])):
            entry["p_holm"] = p


def write_comparison(content, folder):
    """Writes comparison.json and comparison.md.

    Arguments
    ---------
    content : dict
        From :func:`compare`.
    folder : str or Path
        Where to write.

    Returns
    -------
    list of str
        Lines of Markdown.
    """
    write_json(Path(folder) / "comparison.json", content)
    lines = comparison_lines(content)
    write_lines(Path(folder) / "comparison.md", lines)
    return lines


def comparison_lines(content):
    """The table of a comparison.

    Arguments
    ---------
    content : dict
        From :func:`compare`.

    Returns
    -------
    list of str
        Lines of Markdown.
    """
    lines = [
        f"# A: {content['first']}, B: {content['second']}",
        "",
        f"{len(content['runs'])} runs in common.",
    ]
    for name, key in (("A", "only_first"), ("B", "only_second")):
        if content[key]:
            runs = ", ".join(f"{p}/{s}" for p, s in content[key])
            lines.append(
                f"Finished in {name} alone and left out (partition/seed): "
                f"{runs}."
            )
    rows = []
    for modality, part in content["modalities"].items():
        if part["n_unpaired"]:
            lines.append(
                f"{modality}: {part['n_unpaired']} predictions without a "
                "partner left out."
            )
        if (part["smallest_p"] or 0.0) > 0.05:
            lines.append(
                f"{modality}: with {part['n_speakers']} speakers p cannot "
                f"fall below {part['smallest_p']:g}."
            )
        for name, s in part["scores"].items():
            rows.append(
                [
                    modality,
                    title(name),
                    f"{s['first']:.3f}",
                    f"{s['second']:.3f}",
                    f"{s['difference']:+.3f}",
                    f"[{s['low']:+.3f}, {s['high']:+.3f}]",
                    f"{s['p']:.4f}",
                    f"{s['p_holm']:.4f}",
                    f"{part['n_speakers']}",
                ]
            )
    head = "modality,score,A,B,A - B,95 % interval,p,p (Holm),speakers"
    return [*lines, "", *table(head.split(","), rows)]
