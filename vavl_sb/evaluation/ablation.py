"""`vavl ablate`: what shared layers, residual and reconstruction are worth.

Authors
 * The vavl_sb authors 2026
"""

import dataclasses
from pathlib import Path

from vavl_sb.evaluation.comparison import compare, read_protocol
from vavl_sb.evaluation.protocol import run_protocol
from vavl_sb.evaluation.statistics import holm
from vavl_sb.evaluation.summary import mean_and_deviation, table, title
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import write_json, write_lines
from vavl_sb.utils.text import say

# Each turns one thing off, by the hparams file's own keys.
VARIANTS = {
    "full": {},
    "no_shared_layers": {"shared_layers": "0"},
    "no_residual": {"residual": "False"},
    "no_reconstruction": {"reconstruction_weight": "0"},
}


def run_ablation(plan, say=say):
    """Runs the protocol of each variant, and compares each with the full one.

    Arguments
    ---------
    plan : vavl_sb.evaluation.protocol.Plan
        The protocol; variants go into folders of their own below its folder.
    say : callable
        Gets lines of progress.

    Returns
    -------
    dict
        What ablation.json holds: ``score``, ``partial``, and ``variants``:
        name to ``overrides``, ``summary`` and, where both have finished runs
        in common, ``against_full`` (modality to ``difference`` (variant -
        full), ``low``, ``high``, ``p``, ``p_holm``, ``n_runs``,
        ``n_speakers``) or else ``problem``.
    """
    variants, partial, score = {}, False, None
    for name, change in VARIANTS.items():
        overrides = {**plan.overrides, **change}
        folder = str(Path(plan.folder) / name)
        content = run_protocol(
            dataclasses.replace(plan, overrides=overrides, folder=folder),
            lambda line, name=name: say(f"{name} {line}"),
        )
        partial = partial or content["partial"]
        if content["task"]:
            classes = content["task"] == "classification"
            score = "f1_macro" if classes else "ccc_mean"
        variants[name] = {
            "overrides": overrides,
            "n_finished": content["n_finished"],
            "summary": content["summary"],
        }
    for name in list(VARIANTS)[1:]:
        variants[name].update(_against_full(plan.folder, name, score))
    _correct(variants)
    result = {"score": score, "partial": partial, "variants": variants}
    write_json(Path(plan.folder) / "ablation.json", result)
    write_lines(Path(plan.folder) / "ablation.md", ablation_lines(result))
    return result


def _against_full(folder, name, score):
    """A variant's difference to the full network, for each modality."""
    try:
        found = compare(
            read_protocol(Path(folder) / name),
            read_protocol(Path(folder) / "full"),
        )
    except VAVLError as error:
        return {"problem": error.text}
    kept = ("difference", "low", "high", "p")
    return {
        "against_full": {
            modality: {
                **{key: part["scores"][score][key] for key in kept},
                "n_runs": part["n_runs"],
                "n_speakers": part["n_speakers"],
            }
            for modality, part in found["modalities"].items()
        }
    }


def _correct(variants):
    """Holm's p over all variants and modalities: one family of tests."""
    tests = [
        entry
        for variant in variants.values()
        for entry in variant.get("against_full", {}).values()
    ]
    for entry, p in zip(tests, holm([entry["p"] for entry in tests])):
        entry["p_holm"] = p


def ablation_lines(result):
    """The table of an ablation, for a README.

    Arguments
    ---------
    result : dict
        From :func:`run_ablation`.

    Returns
    -------
    list of str
        Lines of Markdown.
    """
    lines = []
    if result["partial"]:
        lines += ["PARTIAL: some runs did not finish.", ""]
    variants = result["variants"]
    modalities = list(
        dict.fromkeys(m for v in variants.values() for m in v["summary"])
    )
    rows = []
    for name, variant in variants.items():
        cells = [name.replace("_", " "), str(variant["n_finished"])]
        for modality in modalities:
            cell = "-"
            if modality in variant["summary"]:
                values = variant["summary"][modality]["scores"]
                cell = mean_and_deviation(values[result["score"]])
            against = variant.get("against_full", {}).get(modality)
            if against:
                cell += (
                    f" ({against['difference']:+.3f}, "
                    f"p {against['p_holm']:.3f})"
                )
            cells.append(cell)
        rows.append(cells)
        if "problem" in variant:
            lines += [f"{name}: {variant['problem']}", ""]
    lines += table(["network", "runs", *modalities], rows)
    if result["score"]:
        lines += [
            "",
            f"{title(result['score'])}, mean ± sample standard deviation over "
            "runs; in brackets the difference to the full network on the same "
            "runs, and p by speaker, corrected over the whole table (Holm).",
        ]
    return lines
