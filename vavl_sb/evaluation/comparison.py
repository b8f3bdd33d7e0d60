"""Summary and paired comparison of protocols, as JSON and Markdown tables."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vavl_sb.evaluation.predictions import read_run
from vavl_sb.evaluation.statistics import (
    draw_speakers,
    holm,
    interval,
    mean_scores,
    score_function,
    speaker_sums,
    swap_test,
)
from vavl_sb.training.plots import SCORE_NAMES
from vavl_sb.training.report import table
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json, write_json, write_lines
from vavl_sb.utils.text import markdown

SPREAD = (
    "Mean ± sample standard deviation over runs, and the 95 % bootstrap "
    "interval of the mean by test speaker."
)


def summarize(results: list) -> dict:
    """Summarizes RunResult objects of one task and the same labels.

    Returns head to ``n_runs``, ``n_speakers`` and ``scores``: score name to
    ``mean``, ``sd`` (sample standard deviation over runs; None for one run),
    ``low`` and ``high`` (95 % bootstrap interval of the mean, by speaker).
    """
    summary = {}
    for name in _heads(results):
        runs = [result for result in results if name in result.heads]
        score = score_function(runs[0].task, runs[0].labels)
        sums, tested, speakers = speaker_sums([r.heads[name] for r in runs])
        scores = {}
        draws = mean_scores(sums, draw_speakers(tested), score)
        for key, drawn in draws.items():
            values = [run.scores[name][key] for run in runs]
            low, high = interval(drawn)
            scores[key] = {
                "mean": float(np.mean(values)),
                "sd": float(np.std(values, ddof=1)) if values[1:] else None,
                "low": low,
                "high": high,
            }
        summary[name] = {
            "n_runs": len(runs),
            "n_speakers": len(speakers),
            "scores": scores,
        }
    return summary


def _heads(results):
    """Returns the heads of all runs, in order."""
    return list(dict.fromkeys(head for r in results for head in r.heads))


def write_summary(
    folder: str | Path, recipe: str, overrides: dict, errors: dict
) -> tuple[dict, list]:
    """Reads finished runs and writes protocol.json and protocol.md; returns
    the content of the former and the lines of the latter.

    ``recipe`` is the display name of the hparams file, ``overrides`` the
    options of each train.py. ``errors`` maps each
    :class:`~vavl_sb.evaluation.protocol.Run` to its error, or None.
    """
    entries, results = [], []
    for run, error in errors.items():
        entry = {
            "partition": run.partition,
            "seed": run.seed,
            "folder": Path(run.folder).name,
            "finished": error is None,
        }
        if error is None:
            results.append(read_run(run.folder))
            entry["scores"] = results[-1].scores
        else:
            entry["error"] = error
        entries.append(entry)
    content = {
        "hparams": recipe,
        "overrides": overrides,
        "task": results[0].task if results else None,
        "labels": results[0].labels if results else None,
        "n_runs": len(errors),
        "n_finished": len(results),
        "partial": len(results) < len(errors),
        "summary": summarize(results),
        "runs": entries,
    }
    return content, write_result(
        folder, "protocol", content, summary_lines(content)
    )


def summary_lines(content: dict) -> list:
    """Formats protocol.json as lines of Markdown."""
    done, total = content["n_finished"], content["n_runs"]
    lines = [f"# {content['hparams']}: {done} of {total} runs", ""]
    if content["partial"]:
        lines += [
            f"PARTIAL: {total - done} of {total} runs did not finish; the "
            "same command tries them again.",
            "",
        ]
    if content["summary"]:
        names = list(next(iter(content["summary"].values()))["scores"])
        rows = [
            [head, part["n_runs"], part["n_speakers"], *score_cells(part)]
            for head, part in content["summary"].items()
        ]
        titles = map(score_title, names)
        lines += table(["modality", "runs", "speakers", *titles], rows)
        lines += ["", SPREAD]
    return lines


def score_cells(part: dict) -> list[str]:
    """Formats the scores of one head of :func:`summarize`, a cell each."""
    cells = []
    for s in part["scores"].values():
        spread = "" if s["sd"] is None else f" ± {s['sd']:.3f}"
        ends = f"[{s['low']:.3f}, {s['high']:.3f}]"
        cells.append(f"{s['mean']:.3f}{spread} {ends}")
    return cells


def read_protocol(folder: str | Path) -> dict:
    """Reads the finished runs of a protocol: (partition, seed) to RunResult."""
    path = Path(folder) / "protocol.json"
    try:
        return {
            (run["partition"], run["seed"]): read_run(
                path.parent / run["folder"]
            )
            for run in read_json(path)["runs"]
            if run["finished"]
        }
    except OSError as error:
        raise VAVLError(
            f"{path}: cannot be read ({error.strerror}); give an output folder "
            "of vavl protocol"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise VAVLError(f"{path}: cannot be used ({error})") from None


def compare(first: str | Path, second: str | Path) -> dict:
    """Compares two protocols, given their folders, on common runs and clips.

    Returns the content of comparison.json: ``runs`` in common, ``only_first``,
    ``only_second``, and ``modalities``: for each ``n_runs``, ``n_speakers``,
    ``n_clips``, ``n_unpaired`` (clips missing on one side), ``exact``,
    ``smallest_p`` and ``scores``: ``first``, ``second``, ``difference`` (first
    - second), ``low``, ``high``, ``p`` and ``p_holm``. Raises VAVLError if
    tasks or labels differ, or there are no common runs or clips.
    """
    runs = read_protocol(first), read_protocol(second)
    content = compare_runs(*runs, f"{first} and {second}")
    return {"first": str(first), "second": str(second), **content}


def compare_runs(first: dict, second: dict, names: str) -> dict:
    """Compares two results of :func:`read_protocol`, as :func:`compare`;
    ``names`` stands for them in error messages."""
    common = [key for key in first if key in second]
    if not common:
        raise VAVLError(
            f"{names}: have no finished run (partition, seed) in common; run "
            "both with the same --partitions and --seeds"
        )
    pairs = [(first[key], second[key]) for key in common]
    for a, b in pairs:
        if (a.task, a.labels) != (b.task, b.labels):
            raise VAVLError(
                f"{names}: differ in task or labels ({a.task} "
                f"{a.labels}, {b.task} {b.labels})"
            )
    modalities = {}
    for head in _heads([a for a, _ in pairs]):
        paired = [
            _pair(a.heads[head], b.heads[head], names)
            for a, b in pairs
            if head in a.heads and head in b.heads
        ]
        if any(a for a, _, _ in paired):
            score = score_function(pairs[0][0].task, pairs[0][0].labels)
            modalities[head] = _compare_head(paired, score)
    if not modalities:
        raise VAVLError(f"{names}: have no test clip in common")
    add_holm(modalities.values())
    return {
        "runs": [list(key) for key in common],
        "only_first": [list(key) for key in first if key not in second],
        "only_second": [list(key) for key in second if key not in first],
        "modalities": modalities,
    }


def _pair(first, second, names):
    """Returns the common clips of both, in one order, and the number of
    others."""
    common = sorted(first.keys() & second.keys())
    for clip in common:
        a, b = first[clip], second[clip]
        equal = np.abs(a.target - b.target).max() <= 1e-5
        if not equal or a.speaker != b.speaker:
            raise VAVLError(
                f"{names}: clip {clip} has another label or speaker; both must "
                "use the same labels"
            )
    a, b = ({clip: run[clip] for clip in common} for run in (first, second))
    return a, b, len(first) + len(second) - 2 * len(common)


def _compare_head(pairs, score):
    """Compares one head, given the result of :func:`_pair` for each run."""
    unpaired = sum(count for _, _, count in pairs)
    pairs = [(a, b) for a, b, _ in pairs if a]
    first, tested, speakers = speaker_sums([a for a, _ in pairs])
    second, _, _ = speaker_sums([b for _, b in pairs], speakers)
    # Row 0 has each speaker once, for the scores themselves.
    weights = np.concatenate(
        [np.ones((1, len(speakers))), draw_speakers(tested)]
    )
    a = mean_scores(first, weights, score)
    b = mean_scores(second, weights, score)
    tests, exact = swap_test(first, second, score)
    scores = {}
    for name, (difference, p) in tests.items():
        low, high = interval(a[name][1:] - b[name][1:])
        scores[name] = {
            "first": float(a[name][0]),
            "second": float(b[name][0]),
            "difference": difference,
            "low": low,
            "high": high,
            "p": p,
        }
    return {
        "n_runs": len(pairs),
        "n_speakers": len(speakers),
        "n_clips": len({clip for a, _ in pairs for clip in a}),
        "n_unpaired": unpaired,
        "exact": exact,
        "smallest_p": 0.5 ** (len(speakers) - 1) if exact else None,
        "scores": scores,
    }


def add_holm(compared: Iterable[dict]) -> None:
    """Adds ``p_holm`` to the tests of comparisons; the tests of one score are a
    family."""
    families: dict[str, list] = {}
    for part in compared:
        for name, test in part["scores"].items():
            families.setdefault(name, []).append(test)
    for tests in families.values():
        for test, p in zip(tests, holm([test["p"] for test in tests])):
            test["p_holm"] = p


def write_comparison(content: dict, folder: str | Path) -> list:
    """Writes the result of :func:`compare` to comparison.json and .md, and
    returns the lines of the latter."""
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
    for head, part in content["modalities"].items():
        if part["n_unpaired"]:
            lines.append(
                f"{head}: {part['n_unpaired']} predictions without a partner "
                "left out."
            )
        if (part["smallest_p"] or 0.0) > 0.05:
            lines.append(
                f"{head}: with {part['n_speakers']} speakers p cannot fall "
                f"below {part['smallest_p']:g}."
            )
        for name, test in part["scores"].items():
            cells = [head, score_title(name), *difference_cells(test)]
            rows.append([*cells, part["n_speakers"]])
    head = "modality,score,A,B,A - B,95 % interval,p,p (Holm),speakers"
    lines += ["", *table(head.split(","), rows)]
    return write_result(folder, "comparison", content, lines)


def score_title(name: str) -> str:
    """Returns the name of a score in tables."""
    return SCORE_NAMES.get(name) or markdown(name.replace("ccc_", "CCC "))


def difference_cells(test: dict) -> list[str]:
    """Formats both scores, their difference, its interval, p and p_holm."""
    return [
        f"{test['first']:.3f}",
        f"{test['second']:.3f}",
        f"{test['difference']:+.3f}",
        f"[{test['low']:+.3f}, {test['high']:+.3f}]",
        f"{test['p']:.4f}",
        f"{test['p_holm']:.4f}",
    ]


def write_result(
    folder: str | Path, name: str, content: dict, lines: list[str]
) -> list[str]:
    """Writes NAME.json and NAME.md, and returns the lines of the latter."""
    write_json(Path(folder) / f"{name}.json", content)
    write_lines(Path(folder) / f"{name}.md", lines)
    return lines
