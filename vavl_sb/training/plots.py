"""Pictures of a run. matplotlib is imported only when one is drawn.

Authors
 * The vavl_sb authors 2026
"""

import io

from vavl_sb.utils.files import write_atomically


def confusion(counts, labels, title, path):
    """Draws a confusion matrix, rows normalised, counts written in.

    Arguments
    ---------
    counts : np.ndarray
        Shape (n, n): rows are true classes, columns predicted.
    labels : list
        Names of the classes.
    title : str
        What stands above.
    path : str
        PNG to write.
    """
    figure, axes = make_figure(5.2, 4.6)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    for row in range(len(labels)):
        for column in range(len(labels)):
            axes.text(
                column,
                row,
                int(counts[row, column]),
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.5 else "black",
            )
    figure.colorbar(image, label="share of the true class")
    save_figure(figure, path)


def learning_curves(entries, path):
    """Draws losses and validation scores by epoch.

    Arguments
    ---------
    entries : list
        ``[{"epoch": n, "train": {name: loss}, "valid": {name: value}}]``.
    path : str
        PNG to write.
    """
    figure, (losses, scores) = make_figure(10, 4, columns=2)
    epochs = [entry["epoch"] for entry in entries]
    for part, style in (("train", "-"), ("valid", "--")):
        for name in sorted({k for e in entries for k in e[part]}):
            values = [e[part].get(name, float("nan")) for e in entries]
            if name.endswith("_loss"):
                label = f"{part} {name[: -len('_loss')].replace('_', ' ')}"
                losses.plot(epochs, values, style, label=label)
            elif name != "loss":
                scores.plot(epochs, values, label=name.replace("_", " ", 1))
    losses.set_ylabel("loss")
    scores.set_ylabel("validation score")
    for axes in (losses, scores):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7)
    save_figure(figure, path)


def make_figure(width, height, columns=1, rows=1):
    """A figure that needs no screen.

    Arguments
    ---------
    width, height : float
        Size in inches.
    columns, rows : int
        How many panels stand beside and above each other.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : matplotlib.axes.Axes
        One panel, or an array of them as ``Figure.subplots`` gives it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def save_figure(figure, path):
    """Writes a figure as PNG, whole or not at all.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        From :func:`make_figure`.
    path : str
        PNG to write.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())


def emotion_over_time(timeline, path):
    """Draws what a model says about the windows of a clip.

    Arguments
    ---------
    timeline : list of vavl_sb.inference.analysis.TimedEmotion
        Windows without an emotion leave a gap.
    path : str
        PNG to write.
    """
    figure, axes = make_figure(8, 3.2)
    said = [w.emotion for w in timeline if w.emotion is not None]
    classes = bool(said) and said[0].probabilities is not None
    values = [
        w.emotion and (w.emotion.probabilities or w.emotion.attributes)
        for w in timeline
    ]
    times = [(w.start + w.end) / 2 for w in timeline]
    names = next((list(v) for v in values if v), [])
    for name in names:
        line = [v[name] if v else float("nan") for v in values]
        axes.plot(times, line, marker=".", label=name)
    if classes:
        axes.set_ylim(0, 1)
    axes.set_xlim(0, max((w.end for w in timeline), default=1.0) or 1.0)
    axes.set_xlabel("time, s (middle of the window)")
    axes.set_ylabel("probability" if classes else "attribute")
    axes.grid(alpha=0.3)
    if names:
        axes.legend(fontsize=7)
    save_figure(figure, path)
