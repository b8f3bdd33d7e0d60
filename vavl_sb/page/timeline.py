"""The emotion over time, drawn under the player.

Authors
 * The vavl_sb authors 2026
"""

import math

from vavl_sb.training.plots import make_figure


def draw_timeline(timeline, duration, limits=None):
    """Draws what the answering head says, window by window.

    Arguments
    ---------
    timeline : list
        Windows with ``start`` and ``end`` in seconds, in order, and
        ``emotion``, None where a window has neither sound nor face.
    duration : float
        Seconds that the picture spans, as the player does.
    limits : list of float
        Lowest and highest value of an attribute; None for 0 and 1 if the
        values lie there, else for what the values need.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = make_figure(7.0, 2.6)
    times, values = curves(timeline)
    for name, line in values.items():
        axes.plot(times, line, ".-", markersize=4, linewidth=1.5, label=name)
    axes.set_xlim(0, max(duration, 1e-3))
    axes.set_ylim(*(limits or _span(values)))
    axes.set_xlabel("seconds")
    axes.set_title("The emotion over time", fontsize=9)
    axes.grid(alpha=0.3)
    if values:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def curves(timeline):
    """The points that are drawn, a curve for each class or attribute.

    A window stands at its middle; the first and the last reach out to the
    clip's ends. Where a window has no emotion, the curve has a gap.

    Arguments
    ---------
    timeline : list
        As for :func:`draw_timeline`.

    Returns
    -------
    times : list of float
    values : dict
        Name to a list as long as ``times``, NaN in gaps.
    """
    found = [_values(window.emotion) for window in timeline]
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


def _values(emotion):
    """Name to number of one window's answer."""
    if emotion is None:
        return {}
    return emotion.probabilities or emotion.attributes


def _span(values):
    """0 to 1, or more where values lie outside."""
    known = [v for line in values.values() for v in line if not math.isnan(v)]
    return min(known + [0.0]), max(known + [1.0])
