"""Pictures of a run. matplotlib is imported only when one is drawn."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vavl_sb.nnet.calibration import (
    expected_calibration_error,
    reliability,
    softmax,
)
from vavl_sb.utils.files import write_atomically
from vavl_sb.utils.text import printable


def confusion(
    counts: np.ndarray, labels: list[str], title: str, path: str | Path
) -> None:
    """Draws a confusion matrix as a PNG file, rows normalised, counts written
    in. Shape (n, n): rows are true classes, columns predicted."""
    figure, axes = make_figure(5.2, 4.6)
    labels = [plain(name) for name in labels]
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    for row in range(len(labels)):
        for column in range(len(labels)):
            dark = shares[row, column] > 0.5
            axes.text(
                *(column, row, int(counts[row, column])),
                **{"ha": "center", "va": "center"},
                color="white" if dark else "black",
            )
    figure.colorbar(image, label="share of the true class")
    save_figure(figure, path)


def reliability_diagram(
    stats: dict, temperatures: dict[str, float], path: str | Path
) -> None:
    """Draws how often each head is right, by how sure it is.

    Arguments
    ---------
    stats : dict
        Head to ``EmotionStats``; heads without clips are left out.
    temperatures : dict
        Head to temperature; 1 for heads that are not in it.
    path : str
        PNG to write.
    """
    stats = {head: c for head, c in stats.items() if len(c)}
    figure, panels = make_figure(2.9 * len(stats) + 0.3, 3.7, len(stats))
    panels = np.ravel(panels).tolist()
    for axes, (head, collected) in zip(panels, stats.items()):
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, zorder=0)
        logits, targets = collected.stacked()
        temperature = temperatures.get(head, 1.0)
        for value, name, style, color in (
            (1.0, "as trained", "--", "tab:gray"),
            (temperature, f"temperature {temperature:.2f}", "-", "tab:blue"),
        ):
            sure = softmax(logits, value)
            error = expected_calibration_error(sure, targets)
            share, *means = reliability(sure, targets, bins=10)
            kept = share > 0
            label = f"{name}: ECE {error:.3f}"
            axes.plot(
                *(mean[kept] for mean in means), style, color=color, label=label
            )
            # A point's area is the share of the clips that it stands for.
            axes.scatter(*means, s=240 * share, color=color)
        limits = (-0.03, 1.03)
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.set_title(f"{head}, {len(collected)} test clips", fontsize=10)
        axes.set_xlabel("confidence")
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=8)
    panels[0].set_ylabel("share that is right")
    save_figure(figure, path)


def learning_curves(entries: list[dict], path: str | Path) -> None:
    """Draws losses and validation scores by epoch as a PNG file.

    ``entries`` are ``{"epoch": n, "train": {name: loss}, "valid": {name:
    value}}``.
    """
    figure, (losses, scores) = make_figure(10, 4, columns=2)
    epochs = [entry["epoch"] for entry in entries]
    for part, style in (("train", "-"), ("valid", "--")):
        for name in sorted({k for e in entries for k in e[part]}):
            values = [e[part].get(name, float("nan")) for e in entries]
            if name.endswith("_loss"):
                label = f"{part} {name[: -len('_loss')].replace('_', ' ')}"
                losses.plot(epochs, values, style, label=plain(label))
            elif name != "loss":
                scores.plot(
                    epochs, values, label=plain(name.replace("_", " ", 1))
                )
    losses.set_ylabel("loss")
    scores.set_ylabel("validation score")
    for axes in (losses, scores):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7)
    save_figure(figure, path)


def plain(text: str) -> str:
    r"""Text that others wrote, such as a label, for a figure: drawn as it is.

    The first 40 characters of :func:`~vavl_sb.utils.text.printable`, with no
    dollar signs that matplotlib takes for a formula, nor an underscore at the
    front, which leaves a curve out of the legend.

    Example
    -------
    >>> print(plain(r"$\alpha$"))
    \$\alpha\$
    """
    text = printable(str(text))[:40].replace("$", r"\$")
    return f"\u2009{text}" if text.startswith("_") else text


def make_figure(
    width: float, height: float, columns: int = 1, rows: int = 1
) -> tuple[Any, Any]:
    """A figure that needs no screen, with a panel, or an array of them as
    ``Figure.subplots`` gives it. Width and height are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def save_figure(figure: Any, path: str | Path) -> None:
    """Writes a figure of :func:`make_figure` as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    write_atomically(path, buffer.getvalue())


def emotion_over_time(
    timeline: list, limits: Sequence[float] | None = None
) -> Any:
    """Draws what a model says about the windows of a clip, as a figure.

    Arguments
    ---------
    timeline : list of vavl_sb.inference.TimedEmotion
        In order of time; windows without an emotion leave a gap.
    limits : list of float
        Lowest and highest value of an attribute; None for 0 to 1, or more
        where values lie outside.
    """
    figure, axes = make_figure(7.0, 2.8)
    times, values = emotion_curves(timeline)
    for name, line in values.items():
        axes.plot(
            times, line, ".-", markersize=4, linewidth=1.5, label=plain(name)
        )
    known = [v for line in values.values() for v in line if not math.isnan(v)]
    axes.set_xlim(0, max((w.end for w in timeline), default=1.0) or 1.0)
    axes.set_ylim(*(limits or (min([0.0, *known]), max([1.0, *known]))))
    axes.set_title("The emotion over time", fontsize=9)
    axes.set_xlabel("seconds")
    axes.grid(alpha=0.3)
    if values:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def emotion_curves(timeline: list) -> tuple[list[float], dict[str, list]]:
    """The points of :func:`emotion_over_time`: times, and for each class or
    attribute a list of as many values, NaN in gaps.

    A window stands at its middle; the first and the last reach out to the
    clip's ends. Where a window has no emotion, the curve has a gap.
    """
    found = [
        (w.emotion.probabilities or w.emotion.attributes) if w.emotion else {}
        for w in timeline
    ]
    # Not a set: the model's own order of names.
    names = list(dict.fromkeys(name for values in found for name in values))
    if not names:
        return [], {}
    times = [(window.start + window.end) / 2 for window in timeline]
    times = [timeline[0].start, *times, timeline[-1].end]
    found = [found[0], *found, found[-1]]
    return times, {
        name: [values.get(name, math.nan) for values in found] for name in names
    }
