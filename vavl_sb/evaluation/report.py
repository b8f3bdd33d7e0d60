"""A robustness test as a table, a plot and files.

Authors
 * The vavl_sb authors 2026
"""

import os
from pathlib import Path

from vavl_sb.training.plots import make_figure, save_figure
from vavl_sb.training.report import predictions_csv, score_table
from vavl_sb.utils.files import write_atomically, write_json, write_lines

MAIN_SCORE = {
    "classification": ("f1_macro", "macro F1"),
    "regression": ("ccc_mean", "mean CCC"),
}
COLOURS = {
    "audio": "tab:blue",
    "visual": "tab:orange",
    "audiovisual": "tab:green",
    "auto": "tab:red",
}


def check_folder(folder):
    """Makes a folder and tries to write in it, before the long work.

    Arguments
    ---------
    folder : str or Path
        Where results shall go.

    Raises
    ------
    VAVLError
        It cannot be made or written.
    """
    probe = Path(folder) / f".{os.getpid()}.probe"
    write_atomically(probe, b"")
    probe.unlink()


def write_report(folder, result, answers):
    """Writes ``robustness.json``, ``.txt``, ``.png``, and the predictions.

    Arguments
    ---------
    folder : str or Path
        Where to write.
    result : dict
        What robustness.json shall hold.
    answers : vavl_sb.evaluation.predictions.Answers
        On the clips as they are, for ``predictions_clean.csv``, which has the
        form of a run's predictions_test.csv.

    Returns
    -------
    list of str
        The table's lines.
    """
    folder = Path(folder)
    table = robustness_table(result)
    stats = {
        head: answers.stats(dict.fromkeys(answers.ids(head), head))
        for head in answers.outputs
        if head != "auto"
    }
    predictions = predictions_csv(answers.task, answers.labels, stats)
    write_json(folder / "robustness.json", result)
    write_lines(folder / "robustness.txt", table)
    write_atomically(folder / "predictions_clean.csv", predictions)
    picture = folder / "robustness.png"
    if result["conditions"]:
        draw(result, picture)
    else:
        picture.unlink(missing_ok=True)  # Of an earlier test.
    return table


def robustness_table(result):
    """All scores for a terminal.

    Arguments
    ---------
    result : dict
        As in robustness.json.

    Returns
    -------
    list of str
        The clean scores, then a table for each condition with the score that
        stands for the task: macro F1, or the mean CCC.
    """
    counts = result["clips"]
    clean = result["clean"]
    lines = [
        f"{counts['used']} of {counts['in_manifest']} clips used, "
        f"{counts['with_both']} of them with sound and a face; "
        f"{len(counts['failed'])} files or parts of clips failed",
        "",
        "As they are",
        *score_table(
            {
                "task": result["task"],
                "labels": result["labels"],
                "test": clean,
                "n_test": {head: s["n"] for head, s in clean.items()},
            }
        ),
    ]
    for condition in result["conditions"].values():
        lines += ["", *_condition_table(condition, result["task"])]
    for name, reason in result["skipped"].items():
        lines += ["", f"{name}: skipped, {reason}"]
    return lines


def _condition_table(condition, task):
    """One row a level, one column a head."""
    key, score_name = MAIN_SCORE[task]
    levels = condition["levels"]
    heads = list(dict.fromkeys(h for x in levels for h in x["scores"]))
    numbers = {h: levels[0]["scores"].get(h, {"n": 0})["n"] for h in heads}
    unit = f" ({condition['unit']})" if condition["unit"] else ""
    lines = [
        f"{condition['title']}{unit}: {score_name}",
        f"{'':<12}" + "".join(f"{head:>18}" for head in heads),
        f"{'clips':<12}" + "".join(f"{numbers[h]:>18}" for h in heads),
    ]
    for level in levels:
        line = f"{_level_name(level['level']):<12}"
        for head in heads:
            scores = level["scores"].get(head)
            cell = "-" if scores is None else f"{scores[key]:.3f}"
            if scores is not None and scores["n"] != numbers[head]:
                cell = f"({scores['n']} clips) {cell}"
            line += f"{cell:>18}"
        lines.append(line)
    return lines


def _level_name(level):
    """A level in a table; None is the clip as it is."""
    return "clean" if level is None else f"{level:g}"


def draw(result, path):
    """Draws a panel for each condition, a line for each head.

    Arguments
    ---------
    result : dict
        As in robustness.json, with at least one condition.
    path : str or Path
        PNG to write.
    """
    key, score_name = MAIN_SCORE[result["task"]]
    panels = result["conditions"].values()
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = make_figure(4.2 * columns, 3.4 * rows, columns, rows)
    grid = list(getattr(grid, "flat", [grid]))
    lowest = 0.0
    for axes, condition in zip(grid, panels):
        points = {}
        for level in condition["levels"]:
            for head, scores in level["scores"].items():
                points.setdefault(head, {})[level["level"]] = scores[key]
                lowest = min(lowest, scores[key])
        if condition["unit"]:
            _draw_curves(axes, points)
            axes.set_xlabel(condition["unit"])
        else:
            heights = [levels[None] for levels in points.values()]
            colours = [COLOURS[head] for head in points]
            axes.bar(list(points), heights, color=colours)
        axes.set_title(condition["title"], fontsize=10)
        axes.set_ylabel(score_name)
        axes.grid(alpha=0.3)
    for axes in grid:
        axes.set_ylim(lowest, 1.0)
        axes.set_visible(bool(axes.get_title()))
    save_figure(figure, path)


def _draw_curves(axes, points):
    """Lines over the levels, worse to the right."""
    for head, levels in points.items():
        levels = dict(levels)
        clean = levels.pop(None, None)
        axes.plot(
            list(levels),
            list(levels.values()),
            marker="o",
            markersize=3,
            color=COLOURS[head],
            label=head,
        )
        if clean is not None:
            axes.axhline(
                clean,
                color=COLOURS[head],
                linestyle=":",
                label=f"{head}, clean",
            )
    if any(None in levels for levels in points.values()):  # dB: less is worse
        axes.invert_xaxis()
    axes.legend(fontsize=7)
