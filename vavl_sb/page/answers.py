"""What the page shows of an analysis, as HTML.

Pictures stand in the HTML itself, so that no file of them is ever written.

Authors
 * The vavl_sb authors 2026
"""

import base64
import html
import io

# The network's heads, in the words of the page.
HEADS = {
    "audio": "Sound",
    "visual": "Face",
    "audiovisual": "Sound and face",
}
STYLE = """
.vavl-answers { display: flex; gap: 1em; flex-wrap: wrap; }
.vavl-answer { flex: 1 1 12em; padding: 0.8em; border-radius: 8px;
    border: 2px solid var(--border-color-primary); }
.vavl-answer.chosen { border-color: var(--color-accent); }
.vavl-answer h3 { margin: 0; }
.vavl-answer .label { font-size: 1.5em; min-height: 1.6em; }
.vavl-bar { height: 5px; background: var(--color-accent); }
.vavl-crops { display: flex; gap: 0.5em; flex-wrap: wrap; }
.vavl-crops figure { margin: 0; text-align: center; }
.vavl-crops img { width: 110px; height: 110px; }
.vavl-player { width: 100%; max-height: 320px; }
"""


def answers_html(emotion, limits=None, modality="auto"):
    """The three heads' answers side by side.

    Arguments
    ---------
    emotion : vavl_sb.inference.emotion.Emotion
        Of the whole clip.
    limits : list of float
        Lowest and highest value of an attribute, for the lengths of the bars;
        None for 0 and 1.
    modality : str
        What was asked for. A head that reads what was to be ignored shows no
        answer, also where ``emotion`` has one.

    Returns
    -------
    str
    """
    columns = []
    for name, title in HEADS.items():
        answer = emotion.per_modality.get(name)
        if modality not in ("auto", name):
            body = '<div class="label">ignored</div>'
        elif answer is None:
            body = '<div class="label">no answer</div>'
        else:
            body = _answer(answer, limits or (0.0, 1.0))
        chosen = " chosen" if name == emotion.modality else ""
        columns.append(
            f'<div class="vavl-answer{chosen}" data-head="{name}">'
            f"<h3>{title}</h3>{body}</div>"
        )
    return f'<div class="vavl-answers">{"".join(columns)}</div>'


def _answer(answer, limits):
    """One head's answer: its label and a bar for each number."""
    values = answer.get("probabilities") or answer["attributes"]
    # The most probable first; attributes have an order of their own.
    rows = list(values.items())
    if "probabilities" in answer:
        rows.sort(key=lambda row: -row[1])
    low, high = limits
    lines = []
    for name, value in rows:
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        lines.append(
            f"<div>{html.escape(name)} <b>{value:.2f}</b></div>"
            f'<div class="vavl-bar" style="width: {100 * share:.0f}%"></div>'
        )
    label = html.escape(answer.get("label") or "")
    return f'<div class="label">{label}</div>{"".join(lines)}'


def crops_html(crops):
    """The face crops that the model saw, with their times.

    Arguments
    ---------
    crops : list of tuple
        (time in seconds, uint8 array of shape (height, width, 3), RGB).

    Returns
    -------
    str
    """
    if not crops:
        return "<p>No face was used.</p>"
    figures = [
        f'<figure><img alt="face at {time:.1f} s" src="{_picture(pixels)}">'
        f"<figcaption>{time:.1f} s</figcaption></figure>"
        for time, pixels in crops
    ]
    return f'<div class="vavl-crops">{"".join(figures)}</div>'


def _picture(pixels):
    """A data URI of an RGB array."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(
        buffer.getvalue()
    ).decode("ascii")


def stages_html(analysis):
    """How long each stage took, in one line.

    Arguments
    ---------
    analysis : vavl_sb.inference.analysis.Analysis
        With ``profile`` (seconds by stage) and ``duration``.

    Returns
    -------
    str
    """
    stages = ", ".join(
        f"{html.escape(name)} {seconds:.2f} s"
        for name, seconds in analysis.profile.items()
    )
    return f"<p>Clip of {analysis.duration:.1f} s: {stages}.</p>"
