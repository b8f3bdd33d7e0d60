"""Benchmark of several networks by one protocol, and ablation of one network.

Networks are tested on audio, visual and audio-visual input, and with some clips
lacking one modality. They can be trained on clips that lack one, too.
"""

import argparse
import itertools
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vavl_sb.evaluation.comparison import (
    SPREAD,
    add_holm,
    compare_runs,
    difference_cells,
    read_protocol,
    score_cells,
    score_title,
    summarize,
    write_result,
)
from vavl_sb.evaluation.corruption import lose_modality
from vavl_sb.evaluation.predictions import RunResult
from vavl_sb.evaluation.protocol import (
    FIRST_SEED,
    Plan,
    recipe_name,
    run_protocols,
)
from vavl_sb.evaluation.robustness import OTHER
from vavl_sb.lobes.fusion import NETWORKS, find_network
from vavl_sb.lobes.vavl import HEADS
from vavl_sb.training.plots import (
    INTERVAL,
    add_legend,
    emotion_colours,
    make_figure,
    plain,
    remove_figure,
    save_figure,
    set_title,
)
from vavl_sb.training.report import STATS, table
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json
from vavl_sb.utils.seeding import shuffled
from vavl_sb.utils.text import markdown, say

MISSING = (10, 50, 90)  # % of the test clips that lack one modality
CONDITIONS = {
    "audio": "Audio only",
    "visual": "Face only",
    "audiovisual": "Both",
    **{f"missing_{p}": f"{p} % of the clips lack one" for p in MISSING},
}
MARKERS = "os^vDPX*"
# Ablations: keys of the hparams file that turn one part off.
VARIANTS = {
    "full": {},
    "no_shared_layers": {"shared_layers": "0"},
    "no_residual": {"residual": "False"},
    "no_reconstruction": {"reconstruction_weight": "0"},
}


@dataclass
class Benchmark:
    """Settings of a benchmark or an ablation."""

    name: str  # "benchmark" or "ablation", also of the output files
    plan: Plan  # the protocol of each network
    models: dict  # name to options of train.py
    withhold: list  # shares of the training clips that lack one modality
    lrs: list  # candidate learning rates; empty for that of the recipe
    score: str | None  # for selection, tests and figure; None for the default

    @property
    def reference(self) -> str:
        """The network that the others are compared with."""
        return "vavl" if "vavl" in self.models else next(iter(self.models))


def read_benchmark(plan: Plan, options: argparse.Namespace) -> Benchmark:
    """Checks the options of :func:`vavl_sb.cli.protocol.add_benchmark_options`.

    Raises VAVLError for an invalid list, or a recipe option that the benchmark
    sets itself.
    """
    name, models = "ablation", VARIANTS
    if options.command == "benchmark":
        fusions = _words("fusion", options.fusion) or list(NETWORKS)
        name, models = "benchmark", {f: {"fusion": f} for f in fusions}
        for fusion in fusions:
            find_network(fusion)
    shares = _words("withhold", options.withhold)
    rates = _words("lrs", options.lrs)
    for option, words, is_valid in (
        ("withhold", shares, lambda share: 0 <= share < 1),
        ("lrs", rates, lambda rate: 0 < rate < np.inf),
    ):
        for word in words:
            if not re.fullmatch(r"[\d.]+(e-?\d+)?", word) or not is_valid(
                float(word)
            ):
                raise VAVLError(f"--{option}: invalid value {word}")
    set_by = {"withhold_audio": "withhold", "withhold_visual": "withhold"}
    if rates:
        set_by["lr"] = "lrs"
        inner_partition(plan)  # Raises before any run starts
    for key in plan.overrides.keys() & set_by.keys():
        raise VAVLError(f"--{key}: is set for each run; give --{set_by[key]}")
    shares = shares or ["0"]
    return Benchmark(name, plan, models, shares, rates, options.score)


def _words(option, text):
    """Splits a comma-separated option; duplicates are an error."""
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if len(set(words)) < len(words):
        raise VAVLError(f"--{option}: has a duplicate in {text}")
    return words


def inner_partition(plan: Plan) -> dict:
    """Returns a partition of the training speakers of the first partition.

    A random quarter of them (fixed seed) is tested, so that learning rates are
    never chosen on test speakers. Raises VAVLError if the speakers are not
    known before a run.
    """
    speakers = next(iter(plan.partitions.values()))
    if not isinstance(speakers, dict) and os.path.isfile(speakers):
        speakers = read_json(speakers)
    if not isinstance(speakers, dict) or len(speakers.get("train", ())) < 2:
        raise VAVLError(
            "--lrs: needs the training speakers of the first partition; give "
            "--folds, or --partitions a file of folds or of a partition"
        )
    order = shuffled(speakers["train"], FIRST_SEED)
    tested = max(1, len(order) // 4)
    valid = speakers.get("valid", [])
    return {"train": order[tested:], "valid": valid, "test": order[:tested]}


def run_benchmark(benchmark: Benchmark) -> tuple[dict, list]:
    """Chooses learning rates, runs all unfinished runs, and writes the tables.

    Returns the content of benchmark.json (ablation.json) and the lines of
    benchmark.md. The content has ``partial``, ``models`` (name to
    ``parameters``, ``lr`` and ``lr_scores``) and ``results``: a dict for each
    network and share of training clips withheld, with ``summary`` and
    ``difference`` by condition, from ``summarize`` and ``compare`` of
    :mod:`vavl_sb.evaluation.comparison`.
    """
    plan = benchmark.plan
    networks, errors = _choose_lrs(benchmark)
    plans = {
        (share, model): _plan_of(benchmark, model, networks[model]["lr"], share)
        for share in benchmark.withhold
        for model in benchmark.models
        if model not in errors
    }
    results, all_runs, score = [], {}, benchmark.score
    protocols = run_protocols([*plans.values()])
    for (share, model), (content, _) in zip(plans, protocols):
        folder = plans[share, model].folder
        for run in content["runs"]:
            if run["finished"]:
                networks[model] |= _read_network(Path(folder, run["folder"]))
            else:
                errors[model] = run["error"]
        runs = all_runs[share, model] = {
            (partition, seed): add_missing(result, seed)
            for (partition, seed), result in read_protocol(folder).items()
        }
        for result in runs.values():
            score = _choose_score(benchmark.score, result)
        results.append(
            {
                "withhold": share,
                "model": model,
                "n_runs": content["n_runs"],
                "n_finished": content["n_finished"],
                "summary": summarize([*runs.values()]),
                "difference": {},
            }
        )
    _compare(results, all_runs, benchmark.reference)
    content = {
        "hparams": recipe_name(plan),
        "overrides": plan.overrides,
        "partitions": list(plan.partitions),
        "seeds": plan.seeds,
        "reference": benchmark.reference,
        "lrs": benchmark.lrs,
        "score": score,
        "partial": bool(errors),
        "errors": errors,
        "models": networks,
        "results": results,
    }
    lines = benchmark_lines(content)
    write_result(plan.folder, benchmark.name, content, lines)
    _draw(content, Path(plan.folder) / benchmark.name)
    return content, lines


def _plan_of(benchmark, model, lr, share="0"):
    """Returns the protocol of one network."""
    plan, title, folder = benchmark.plan, f"{model} ", model
    options = {**plan.overrides, **benchmark.models[model]}
    if lr is not None:
        options["lr"] = lr
    if float(share):
        # Half of the share lacks the audio, half the video.
        for modality in OTHER:
            options[f"withhold_{modality}"] = f"{float(share) / 2:g}"
        title, folder = f"{title}withhold {share} ", f"{folder}_withhold{share}"
    folder = os.path.join(plan.folder, folder)
    return replace(plan, overrides=options, folder=folder, title=title)


def _choose_lrs(benchmark):
    """Tries each learning rate on the inner partition.

    Returns ``lr`` (None: that of the recipe) and ``lr_scores`` for each
    network, and the errors of networks of which a run failed.
    """
    networks = {
        model: {"parameters": None, "lr": None, "lr_scores": {}}
        for model in benchmark.models
    }
    candidates = [
        (model, lr)
        for model, options in benchmark.models.items()
        for lr in benchmark.lrs
        # Other networks have no learning rate.
        if find_network(options.get("fusion", "vavl")).updates
    ]
    split = inner_partition(benchmark.plan) if candidates else {}
    plans = [
        replace(
            _plan_of(benchmark, model, lr),
            partitions={"inner": split},
            seeds=benchmark.plan.seeds[:1],
            folder=os.path.join(benchmark.plan.folder, "lrs", f"{model}_{lr}"),
            title=f"{model} lr {lr} ",
        )
        for model, lr in candidates
    ]
    errors, protocols = {}, run_protocols(plans)
    for (model, lr), plan, (content, _) in zip(candidates, plans, protocols):
        if content["partial"]:
            errors[model] = f"lr {lr}: {content['runs'][0]['error']}"
            continue
        (result,) = read_protocol(plan.folder).values()
        score = _choose_score(benchmark.score, result)
        # The last head is the audio-visual one, if the corpus has pairs.
        scores = list(result.scores.values())[-1]
        networks[model]["lr_scores"][lr] = scores[score]
    for model, part in networks.items():
        if part["lr_scores"] and model not in errors:
            part["lr"] = max(part["lr_scores"], key=part["lr_scores"].get)
            say(f"{model}: lr {part['lr']}")
    return networks, errors


def _choose_score(score, result):
    """Returns the given score, or that of the task; raises if unknown."""
    score = score or STATS[result.task].main
    names = list(next(iter(result.scores.values())))
    if score not in names:
        raise VAVLError(f"--score: {score} is not one of {', '.join(names)}")
    return score


def _read_network(folder):
    """Reads the target and the number of parameters from a run."""
    facts = {"target": read_json(folder / "metrics.json").get("target")}
    try:
        model = read_json(folder / "inference" / "model.json")
        facts["parameters"] = model["metadata"]["parameters"]
    except (OSError, ValueError, KeyError):
        pass  # The export may have been deleted to save space.
    return facts


def add_missing(result: RunResult, seed: int) -> RunResult:
    """Adds heads "missing_50" and so on, where a percentage of the clips lacks
    one modality.

    Clips drawn by :func:`~vavl_sb.evaluation.corruption.lose_modality` have the
    prediction of the head of the other modality, all others that of the
    audio-visual head.
    """
    heads = result.heads
    if not set(HEADS) <= heads.keys():
        return result
    result = replace(result, heads=dict(heads), scores=dict(result.scores))
    for percent in MISSING:
        lost = lose_modality(heads["audiovisual"], percent, seed)
        clips = {
            clip: heads[OTHER[lost[clip]]][clip] if clip in lost else both
            for clip, both in heads["audiovisual"].items()
        }
        result.add(f"missing_{percent}", clips)
    return result


def _compare(results, all_runs, reference):
    """Adds the difference of each network to the reference, by condition."""
    for entry in results:
        if entry["model"] == reference:
            continue
        runs, reference_runs = (
            all_runs.get((entry["withhold"], name), {})
            for name in (entry["model"], reference)
        )
        if runs.keys() & reference_runs.keys():
            names = f"{entry['model']} and {reference}"
            compared = compare_runs(runs, reference_runs, names)
            entry["difference"] = compared["modalities"]
    parts = [entry["difference"].values() for entry in results]
    add_holm(itertools.chain(*parts))


def benchmark_lines(content: dict) -> list:
    """Formats benchmark.json as Markdown: a table for each condition and share
    of training clips that lack one modality."""
    models, results = content["models"], content["results"]
    counts = [len(content[name]) for name in ("partitions", "seeds")]
    lines = [
        f"# {content['hparams']}: {len(models)} networks",
        "",
        f"{counts[0]} partitions x {counts[1]} seeds.",
    ]
    for model, error in content["errors"].items():
        lines += [
            "",
            f"PARTIAL: {model}: {error}; the same command tries again.",
        ]
    targets = {part.get("target") for part in models.values()} - {None}
    lines += [f"Labels: {markdown(target)}." for target in sorted(targets)]
    for share in dict.fromkeys(entry["withhold"] for entry in results):
        of_share = [e for e in results if e["withhold"] == share]
        percent = f"{100 * float(share):g} %"
        for condition, title in CONDITIONS.items():
            rows = [
                _row(entry, condition, content)
                for entry in of_share
                if condition in entry["summary"]
            ]
            if rows:
                if float(share):
                    title += f"; {percent} of the training clips lack one"
                lines += ["", f"## {title}", ""]
                lines += table(_head(of_share, content), rows)
    if results:
        name = score_title(content["score"] or "")
        lines += [
            "",
            f"{SPREAD} The difference to {content['reference']} in {name}, with "
            "its interval and p by speaker, corrected over all tables (Holm).",
        ]
    lrs = {name: m["lr_scores"] for name, m in models.items() if m["lr_scores"]}
    if lrs:
        tried = list(next(iter(lrs.values())))
        rows = [
            [name, *(f"{s[lr]:.3f}" if lr in s else "-" for lr in tried)]
            for name, s in lrs.items()
        ]
        lines += [
            "",
            "## Learning rates",
            "",
            *table(["network", *tried], rows),
        ]
        lines += [
            "",
            f"{score_title(content['score'] or '')} on speakers held out from "
            "the first partition's training speakers.",
        ]
    return lines


def _head(entries, content):
    """Returns the header of a table."""
    scores = next(e["summary"] for e in entries if e["summary"])
    names = next(iter(scores.values()))["scores"]
    titles = [score_title(name) for name in names]
    lr = ["lr"] if content["lrs"] else []
    columns = ["network", "parameters", *lr, "runs", *titles]
    return [*columns, "difference", "95 % interval", "p", "p (Holm)"]


def _row(entry, condition, content):
    """Returns the row of a network in the table of a condition."""
    networks = content["models"][entry["model"]]
    count = networks["parameters"]
    row = [entry["model"], "-" if count is None else f"{count:,}"]
    if content["lrs"]:
        row.append(networks["lr"] or "-")
    part = entry["summary"][condition]
    row += [part["n_runs"], *score_cells(part)]
    tests = entry["difference"].get(condition)
    if tests is None:
        return [*row, *4 * ["-"]]
    return [*row, *difference_cells(tests["scores"][content["score"]])[2:]]


def _draw(content, path):
    """Plots the score over the share of test clips that lack one modality, in a
    panel per share of training clips, with a line per network. Below: paired
    differences to the reference with intervals."""
    points = {"audiovisual": 0, **{f"missing_{p}": p for p in MISSING}}
    panels = {}
    for entry in content["results"]:
        if points.keys() <= entry["summary"].keys():
            panels.setdefault(entry["withhold"], []).append(entry)
    if not panels:
        remove_figure(path)  # Of an earlier benchmark
        return
    models, reference = list(content["models"]), content["reference"]
    several = len(models) > 1
    width, height = 3.4 * len(panels) + 1.6, 5.6 if several else 3.2
    figure, grid = make_figure(width, height, len(panels), 1 + several)
    grid, lines = np.reshape(grid, (1 + several, len(panels))), {}
    colours, score = emotion_colours(models), content["score"]
    for (axes, *below), (share, entries) in zip(grid.T, panels.items()):
        for entry in entries:
            model = entry["model"]
            place = models.index(model)
            style = {"color": colours[model], "markersize": 5}
            style["marker"] = MARKERS[place % len(MARKERS)]
            lines[plain(model)] = style
            scores = [entry["summary"][n]["scores"][score] for n in points]
            mean, low, high = (
                [s[key] for s in scores] for key in ("mean", "low", "high")
            )
            axes.plot([*points.values()], mean, **style)
            if model == reference:
                band = {"color": colours[model], "alpha": 0.15, "lw": 0}
                axes.fill_between([*points.values()], low, high, **band)
            for panel in below:
                # Side by side, in the order of the legend.
                shift = 0.7 * ((place + 0.5) / len(models) - 0.5)
                _draw_differences(panel, entry, points, score, shift, style)
        axes.set_xticks([*points.values()])
        axes.set_xlabel("% of test clips that lack one modality")
        if len(panels) > 1:
            title = f"{100 * float(share):g} % of training clips lack one"
            axes.set_title(title, fontsize=9)
        for panel in below:
            panel.axhline(0, color=colours[reference], linewidth=1)
            panel.set_xticks(range(len(points)), [*points.values()])
            panel.set_xlabel("% of test clips that lack one modality")
    for row in grid:
        ends = [axes.get_ylim() for axes in row]
        for axes in row:
            axes.set_ylim(min(e[0] for e in ends), max(e[1] for e in ends))
    name = score_title(score)
    grid[0][0].set_ylabel(name)
    if several:
        grid[1][0].set_ylabel(f"{name}, difference to {plain(reference)}")
    add_legend(figure, lines | INTERVAL)
    recipe = "/".join(Path(content["hparams"]).parts[-3::2])
    seeds = ", ".join(map(str, content["seeds"]))
    set_title(figure, f"{recipe}, seeds: {seeds}")
    save_figure(figure, path)


def _draw_differences(axes, entry, points, score, shift, style):
    """Plots paired differences of a network to the reference."""
    for place, name in enumerate(points):
        test = entry["difference"].get(name, {}).get("scores", {}).get(score)
        if test is not None:
            x = place + shift
            axes.plot([x], [test["difference"]], linestyle="", **style)
            ends = test["low"], test["high"]
            axes.vlines(x, *ends, color=style["color"], linewidth=1.5)
