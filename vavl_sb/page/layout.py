"""The page itself: what stands where, and what happens with a clip."""

import base64
import csv
import html
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vavl_sb.page.worker import Worker
from vavl_sb.training.model_card import learned_from
from vavl_sb.training.plots import (
    SCORE_NAMES,
    emotion_colours,
    emotion_over_time,
)
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.text import markdown, printable

ABOUT = """\
The clip stays on this computer, and is deleted after an hour or with the page.
The prediction is a guess from voice and face about how an emotion is **shown**;
it does not tell what a person feels.
"""
# Drawn and voiced by a program, as the demo's corpus.
EXAMPLE = Path(__file__).with_name("example.mp4")
# The network's heads, in the words of the page.
TITLES = {
    "audio": "Sound",
    "visual": "Face",
    "audiovisual": "Sound and face",
}
STYLE = """
.vavl-answers { display: flex; gap: 0.8em; flex-wrap: wrap; }
.vavl-answer { flex: 1 1 11em; padding: 0.6em 0.8em; border-radius: 8px;
    border: 1px solid var(--border-color-primary); }
.vavl-answer.chosen { order: -1; border: 2px solid var(--color-accent); }
.vavl-answer h3 { margin: 0; font-size: 0.9em; font-weight: normal; }
.vavl-answer .label { font-size: 1.4em; min-height: 1.5em; }
.vavl-row { display: flex; justify-content: space-between; font-size: 0.9em; }
.vavl-bar { height: 4px; margin: 1px 0 3px; border-radius: 2px; }
.vavl-player { width: 100%; max-height: 220px; border-radius: 8px; }
"""
NOTHING_YET = "<p>Choose or record a clip, or take the example.</p>"
# Uploads and pictures: seconds between two looks, and the age at which they
# are deleted.
SWEEP = (60, 3600)
# Of answers, player, timeline, crops and times.
EMPTY = ("", None, None, "")


def build_page(worker: Worker, max_mb: float) -> Any:
    """Puts the page together, as gradio.Blocks; ``max_mb`` is the upload limit
    that it tells."""
    import gradio as gr

    about = worker.about
    with gr.Blocks(
        title="vavl demo", analytics_enabled=False, delete_cache=SWEEP
    ) as page:
        gr.Markdown("# Emotion from sound and face")
        if about["metadata"] is not None:
            gr.Markdown(model_text(about["metadata"]))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                # gr.Video would refuse sound alone, and containers that the
                # browser does not know.
                clip = gr.File(
                    label=f"Video or sound, up to {max_mb:g} MB",
                    elem_id="file",
                    height=120,
                )
                example = gr.Button("Example: a drawn face", elem_id="example")
                no_sound, no_face = (
                    gr.Checkbox(label=f"Ignore the {x}", elem_id=f"no-{x}")
                    for x in ("sound", "face")
                )
                # One that is mirrored, or mute, would go through ffmpeg.
                with gr.Accordion("Record a clip", open=False):
                    camera = gr.Video(
                        label="Camera and microphone",
                        sources=["webcam"],
                        include_audio=True,
                        webcam_options=gr.WebcamOptions(mirror=False),
                        buttons=[],
                    )
                    microphone = gr.Audio(
                        label="Microphone",
                        sources=["microphone"],
                        type="filepath",
                        buttons=[],
                    )
                others = gr.File(
                    label="Other clips of this person, of any emotion, without "
                    "labels; five or more help",
                    file_count="multiple",
                    visible=about["takes_speakers"],
                    height=120,
                )
            with gr.Column(scale=5, min_width=300):
                # The predictions first: they are what people came for.
                answers = gr.HTML(NOTHING_YET, elem_id="answers")
                player = gr.HTML()
                timeline = gr.Plot(show_label=False)
                crops = gr.Gallery(
                    columns=8,
                    show_label=False,
                    height=130,
                    buttons=[],
                )
                times = gr.HTML()
        gr.Markdown(ABOUT)

        def predict(clip, no_sound, no_face, others):
            return show(worker, clip, no_sound, no_face, others or ())

        gr.on(
            [clip.change, no_sound.input, no_face.input, others.change],
            predict,
            [clip, no_sound, no_face, others],
            [answers, player, timeline, crops, times],
            show_progress_on=answers,
            api_name="predict",
        )
        # What is recorded takes the place of the file.
        put = {"outputs": clip, "api_visibility": "private"}
        for source in (camera, microphone):
            source.change(lambda path: path, source, **put)
        example.click(lambda: str(EXAMPLE), **put)
    return page


def show(
    worker: Worker,
    clip: str | None,
    no_sound: bool,
    no_face: bool,
    others: Sequence[str] = (),
) -> tuple:
    """What the page shows of a clip: answers (HTML), player (HTML), timeline
    (a figure or None), crops (for gr.Gallery), times and what can be saved
    (HTML).

    Where the clip cannot be used, the answers are one line that says why.
    """
    if clip is None:
        return NOTHING_YET, *EMPTY
    try:
        if no_sound and no_face:
            raise VAVLError(
                "nothing is left to go by: ignore sound or face, not both"
            )
        modality = "visual" if no_sound else "audio" if no_face else "auto"
        analysis, left_out = worker.analyze(clip, modality, others)
    except VAVLError as error:
        return _line(error.text, [clip, *others]), *EMPTY
    name, limits = Path(clip).name, worker.about["attribute_range"]
    answers = answers_html(
        analysis.emotion, limits, modality, worker.about["trained_heads"]
    )
    if others:
        used = len(others) - len(left_out)
        answers += f"<p>With {used} other clip(s) of this person.</p>"
        answers += "".join(_line(line, others) for line in left_out)
    # The browser plays what it can; a container that it does not know is no
    # reason to refuse the clip.
    player = (
        '<video class="vavl-player" controls preload="metadata" '
        f'src="/gradio_api/file={quote(os.fsencode(clip))}"></video>'
        f"<p>{_text(name)}</p>"
    )
    times = ", ".join(
        f"{stage} {value:.2f} s" for stage, value in analysis.profile.items()
    )
    return (
        answers,
        player,
        emotion_over_time(analysis.timeline, limits),
        [(pixels, f"{time:.1f} s") for time, pixels in analysis.crops],
        f"{downloads_html(analysis, name)}"
        f"<p>Clip of {analysis.duration:.1f} s: {_text(times)}.</p>",
    )


def _line(text: str, clips: Sequence[str]) -> str:
    """A message as HTML, with clips' names as their visitor knows them."""
    for path in clips:
        text = text.replace(path, Path(path).name)
    return f'<p class="vavl-error">{_text(text)}</p>'


def model_text(metadata: dict) -> str:
    """What the model is, how well it did, and what it has learned from, in
    Markdown; of :func:`vavl_sb.training.model_card.describe`."""
    lines = [f"Model: **{markdown(model_name(metadata['folder']))}**"]
    classes = metadata["task"] == "classification"
    name = "f1_macro" if classes else "ccc_mean"
    scores = [
        f"{title.lower()} {metadata['test'][head][name]:.2f}"
        for head, title in TITLES.items()
        if name in (metadata["test"] or {}).get(head, {})
    ]
    if scores:
        lines.append(f"Test clips, {SCORE_NAMES[name]}: {', '.join(scores)}")
    lines.append(markdown(learned_from(metadata)))
    return "  \n".join(lines)


def model_name(folder: str) -> str:
    """A model's name: of a run's ``inference/``, the run's; of one in the
    hub's cache, its id.

    Example
    -------
    >>> model_name("results/demo/inference"), model_name("my_model")
    ('demo', 'my_model')
    >>> model_name("hub/models--me--vavl/snapshots/0123abcd")
    'me/vavl'
    """
    path = Path(folder).resolve()
    if path.parent.name == "snapshots":
        return path.parents[1].name.removeprefix("models--").replace("--", "/")
    return path.parent.name if path.name == "inference" else path.name


def downloads_html(analysis: Any, name: str) -> str:
    """Links to save a clip's predictions as CSV and JSON. They hold all of it,
    so that the server keeps nothing."""
    whole = {
        "file": name,
        **analysis.emotion.as_dict(),
        "timeline": [
            {**vars(w), "emotion": w.emotion and w.emotion.as_dict()}
            for w in analysis.timeline
        ],
    }
    names = list(_values(whole))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["part", "start", "end", "modality", "label", *names])
    rows = [("whole clip", 0.0, analysis.duration, analysis.emotion)]
    rows += [("window", w.start, w.end, w.emotion) for w in analysis.timeline]
    for *part, emotion in rows:
        found = emotion.as_dict() if emotion else {}
        label = printable(found.get("label", ""))
        values = [_values(found).get(key, "") for key in names]
        table.writerow([*part, found.get("modality", ""), label, *values])
    links = []
    for kind, mime, content in (
        ("csv", "text/csv", text.getvalue()),
        ("json", "application/json", json.dumps(whole, indent=2)),
    ):
        data = base64.b64encode(content.encode("utf-8", "replace")).decode()
        links.append(
            f'<a download="{_text(Path(name).stem)}.{kind}" '
            f'href="data:{mime};base64,{data}">{kind.upper()}</a>'
        )
    return f"<p>Save as {' or '.join(links)}</p>"


def _values(answer: dict) -> dict:
    """Class to probability, or attribute to value, of a head's answer."""
    return answer.get("probabilities") or answer.get("attributes") or {}


def answers_html(
    emotion: Any,
    limits: Sequence[float] | None = None,
    modality: str = "auto",
    trained: Sequence[str] = tuple(TITLES),
) -> str:
    """The three heads' answers side by side, as HTML.

    ``limits`` are the lowest and highest value of an attribute, for the lengths
    of the bars; None for 0 and 1. A head that reads what was to be ignored, by
    the modality that was asked for, shows no answer, also where ``emotion`` has
    one; one that is not among the ``trained`` says so.
    """
    columns = []
    for name, title in TITLES.items():
        answer = emotion.per_modality.get(name)
        if modality not in ("auto", name):
            body = '<div class="label">ignored</div>'
        elif name not in trained:
            body = '<div class="label">not trained</div>'
        elif answer is None:
            body = '<div class="label">no answer</div>'
        else:
            body = _answer(answer, *(limits or (0.0, 1.0)))
        chosen = " chosen" if name == emotion.modality else ""
        columns.append(
            f'<div class="vavl-answer{chosen}" data-head="{name}">'
            f"<h3>{title}</h3>{body}</div>"
        )
    return f'<div class="vavl-answers">{"".join(columns)}</div>'


def _answer(answer: dict, low: float, high: float) -> str:
    """One head's answer: its label and a bar for each number."""
    values = _values(answer)
    # The most probable first; attributes have an order of their own.
    rows = list(values.items())
    if "probabilities" in answer:
        rows.sort(key=lambda row: -row[1])
    colours = emotion_colours(list(values))
    lines = []
    for name, value in rows:
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        lines.append(
            f'<div class="vavl-row">{_text(name)} <b>{value:.2f}</b></div>'
            f'<div class="vavl-bar" style="width: {100 * share:.0f}%; '
            f'background: {colours[name]}"></div>'
        )
    label = _text(answer.get("label") or "")
    return f'<div class="label">{label}</div>{"".join(lines)}'


def _text(text: str) -> str:
    """What others wrote, as text of HTML."""
    return html.escape(printable(text))
