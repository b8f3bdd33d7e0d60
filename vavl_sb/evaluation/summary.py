"""The summary of a protocol: protocol.json and a Markdown table.

Authors
 * The vavl_sb authors 2026
"""

from pathlib import Path

import numpy as np

from vavl_sb.evaluation.results import MODALITIES, read_result, speaker_tables
from vavl_sb.evaluation.statistics import draw_speakers, interval, mean_scores
from vavl_sb.evaluation.sufficient_statistics import score_function
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import write_json, write_lines
from vavl_sb.utils.text import markdown

SUMMARY = "protocol.json"
TITLES = {
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "uar": "UAR",
    "ccc_mean": "mean CCC",
}


def summarize(results):
    """Mean, deviation and interval of each head's scores over runs.

    Arguments
    ---------
    results : list of vavl_sb.evaluation.results.Result
        Finished runs of one protocol.

    Returns
    -------
    dict
        Modality to ``n_runs``, ``n_speakers`` and ``scores``: score name to
        ``mean``, ``sd`` (sample standard deviation over runs; None for one
        run), ``low`` and ``high`` (95 % bootstrap interval of the mean, by
        speaker).
    """
    score = score_function(results[0].task, results[0].labels)
    summary = {}
    for modality in MODALITIES:
        having = [r for r in results if modality in r.heads]
        if not having:
            continue
        heads = [result.heads[modality] for result in having]
        tables, tested, speakers = speaker_tables(heads)
        draws = mean_scores(tables, draw_speakers(tested), score)
        scores = {}
        for name, values in draws.items():
            told = [result.scores[modality][name] for result in having]
            low, high = interval(values)
            scores[name] = {
                "mean": float(np.mean(told)),
                "sd": float(np.std(told, ddof=1)) if len(told) > 1 else None,
                "low": low,
                "high": high,
            }
        summary[modality] = {
            "n_runs": len(having),
            "n_speakers": len(speakers),
            "scores": scores,
        }
    return summary


def write_summary(folder, hparams, overrides, runs, outcomes):
    """Reads what finished and writes protocol.json and protocol.md.

    Arguments
    ---------
    folder : str or Path
        The protocol's folder.
    hparams : str
        How the hparams file is named to readers.
    overrides : dict
        What each train.py got.
    runs : list of vavl_sb.evaluation.runs.Run
        All runs, finished or not.
    outcomes : dict
        Run to its :class:`~vavl_sb.evaluation.runs.Outcome`. One whose files
        cannot be used becomes "failed".

    Returns
    -------
    dict
        What protocol.json holds.
    """
    entries, results = [], []
    for run in runs:
        outcome = outcomes[run]
        entry = {
            "partition": run.partition,
            "seed": run.seed,
            "folder": Path(run.folder).name,
            "finished": outcome.status != "failed",
        }
        if entry["finished"]:
            try:
                results.append(read_result(run.folder))
                entry["scores"] = results[-1].scores
            except VAVLError as error:
                outcome.status, outcome.error = "failed", error.text
                entry["finished"] = False
        if not entry["finished"]:
            entry["error"] = outcome.error
        entries.append(entry)
    content = {
        "hparams": hparams,
        "overrides": overrides,
        "task": results[0].task if results else None,
        "labels": results[0].labels if results else None,
        "n_runs": len(runs),
        "n_finished": len(results),
        "partial": len(results) < len(runs),
        "summary": summarize(results) if results else {},
        "runs": entries,
    }
    folder = Path(folder)
    write_json(folder / SUMMARY, content)
    write_lines(folder / "protocol.md", summary_lines(content))
    return content


def summary_lines(content):
    """The table of a protocol, for a README.

    Arguments
    ---------
    content : dict
        As in protocol.json.

    Returns
    -------
    list of str
        Lines of Markdown.
    """
    done, wanted = content["n_finished"], content["n_runs"]
    lines = [f"# {content['hparams']}: {done} of {wanted} runs", ""]
    if content["partial"]:
        lines += [
            f"PARTIAL: {wanted - done} of {wanted} runs did not finish; the "
            "same command tries them again.",
            "",
        ]
    if content["summary"]:
        first = next(iter(content["summary"].values()))
        names = list(first["scores"])
        rows = [
            [
                modality,
                str(part["n_runs"]),
                str(part["n_speakers"]),
                *(_cell(part["scores"][name]) for name in names),
            ]
            for modality, part in content["summary"].items()
        ]
        head = ["modality", "runs", "speakers", *map(title, names)]
        lines += [
            *table(head, rows),
            "",
            "Mean ± sample standard deviation over runs, and the 95 % "
            "bootstrap interval of the mean by test speaker.",
        ]
    return lines


def title(name):
    """How tables name a score.

    Arguments
    ---------
    name : str
        As in protocol.json.

    Returns
    -------
    str

    Example
    -------
    >>> title("f1_macro"), title("ccc_valence")
    ('macro F1', 'CCC valence')
    """
    return TITLES.get(name) or markdown(name.replace("ccc_", "CCC "))


def table(head, rows):
    """A Markdown table.

    Arguments
    ---------
    head : list of str
        The column names.
    rows : list of list of str
        The cells.

    Returns
    -------
    list of str
        Lines.

    Example
    -------
    >>> table(["a", "b"], [["1", "2"]])
    ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


def mean_and_deviation(values):
    """A mean with its deviation, for a cell.

    Arguments
    ---------
    values : dict
        With ``mean`` and ``sd``.

    Returns
    -------
    str

    Example
    -------
    >>> mean_and_deviation({"mean": 0.5, "sd": 0.01})
    '0.500 ± 0.010'
    """
    if values["sd"] is None:
        return f"{values['mean']:.3f}"
    return f"{values['mean']:.3f} ± {values['sd']:.3f}"


def _cell(values):
    """A score with deviation and interval."""
    span = f"[{values['low']:.3f}, {values['high']:.3f}]"
    return f"{mean_and_deviation(values)} {span}"
