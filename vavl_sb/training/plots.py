"""Pictures of a run. matplotlib is imported only when one is drawn."""

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

# Colours that people with any colour vision tell apart (Okabe and Ito, Color
# Universal Design, 2008): one for each head, and one for each emotion.
HEAD_COLOURS = {
    "audio": "#0072B2",
    "visual": "#D55E00",
    "audiovisual": "#009E73",
    "auto": "#000000",
}
# By the first three letters, so that "anger" is as "angry".
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
# What a legend says of the bands around lines of scores.
INTERVAL = {
    "95 % interval,\nby speaker": {
        **{"color": "dimgray", "linewidth": 8, "alpha": 0.3},
        "solid_capstyle": "butt",
    }
}


def emotion_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each class or attribute of a model, the same in every figure.

    Names that are not known take what colours are left, in their order.

    Example
    -------
    >>> emotion_colours(["Sadness", "mine"])
    {'Sadness': '#0072B2', 'mine': '#D55E00'}
    """
    found = {name: EMOTION_COLOURS.get(name[:3].lower(), "") for name in names}
    every = dict.fromkeys(EMOTION_COLOURS.values())
    left = [c for c in every if c not in found.values()] or list(every)
    others = [name for name, colour in found.items() if not colour]
    more = {name: left[i % len(left)] for i, name in enumerate(others)}
    return {name: more.get(name) or found[name] for name in names}


def confusion(
    counts: np.ndarray, labels: list[str], title: str, path: str | Path
) -> None:
    """Draws a confusion matrix, rows normalised, counts written in. Shape
    (n, n): rows are true classes, columns predicted."""
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
    """Draws how often each head is right, by how sure it is, before and after
    its temperature (1 for heads that have none).

    ``stats`` are ``EmotionStats`` by head; heads without clips are left out.
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
            sure = softmax(logits, value)
            errors.append(expected_calibration_error(sure, targets))
            share, *means = reliability(sure, targets, bins=10)
            kept = share > 0
            axes.plot(*(mean[kept] for mean in means), **style)
            # A point's area is the share of the clips that it stands for.
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
    panels[0].set_ylabel("share that is right")
    lines: dict[str, dict] = {
        "as trained": before,
        "with temperature": {"color": "dimgray"},
        "as it should be": {"color": "black", "lw": 0.8},
    }
    add_legend(figure, lines, "outside lower center", ncols=len(stats))
    set_title(figure, title)
    save_figure(figure, path)


def learning_curves(
    entries: list[dict], path: str | Path, title: str = ""
) -> None:
    """Draws losses and validation scores by epoch, a panel for each kind.

    A head has one colour, in training (dashed) and validation (solid), and the
    epoch that was kept is marked. Each entry is ``{"epoch": n, "train": {name:
    value}, "valid": {name: value}}``, and ``criterion``, the lowest of which
    chose the epoch. What is named after a head first, such as
    "audio_prediction_loss", is drawn.
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
                # A line through one point is not seen.
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
    """A legend outside of all panels: label to the style of its line."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=k, **style) for k, style in lines.items()]
    figure.legend(handles=handles, loc=place, ncols=ncols, fontsize=8)


def set_title(figure: Any, title: str) -> None:
    """A title above all panels, in as many lines as it needs."""
    width = int(12 * figure.get_figwidth())
    lines = [
        part
        for line in title.splitlines()
        for part in textwrap.wrap(plain(line, 120), width)
    ]
    figure.suptitle("\n".join(lines), fontsize=10)


def plain(text: str, most: int = 40) -> str:
    r"""Text that others wrote, such as a label, for a figure: drawn as it is.

    The first ``most`` characters of :func:`~vavl_sb.utils.text.printable`, with no
    dollar signs that matplotlib takes for a formula, nor an underscore at the
    front, which leaves a curve out of the legend.

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
    """A figure that needs no screen, with a panel, or an array of them as
    ``Figure.subplots`` gives it. Width and height are in inches."""
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
    """Writes a figure of :func:`make_figure`, whole or not at all.

    A path that ends with one of ``FORMATS`` gets that one, any other all of
    them: the PNG to look at, PDF and SVG to print.
    """
    from matplotlib import rc_context

    for name in ("matplotlib", "fontTools"):  # A run's log has other news.
        logging.getLogger(name).setLevel(logging.WARNING)
    path = Path(path)
    several = path.suffix not in FORMATS
    for end in FORMATS if several else (path.suffix,):
        buffer = io.BytesIO()
        # Fonts as publishers ask for them, and no date.
        with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "vavl"}):
            dated = {".pdf": "CreationDate", ".svg": "Date"}
            metadata = {dated[end]: None} if end in dated else None
            figure.savefig(buffer, format=end[1:], dpi=200, metadata=metadata)
        name = f"{path.name}{end}" if several else path.name
        write_atomically(path.with_name(name), buffer.getvalue())


def remove_figure(path: str | Path) -> None:
    """Removes what :func:`save_figure` has written, in all formats."""
    for end in FORMATS:
        Path(f"{path}{end}").unlink(missing_ok=True)


def emotion_over_time(
    timeline: list, limits: Sequence[float] | None = None, title: str = ""
) -> Any:
    """Draws what a model says about the windows of a clip, as a figure.

    The timeline is of TimedEmotion objects in order of time; windows without an
    emotion leave a gap. ``limits`` are the lowest and highest value of an
    attribute; None for 0 to 1, or more where values lie outside.
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
    """What the curves of :func:`emotion_curves` are."""
    classes = any(w.emotion and w.emotion.probabilities for w in timeline)
    return "probability" if classes else "value"


def value_range(
    values: dict[str, list], limits: Sequence[float] | None
) -> tuple[float, float]:
    """The ends of their axis: ``limits``, or 0 and 1, or more where values lie
    outside."""
    if limits:
        return limits[0], limits[1]
    known = [v for line in values.values() for v in line if not math.isnan(v)]
    return min([0.0, *known]), max([1.0, *known])


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
