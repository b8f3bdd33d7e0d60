"""The page itself: what stands where, and what happens on an upload."""

import base64
import csv
import html
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vavl_sb.page.guard import Clips
from vavl_sb.page.worker import Ended
from vavl_sb.training.model_card import learned_from
from vavl_sb.training.plots import (
    SCORE_NAMES,
    emotion_colours,
    emotion_curves,
    value_name,
    value_range,
)
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.text import printable

ABOUT = """\
The clip stays on this computer, and is deleted when you choose another or close
the page. The answer is a guess from voice and face about how an emotion is
**shown**; it does not tell what a person feels.
"""
OTHERS = """\
Without labels, of any emotion; five or more help. Remove them before another
person's turn. Only features are kept, which say how a person sounds or looks;
they are gone when you close the page.
"""
# Clips of a person, at most; of a long one, chunks of 6 s; and visitors.
MOST, CHUNKS, PEOPLE = 30, 5, 4
# Drawn and voiced by a program, as the demo's corpus.
EXAMPLE = Path(__file__).with_name("example.mp4")
# The network's heads, in the words of the page.
TITLES = {
    "audio": "Sound",
    "visual": "Face",
    "audiovisual": "Sound and face",
}
STYLE = """
.vavl-model p { margin: 0.1em 0; font-size: 0.85em; line-height: 1.35; }
.vavl-answers { display: flex; gap: 0.8em; flex-wrap: wrap; }
.vavl-answer { flex: 1 1 11em; padding: 0.6em 0.8em; border-radius: 8px;
    border: 1px solid var(--border-color-primary); }
.vavl-answer.chosen { order: -1; border: 2px solid var(--color-accent); }
.vavl-answer h3 { margin: 0; font-size: 0.9em; font-weight: normal; }
.vavl-answer .label { font-size: 1.4em; min-height: 1.5em; }
.vavl-row { display: flex; justify-content: space-between;
    font-size: 0.9em; line-height: 1.4; }
.vavl-bar { height: 4px; margin: 1px 0 3px; border-radius: 2px; }
.vavl-crops { display: flex; gap: 0.5em; flex-wrap: wrap; }
.vavl-crops figure { margin: 0; text-align: center; }
.vavl-crops img { width: 84px; height: 84px; border-radius: 6px; }
.vavl-player { width: 100%; max-height: 220px; border-radius: 8px; }
#timeline .js-plotly-plot { position: relative; }
#timeline .modebar-container { display: none; }
#model, #known { padding: 0; }
.vavl-cursor { position: absolute; width: 1px; background: #333;
    pointer-events: none; }
"""
# While the clip plays, a line in the plot says where it is. Events of a player
# do not bubble, so that they are caught on their way down.
HEAD = """
<script>
document.addEventListener("timeupdate", (event) => {
    const plot = document.querySelector("#timeline .js-plotly-plot");
    const layout = plot && plot._fullLayout;
    if (!layout || !event.target.classList.contains("vavl-player")) return;
    let line = plot.querySelector(".vavl-cursor");
    if (!line) {
        line = plot.appendChild(document.createElement("div"));
        line.className = "vavl-cursor";
    }
    const {xaxis, yaxis} = layout;
    const at = xaxis._offset + xaxis.l2p(event.target.currentTime);
    line.style.left = `${at}px`;
    line.style.top = `${yaxis._offset}px`;
    line.style.height = `${yaxis._length}px`;
}, true);
// The server takes one file a request. Gradio would send those that are chosen
// together as one.
const send = window.fetch;
window.fetch = async (url, options) => {
    const form = options && options.body;
    const files = form instanceof FormData ? form.getAll("files") : [];
    if (files.length < 2) return send(url, options);
    const paths = [];
    for (const file of files) {
        const body = new FormData();
        body.append("files", file);
        const answer = await send(url, {...options, body});
        if (!answer.ok) return answer;
        paths.push(...await answer.json());
    }
    return new Response(JSON.stringify(paths));
};
</script>
"""
NOTHING_YET = "<p>Choose or record a clip, or take the example.</p>"
# Uploads of visitors whose leaving went unnoticed: seconds between two looks,
# and the age at which they are deleted.
SWEEP = (60, 3600)
# Questions that may wait for the model.
WAITING = 20


def build_page(
    ask: Callable,
    clips: Clips,
    max_mb: float,
    metadata: dict | None = None,
    learn: Callable | None = None,
) -> Any:
    """Puts the page together, as gradio.Blocks.

    ``ask`` is from a clip's path, a modality and what is known of the person to
    what :func:`results` gives; ``learn`` from a clip's path to what
    :func:`learn` gives, None for a model without speaker normalization;
    ``clips`` are where the visitors' clips are held, ``max_mb`` the upload
    limit that the page tells, and ``metadata`` what the model is
    (:func:`vavl_sb.training.model_card.describe`).
    """
    import gradio as gr

    with gr.Blocks(
        title="vavl demo", analytics_enabled=False, delete_cache=SWEEP
    ) as page:
        gr.Markdown("# Emotion from sound and face")
        if metadata is not None:
            gr.HTML(model_html(metadata), elem_id="model")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                sources = _sources(gr, max_mb)
                example = gr.Button(
                    "Example: a drawn face", elem_id="example", size="sm"
                )
                with gr.Row():
                    switches = [
                        gr.Checkbox(
                            label=f"Ignore the {what}",
                            elem_id=f"no-{what}",
                            min_width=120,
                        )
                        for what in ("sound", "face")
                    ]
                others = None if learn is None else _others(gr)
            with gr.Column(scale=5, min_width=300):
                # The answers first: they are what people came for.
                answers = gr.HTML(NOTHING_YET, elem_id="answers")
                player = gr.HTML(elem_id="player")
                timeline = gr.Plot(show_label=False, elem_id="timeline")
                texts = [gr.HTML(elem_id=x) for x in ("crops", "stages")]
        gr.Markdown(ABOUT)
        shown = [answers, player, timeline, *texts]
        inputs = sources, example, switches, others
        _connect(gr, page, inputs, shown, Page(ask, clips, learn))
    # Gradio deletes what is in this set and has grown old.
    page.temp_file_sets.append(clips.kept)
    page.queue(max_size=WAITING)
    return page


def _sources(gr, max_mb: float) -> list:
    """A tab for each way to give a clip; gives their components."""
    with gr.Tab("File"):
        # gr.Video would refuse sound alone, and containers that the browser
        # does not know.
        file = gr.File(
            label=f"Video or sound, up to {max_mb:g} MB",
            elem_id="file",
            height=120,
        )
    with gr.Tab("Camera"):
        # A mirrored recording would be sent through ffmpeg to turn it back.
        camera = gr.Video(
            sources=["webcam"],
            include_audio=True,
            webcam_options=gr.WebcamOptions(mirror=False),
            label="Record picture and sound",
            elem_id="camera",
        )
    with gr.Tab("Microphone"):
        microphone = gr.Audio(
            sources=["microphone"], label="Record sound", elem_id="microphone"
        )
    return [file, camera, microphone]


def _others(gr) -> tuple:
    """Where other clips of the person are added and removed."""
    known = gr.HTML(known_html(0), elem_id="known")
    with gr.Row():
        add = gr.UploadButton(
            "Add clips",
            file_count="multiple",
            elem_id="add",
            size="sm",
            min_width=120,
        )
        remove = gr.Button(
            "Remove all",
            interactive=False,
            elem_id="remove",
            size="sm",
            min_width=120,
        )
    return add, remove, known


def _connect(gr, page, inputs, shown, work) -> None:
    """Says what follows on what."""
    from gradio.components.plot import PlotData

    sources, example, switches, others = inputs
    # The model answers one visitor after the other.
    common = {
        "outputs": shown,
        # Progress, or that there was an error, in one place.
        "show_progress_on": shown[0],
        "concurrency_id": "model",
        "concurrency_limit": 1,
        "api_visibility": "private",
    }

    def answer(step, request, *arguments):
        yield Page.EMPTY
        try:
            found = list(step(request.session_hash, *arguments))
            if found[2] is not None:
                found[2] = PlotData(type="plotly", plot=found[2])
            yield found
        except VAVLError as error:
            # Shown as HTML; a file's name and a model's labels are not ours.
            line = html.escape(str(error))
            raise gr.Error(line, duration=None, print_exception=False) from None

    def on_clip(upload, no_sound, no_face, request: gr.Request):
        path = None if upload is None else upload["path"]
        yield from answer(work.new_clip, request, path, no_sound, no_face)

    def on_switch(no_sound, no_face, request: gr.Request):
        yield from answer(work.same_clip, request, no_sound, no_face)

    def on_example(no_sound, no_face, request: gr.Request):
        yield from answer(work.example, request, no_sound, no_face)

    def on_leaving(request: gr.Request):
        work.leave(request.session_hash)

    def on_others(uploads, request: gr.Request):
        visitor = request.session_hash
        paths = [upload["path"] for upload in uploads or ()]
        for line in work.add(visitor, paths):
            if line is not None:
                gr.Warning(html.escape(line), duration=None)
            yield status(work.known(visitor))

    def on_remove(request: gr.Request):
        work.forget(request.session_hash)
        return status(0)

    def status(count):
        return known_html(count), gr.Button(interactive=count > 0)

    for source in sources:
        # Gradio checks that it was uploaded here, and hands it over as it is:
        # what it does besides ("preprocess") leaves empty files behind.
        source.change(on_clip, [source, *switches], preprocess=False, **common)
    for switch in switches:
        switch.input(on_switch, switches, **common)
    example.click(on_example, switches, **common)
    if others is not None:
        add, remove, known = others
        told = {
            "outputs": [known, remove],
            "show_progress_on": known,
            "api_visibility": "private",
        }
        queue = {k: v for k, v in common.items() if k.startswith("concurrency")}
        for event in (
            add.upload(on_others, add, preprocess=False, **told, **queue),
            remove.click(on_remove, **told),
        ):
            event.then(on_switch, switches, **common)
    page.unload(on_leaving)


class Page:
    """What the page does, without the page; see :func:`build_page`."""

    # Of answers, player, timeline, crops and times.
    EMPTY = (NOTHING_YET, "", None, "", "")

    def __init__(
        self, ask: Callable, clips: Clips, learn: Callable | None = None
    ):
        self.ask, self.clips, self.learn = ask, clips, learn
        # What other clips told of a visitor's person, clip by clip.
        self._others: dict[str, list[list]] = {}

    def new_clip(
        self, visitor: str, path: str | None, no_sound: bool, no_face: bool
    ) -> tuple:
        """What answers, player, timeline, crops and times show of a clip that
        was just uploaded or recorded; None if the visitor took it away."""
        if path is None:
            self.clips.drop(visitor)
            return self.EMPTY
        self.clips.take(visitor, path)
        return self.same_clip(visitor, no_sound, no_face)

    def example(self, visitor: str, no_sound: bool, no_face: bool) -> tuple:
        """The same of the example, as if the visitor had uploaded it."""
        with open(EXAMPLE, "rb") as file:
            size = EXAMPLE.stat().st_size
            path = self.clips.keep(file, size, EXAMPLE.name)
        return self.new_clip(visitor, path, no_sound, no_face)

    def same_clip(self, visitor: str, no_sound: bool, no_face: bool) -> tuple:
        """The same of the clip that a visitor has.

        VAVLError if it cannot be used: its line names it as the visitor does.
        """
        path = self.clips.held(visitor)
        if path is None:
            return self.EMPTY
        if no_sound and no_face:
            raise VAVLError(
                "nothing is left to go by: ignore sound or face, not both"
            )
        modality = "visual" if no_sound else "audio" if no_face else "auto"
        others = self._others.get(visitor, [])
        try:
            found = self.ask(path, modality, list(others))
        except VAVLError as error:
            # With another switch it may do; without any it is of no use.
            if modality == "auto" or isinstance(error, Ended):
                self.clips.drop(visitor)
            raise VAVLError(_line(error, path)) from error
        # The browser plays what it can; a container that it does not know is
        # no reason to refuse the clip.
        player = (
            '<video class="vavl-player" controls preload="metadata" '
            f'src="/gradio_api/file={quote(os.fsencode(path))}"></video>'
            f"<p>{_text(Path(path).name)}</p>"
        )
        answers, *more = found
        return (answers, player, *more)

    def add(self, visitor: str, paths: Sequence[str]) -> Iterator[str | None]:
        """Learns from other clips of the person, and deletes them.

        Of four visitors at a time something is known: the oldest makes room.

        Yields
        ------
        str or None
            For each clip: None, or the line that says why it cannot be used.
        """
        others = self._others.setdefault(visitor, [])
        for oldest in list(self._others)[:-PEOPLE]:
            self.forget(oldest)
        try:
            for path in paths:
                if self._others.get(visitor) is not others:
                    break  # All were removed, or the visitor has left.
                yield self._add(others, path)
        finally:
            for path in paths:
                self.clips.delete(path)

    def _add(self, others: list[list], path: str) -> str | None:
        """Learns from one clip; gives the line of one that is of no use."""
        try:
            found = str(self.clips.find(path))
            if len(others) >= MOST:
                raise VAVLError(
                    f"{found}: left out; {MOST} clips are as many as are used"
                )
            assert self.learn is not None  # or nobody could add a clip
            others.append(self.learn(found))
        except VAVLError as error:
            line, name = _line(error, path), Path(path).name
            return line if line.startswith(name) else f"{name}: {line}"
        finally:
            self.clips.delete(path)
        return None

    def known(self, visitor: str) -> int:
        """Of how many other clips something is known."""
        return len(self._others.get(visitor, ()))

    def forget(self, visitor: str) -> None:
        """Forgets what other clips told."""
        self._others.pop(visitor, None)

    def leave(self, visitor: str) -> None:
        """Forgets and deletes all that a visitor brought."""
        self.forget(visitor)
        self.clips.drop(visitor)


def _line(error: VAVLError, path: str) -> str:
    """An error's line, with a clip's name as its visitor knows it."""
    return error.text.replace(path, Path(path).name)


def results(
    model: Any, path: str, modality: str, others: Sequence[list] = ()
) -> tuple:
    """What the page shows of a clip, without its player: answers (HTML),
    timeline (a Plotly figure as JSON, or None), crops, and times with what can
    be saved (HTML).

    ``model`` is an EmotionRecognizer, of which ``analyze`` is called;
    ``others`` are what :func:`learn` gave for other clips of the person.
    """
    limits = getattr(model.hparams, "attribute_range", None)
    crops = 0 if modality == "audio" else 8
    more = {}
    if others:
        more["speaker"] = model.enrol_features(list(chain(*others)))
    analysis = model.analyze(path, modality=modality, crops=crops, **more)
    stages = ", ".join(
        f"{name} {seconds:.2f} s" for name, seconds in analysis.profile.items()
    )
    note = ""
    if others:
        clips = f"{len(others)} other clip{'s' if len(others) > 1 else ''}"
        note = f'<p class="vavl-with">With {clips} of this person.</p>'
    return (
        answers_html(analysis.emotion, limits, modality, model.trained_heads)
        + note,
        timeline_json(analysis.timeline, limits),
        crops_html(analysis.crops),
        downloads_html(analysis, Path(path).name)
        + f"<p>Clip of {analysis.duration:.1f} s: {_text(stages)}.</p>",
    )


def learn(model: Any, path: str) -> list:
    """What another clip of a person tells, for ``enrol_features``.

    ``model`` is an EmotionRecognizer with speaker normalization; of a clip of
    more than 30 s the first 30 s count.
    """
    return model.clip_features(path, most=CHUNKS)


def known_html(count: int) -> str:
    """How many other clips of the person are known, and what for."""
    body = f"<p><b>Other clips of this person</b>: {count}</p>"
    return f'<div class="vavl-model">{body}<p>{OTHERS}</p></div>'


def model_html(metadata: dict) -> str:
    """What the model is, how well it did, and what it has learned from; of
    :func:`vavl_sb.training.model_card.describe`."""
    lines = [f"Model: <b>{_text(model_name(metadata['folder']))}</b>"]
    classes = metadata["task"] == "classification"
    name = "f1_macro" if classes else "ccc_mean"
    scores = [
        f"{title.lower()} {metadata['test'][head][name]:.2f}"
        for head, title in TITLES.items()
        if name in (metadata["test"] or {}).get(head, {})
    ]
    if scores:
        said = f"Test clips, {SCORE_NAMES[name]}: {', '.join(scores)}"
        lines.append(_text(said))
    lines.append(_text(learned_from(metadata)))
    body = "".join(f"<p>{line}</p>" for line in lines)
    return f'<div class="vavl-model">{body}</div>'


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


def timeline_json(timeline: list, limits: list | None = None) -> str | None:
    """The curves of a clip's TimedEmotion objects as a figure of Plotly, in
    JSON; None for no window.

    ``limits`` are the lowest and highest value of an attribute.
    """
    times, values = emotion_curves(timeline)
    if not values:
        return None
    colours = emotion_colours(list(values))
    low, high = value_range(values, limits)
    gap = 0.02 * (high - low)
    figure = {
        "data": [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": _text(name),
                "x": times,
                "y": [None if math.isnan(v) else v for v in line],
                "line": {"color": colours[name]},
            }
            for name, line in values.items()
        ],
        "layout": {
            "height": 260,
            "margin": {"l": 50, "r": 10, "t": 10, "b": 40},
            "hovermode": "x unified",
            "plot_bgcolor": "white",
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
            "xaxis": {
                "title": {"text": "time (s)"},
                "range": [0, timeline[-1].end],
                "hoverformat": ".1f",
                "gridcolor": "#e5e7eb",
            },
            "yaxis": {
                "title": {"text": value_name(timeline)},
                "range": [low - gap, high + gap],
                "hoverformat": ".2f",
                "gridcolor": "#e5e7eb",
            },
        },
    }
    return json.dumps(figure)


def downloads_html(analysis: Any, name: str) -> str:
    """Links to save a clip's answers as CSV and JSON. They hold all of it, so
    that the server keeps nothing."""
    whole = analysis.emotion
    rows = [("whole clip", 0.0, analysis.duration, whole)]
    rows += [("window", w.start, w.end, w.emotion) for w in analysis.timeline]
    names = list(_values(whole.per_modality[whole.modality]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["part", "start", "end", "modality", "label", *names])
    found = []
    for part, start, end, emotion in rows:
        modality = getattr(emotion, "modality", "")
        heads = getattr(emotion, "per_modality", None)
        said = heads[modality] if heads else {}
        label, values = printable(said.get("label") or ""), _values(said)
        shares = [values.get(key, "") for key in names]
        row = {"part": part, "start": start, "end": end, "modality": modality}
        writer.writerow([*row.values(), label, *shares])
        found.append({**row, "per_modality": heads})
    links = []
    for kind, mime, content in (
        ("csv", "text/csv", text.getvalue()),
        ("json", "application/json", json.dumps(found, indent=2)),
    ):
        data = base64.b64encode(content.encode("utf-8", "replace")).decode()
        links.append(
            f'<a download="{_text(Path(name).stem)}.{kind}" '
            f'href="data:{mime};base64,{data}">{kind.upper()}</a>'
        )
    return f'<p class="vavl-save">Save as {" or ".join(links)}</p>'


def _values(answer: dict) -> dict:
    """Class to probability, or attribute to value, of a head's answer."""
    return answer.get("probabilities") or answer.get("attributes") or {}


def answers_html(
    emotion: Any,
    limits: list | None = None,
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
            body = _answer(answer, limits or (0.0, 1.0))
        chosen = " chosen" if name == emotion.modality else ""
        columns.append(
            f'<div class="vavl-answer{chosen}" data-head="{name}">'
            f"<h3>{title}</h3>{body}</div>"
        )
    return f'<div class="vavl-answers">{"".join(columns)}</div>'


def _answer(answer: dict, limits: tuple | list) -> str:
    """One head's answer: its label and a bar for each number."""
    values = _values(answer)
    # The most probable first; attributes have an order of their own.
    rows = list(values.items())
    if "probabilities" in answer:
        rows.sort(key=lambda row: -row[1])
    low, high = limits
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


def crops_html(crops: list) -> str:
    """The face crops that the model saw, as HTML.

    Each is (time in seconds, uint8 array of shape (height, width, 3), RGB).
    """
    from PIL import Image

    if not crops:
        return "<p>No face was used.</p>"
    figures = []
    for time, pixels in crops:
        jpeg = io.BytesIO()
        Image.fromarray(pixels).save(jpeg, "JPEG", quality=90)
        data = base64.b64encode(jpeg.getvalue()).decode("ascii")
        figures.append(
            f'<figure><img alt="face at {time:.1f} s" '
            f'src="data:image/jpeg;base64,{data}">'
            f"<figcaption>{time:.1f} s</figcaption></figure>"
        )
    return f'<div class="vavl-crops">{"".join(figures)}</div>'


def _text(text: str) -> str:
    """What others wrote, as text of HTML."""
    return html.escape(printable(text))
