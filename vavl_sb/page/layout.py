"""The page itself: what stands where, and what happens on an upload."""

import base64
import html
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vavl_sb.page.guard import Clips
from vavl_sb.page.worker import Ended
from vavl_sb.training.plots import emotion_over_time
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.text import printable

ABOUT = """\
A clip goes in, and what the model hears and sees in it comes out. It stays on \
this computer and is deleted when you choose another or close the page. The \
answer is a guess from voice and face about how an emotion is **shown**; it \
does not tell what a person feels.
"""
# The network's heads, in the words of the page.
TITLES = {
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
NOTHING_YET = "<p>Choose or record a clip.</p>"
# Uploads of visitors whose leaving went unnoticed: seconds between two looks,
# and the age at which they are deleted.
SWEEP = (60, 3600)
# Questions that may wait for the model.
WAITING = 20


def build_page(ask: Callable, clips: Clips, max_mb: float) -> Any:
    """Puts the page together.

    Arguments
    ---------
    ask : callable
        From a clip's path and a modality to what :func:`results` gives.
    clips : Clips
        Where the visitors' clips are held.
    max_mb : float
        Upload limit that the page tells, in MB.

    Returns
    -------
    gradio.Blocks
    """
    import gradio as gr

    with gr.Blocks(
        title="vavl demo", analytics_enabled=False, delete_cache=SWEEP
    ) as page:
        gr.Markdown(f"# Emotion from sound and face\n{ABOUT}")
        with gr.Row():
            with gr.Column():
                sources = _sources(gr, max_mb)
                switches = [
                    gr.Checkbox(label="Ignore the sound", elem_id="no-sound"),
                    gr.Checkbox(label="Ignore the face", elem_id="no-face"),
                ]
            with gr.Column():
                player = gr.HTML(NOTHING_YET, elem_id="player")
                timeline = gr.Plot(show_label=False, elem_id="timeline")
        texts = [gr.HTML(elem_id=x) for x in ("answers", "crops", "stages")]
        shown = [player, timeline, *texts]
        _connect(gr, page, sources, switches, shown, Page(ask, clips))
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
            label=f"Video or sound, up to {max_mb:g} MB", elem_id="file"
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


def _connect(gr, page, sources, switches, shown, work) -> None:
    """Says what follows on what."""
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
            yield step(request.session_hash, *arguments)
        except VAVLError as error:
            # Shown as HTML; a file's name and a model's labels are not ours.
            line = html.escape(str(error))
            raise gr.Error(line, duration=None, print_exception=False) from None

    def on_clip(upload, no_sound, no_face, request: gr.Request):
        path = None if upload is None else upload["path"]
        yield from answer(work.new_clip, request, path, no_sound, no_face)

    def on_switch(no_sound, no_face, request: gr.Request):
        yield from answer(work.same_clip, request, no_sound, no_face)

    def on_leaving(request: gr.Request):
        work.clips.drop(request.session_hash)

    for source in sources:
        # Gradio checks that it was uploaded here, and hands it over as it is:
        # what it does besides ("preprocess") leaves empty files behind.
        source.change(on_clip, [source, *switches], preprocess=False, **common)
    for switch in switches:
        switch.input(on_switch, switches, **common)
    page.unload(on_leaving)


class Page:
    """What the page does, without the page; see :func:`build_page`."""

    # Of player, timeline, answers, crops and times.
    EMPTY = (NOTHING_YET, None, "", "", "")

    def __init__(self, ask: Callable, clips: Clips):
        self.ask, self.clips = ask, clips

    def new_clip(
        self, visitor: str, path: str | None, no_sound: bool, no_face: bool
    ) -> tuple:
        """What player, timeline, answers, crops and times show of a clip that
        was just uploaded or recorded; None if the visitor took it away."""
        if path is None:
            self.clips.drop(visitor)
            return self.EMPTY
        self.clips.take(visitor, path)
        return self.same_clip(visitor, no_sound, no_face)

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
        try:
            found = self.ask(path, modality)
        except VAVLError as error:
            # With another switch it may do; without any it is of no use.
            if modality == "auto" or isinstance(error, Ended):
                self.clips.drop(visitor)
            line = error.text.replace(path, Path(path).name)
            raise VAVLError(line) from error
        # The browser plays what it can; a container that it does not know is
        # no reason to refuse the clip.
        player = (
            '<video class="vavl-player" controls preload="metadata" '
            f'src="/gradio_api/file={quote(os.fsencode(path))}"></video>'
            f"<p>{_text(Path(path).name)}</p>"
        )
        return (player, *found)


def results(model: Any, path: str, modality: str) -> tuple:
    """What the page shows of a clip, without its player.

    Arguments
    ---------
    model : vavl_sb.inference.emotion.EmotionRecognizer
        What ``analyze`` is called of.
    path : str
        The clip.
    modality : str
        Of ``EmotionRecognizer.analyze``.

    Returns
    -------
    tuple
        Timeline (a figure), answers, crops and times (HTML).
    """
    limits = getattr(model.hparams, "attribute_range", None)
    crops = 0 if modality == "audio" else 8
    analysis = model.analyze(path, modality=modality, crops=crops)
    stages = ", ".join(
        f"{name} {seconds:.2f} s" for name, seconds in analysis.profile.items()
    )
    return (
        emotion_over_time(analysis.timeline, limits),
        answers_html(analysis.emotion, limits, modality),
        crops_html(analysis.crops),
        f"<p>Clip of {analysis.duration:.1f} s: {_text(stages)}.</p>",
    )


def answers_html(
    emotion: Any, limits: list | None = None, modality: str = "auto"
) -> str:
    """The three heads' answers side by side, as HTML.

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
    """
    columns = []
    for name, title in TITLES.items():
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


def _answer(answer: dict, limits: tuple | list) -> str:
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
            f"<div>{_text(name)} <b>{value:.2f}</b></div>"
            f'<div class="vavl-bar" style="width: {100 * share:.0f}%"></div>'
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
