"""Plots of a run. Imports matplotlib only when a plot is drawn."""

import io
import logging
import math
import textwrap
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

# Colour-blind safe palette (Okabe and Ito, Color Universal Design, 2008).
HEAD_COLOURS = {
    "audio": "#0072B2",
    "visual": "#D55E00",
    "audiovisual": "#009E73",
    "auto": "#000000",
}
# Keyed by the first three letters, so that "anger" equals "angry".
EMOTION_COLOURS = {
    **{"ang": "#D55E00", "hap": "#E69F00", "joy": "#E69F00", "sad": "#0072B2"},
    **{"fea": "#CC79A7", "dis": "#009E73", "neu": "#595959"},
    **{"sur": "#56B4E9", "cal": "#000000", "con": "#332288"},
    **{"aro": "#D55E00", "act": "#D55E00", "val": "#0072B2", "dom": "#009E73"},
}
SCORE_NAMES = {
    **{"f1_macro": "macro F1", "f1_micro": "micro F1", "uar": "UAR"},
    "ccc_mean": "mean CCC",
}
FORMATS = (".png", ".pdf", ".svg")
# Legend entry of the bands around lines of scores.
INTERVAL = {
    "95 % interval,\nby speaker": {
        **{"color": "dimgray", "linewidth": 8, "alpha": 0.3},
        "solid_capstyle": "butt",
    }
}


def emotion_colours(names: Sequence[str]) -> dict[str, str]:
    """Returns a colour for each class or attribute, the same in every figure.

    Unknown names get the remaining colours, in order.

    Example
    -------
    >>> emotion_colours(["Sadness", "mine"])
    {'Sadness': '#0072B2', 'mine': '#D55E00'}
    """
    known = {name: EMOTION_COLOURS.get(name[:3].lower(), "") for name in names}
    palette = dict.fromkeys(EMOTION_COLOURS.values())
    left = [c for c in palette if c not in known.values()] or list(palette)
    unknown = [name for name, colour in known.items() if not colour]
    added = {name: left[i % len(left)] for i, name in enumerate(unknown)}
    return {name: added.get(name) or known[name] for name in names}


def confusion(
    counts: np.ndarray, labels: list[str], title: str, path: str | Path
) -> None:
    """Plots a confusion matrix (n, n), rows true and columns predicted, as row
    shares with the counts as text."""
    figure, axes = make_figure(5.2, 4.6)
    labels = [plain(name) for name in labels]
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    set_title(figure, title)
    axes.grid(visible=False)
    for row in range(len(labels)):
        for column in range(len(labels)):
            dark = shares[row, column] > 0.5
            axes.text(
                *(column, row, int(counts[row, column])),
                **{"ha": "center", "va": "center"},
                fontsize=9 if len(labels) < 9 else 7,
                color="white" if dark else "black",
            )
    figure.colorbar(image, label="share of the true class")
    save_figure(figure, path)


def reliability_diagram(
    stats: dict,
    temperatures: dict[str, float],
    path: str | Path,
    title: str = "",
) -> None:
    """Plots each head's accuracy against its confidence, before and after
    temperature scaling (default temperature 1).

    ``stats`` maps heads to ``EmotionStats``; heads without clips are left out.
    """
    stats = {head: c for head, c in stats.items() if len(c)}
    figure, panels = make_figure(2.9 * len(stats) + 0.3, 4.0, len(stats))
    panels = np.ravel(panels).tolist()
    before = {"color": "#7F7F7F", "ls": "--"}
    for axes, (head, collected) in zip(panels, stats.items()):
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, zorder=0)
        logits, targets = collected.stacked()
        temperature, errors = temperatures.get(head, 1.0), []
        after = {"color": HEAD_COLOURS[head], "ls": "-"}
        for value, style in ((1.0, before), (temperature, after)):
            probabilities = softmax(logits, value)
            error = expected_calibration_error(probabilities, targets)
            errors.append(error)
            share, *means = reliability(probabilities, targets, bins=10)
            kept = share > 0
            axes.plot(*(mean[kept] for mean in means), **style)
            # A point's area is its share of the clips.
            axes.scatter(*means, s=240 * share, color=style["color"])
        limits = (-0.03, 1.03)
        axes.set(xlim=limits, ylim=limits)
        axes.set_title(
            f"{head}, {len(collected)} test clips\n"
            f"ECE {errors[0]:.3f}; at temperature {temperature:.2f}: "
            f"{errors[1]:.3f}",
            fontsize=8,
        )
        axes.set_xlabel("confidence")
    panels[0].set_ylabel("accuracy")
    lines: dict[str, dict] = {
        "as trained": before,
        "with temperature": {"color": "dimgray"},
        "perfect calibration": {"color": "black", "lw": 0.8},
    }
    add_legend(figure, lines, "outside lower center", ncols=len(stats))
    set_title(figure, title)
    save_figure(figure, path)


def learning_curves(
    entries: list[dict], path: str | Path, title: str = ""
) -> None:
    """Plots losses and validation scores by epoch, in a panel for each kind.

    Each head has one colour, dashed for training and solid for validation; the
    epoch kept is marked. An entry is ``{"epoch": n, "train": {name: value},
    "valid": {name: value}, "criterion": x}``; the epoch with the lowest
    criterion is kept. Names must start with a head, such as
    "audio_prediction_loss"; others are ignored.
    """
    from matplotlib.ticker import MaxNLocator

    epochs = [entry["epoch"] for entry in entries]
    panels: dict[str, list] = {}
    for part, style in (("train", "--"), ("valid", "-")):
        for name in sorted({k for e in entries for k in e[part]}):
            head, _, kind = name.partition("_")
            if head in HEAD_COLOURS and kind:
                values = [e[part].get(name, math.nan) for e in entries]
                panels.setdefault(kind, []).append((head, style, values))
    # Losses before scores.
    kinds = sorted(panels, key=lambda k: (not k.endswith("_loss"), k))
    if not kinds:
        return
    figure, grid = make_figure(3.6 * len(kinds) + 1.4, 3.3, len(kinds))
    grid = np.ravel(grid)
    known = [e for e in entries if e.get("criterion") is not None]
    chosen = min(known, key=lambda e: e["criterion"], default=None)
    for axes, kind in zip(grid, kinds):
        for head, style, values in panels[kind]:
            axes.plot(
                *(epochs, values, style),
                color=HEAD_COLOURS[head],
                label=head if style == "-" else "_",
                # A line through one point is invisible.
                marker="." if len(epochs) < 10 else None,
            )
        if chosen is not None:
            axes.axvline(chosen["epoch"], color="black", linewidth=0.8, ls=":")
        words = SCORE_NAMES.get(kind, kind.replace("_", " "))
        loss = kind.endswith("_loss")
        axes.set_ylabel(plain(words if loss else f"validation {words}"))
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn = {head for lines in panels.values() for head, *_ in lines}
    lines: dict[str, dict] = {
        h: {"color": c} for h, c in HEAD_COLOURS.items() if h in drawn
    }
    lines["training"] = {"color": "dimgray", "ls": "--"}
    lines["validation"] = {"color": "dimgray"}
    if chosen is not None:
        name = f"epoch {chosen['epoch']}, kept"
        lines[name] = {"color": "black", "lw": 0.8, "ls": ":"}
    add_legend(figure, lines)
    set_title(figure, title)
    save_figure(figure, path)


def add_legend(
    figure: Any,
    lines: dict[str, dict],
    place: str = "outside right center",
    ncols: int = 1,
) -> None:
    """Adds a legend outside of all panels; ``lines`` maps labels to styles."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=k, **style) for k, style in lines.items()]
    figure.legend(handles=handles, loc=place, ncols=ncols, fontsize=8)


def set_title(figure: Any, title: str) -> None:
    """Adds a wrapped title above all panels."""
    width = int(12 * figure.get_figwidth())
    lines = [
        part
        for line in title.splitlines()
        for part in textwrap.wrap(plain(line, 120), width)
    ]
    figure.suptitle("\n".join(lines), fontsize=10)


def plain(text: str, most: int = 40) -> str:
    r"""Escapes untrusted text, such as a label, for a figure.

    Returns the first ``most`` characters of
    :func:`~vavl_sb.utils.text.printable`, without dollar signs that matplotlib
    would read as a formula, or a leading underscore, which would remove a curve
    from the legend.

    Example
    -------
    >>> print(plain(r"$\alpha$"))
    \$\alpha\$
    """
    text = printable(str(text))[:most].replace("$", r"\$")
    return f"\u2009{text}" if text.startswith("_") else text


def make_figure(
    width: float, height: float, columns: int = 1, rows: int = 1
) -> tuple[Any, Any]:
    """Creates a figure without a display, and its panels as
    ``Figure.subplots`` does. Width and height are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(w_pad=0.08)  # Between panels too.
    figure = Figure(figsize=(width, height), layout=engine)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns)
    for axes in np.ravel(panels):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    return figure, panels


def save_figure(figure: Any, path: str | Path) -> None:
    """Writes a figure atomically, in the format of the path's suffix, or in all
    ``FORMATS`` if it has none of them."""
    from matplotlib import rc_context

    for name in ("matplotlib", "fontTools"):  # Keeps them out of a run's log.
        logging.getLogger(name).setLevel(logging.WARNING)
    path = Path(path)
    several = path.suffix not in FORMATS
    for end in FORMATS if several else (path.suffix,):
        buffer = io.BytesIO()
        # TrueType fonts, as publishers require, and no date.
        with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "vavl"}):
            dated = {".pdf": "CreationDate", ".svg": "Date"}
            metadata = {dated[end]: None} if end in dated else None
            figure.savefig(buffer, format=end[1:], dpi=200, metadata=metadata)
        name = f"{path.name}{end}" if several else path.name
        write_atomically(path.with_name(name), buffer.getvalue())


def remove_figure(path: str | Path) -> None:
    """Removes the files of :func:`save_figure`, in all formats."""
    for end in FORMATS:
        Path(f"{path}{end}").unlink(missing_ok=True)


def emotion_over_time(
    timeline: list, limits: Sequence[float] | None = None, title: str = ""
) -> Any:
    """Plots the predictions for the windows of a clip.

    ``timeline`` is a list of TimedEmotion objects in order of time; windows
    without an emotion leave a gap. ``limits`` are the lowest and highest value
    of an attribute; None for 0 to 1, extended to the values.
    """
    figure, axes = make_figure(7.0, 2.8)
    times, values = emotion_curves(timeline)
    colours = emotion_colours(list(values))
    for name, line in values.items():
        style = {"color": colours[name], "label": plain(name)}
        axes.plot(times, line, ".-", markersize=4, linewidth=1.5, **style)
    axes.set_xlim(0, max((w.end for w in timeline), default=1.0) or 1.0)
    axes.set_ylim(*value_range(values, limits))
    set_title(figure, title)
    axes.set_xlabel("time (s)")
    axes.set_ylabel(value_name(timeline))
    if values:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def value_name(timeline: list) -> str:
    """Returns the axis label of :func:`emotion_curves`."""
    classes = any(w.emotion and w.emotion.probabilities for w in timeline)
    return "probability" if classes else "value"


def value_range(
    values: dict[str, list], limits: Sequence[float] | None
) -> tuple[float, float]:
    """Returns the limits of the axis: ``limits``, or 0 and 1, extended to the
    values."""
    if limits:
        return limits[0], limits[1]
    known = [v for line in values.values() for v in line if not math.isnan(v)]
    return min([0.0, *known]), max([1.0, *known])


def emotion_curves(timeline: list) -> tuple[list[float], dict[str, list]]:
    """Returns the points of :func:`emotion_over_time`: times, and for each
    class or attribute a list of values, NaN for windows without an emotion.

    Points are at the middle of a window; the first and the last value are
    extended to the ends of the clip.
    """
    points = [
        (w.emotion.probabilities or w.emotion.attributes) if w.emotion else {}
        for w in timeline
    ]
    # A dict keeps the model's order of names.
    names = list(dict.fromkeys(name for values in points for name in values))
    if not names:
        return [], {}
    times = [(window.start + window.end) / 2 for window in timeline]
    times = [timeline[0].start, *times, timeline[-1].end]
    points = [points[0], *points, points[-1]]
    return times, {
        name: [values.get(name, math.nan) for values in points]
        for name in names
    }
