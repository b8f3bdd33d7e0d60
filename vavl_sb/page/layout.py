"""The page itself: what stands where, and what happens on an upload.

Authors
 * The vavl_sb authors 2026
"""

import html
from pathlib import Path
from urllib.parse import quote

from vavl_sb.page.answers import answers_html, crops_html, stages_html
from vavl_sb.training.plots import emotion_over_time
from vavl_sb.utils.errors import VAVLError

ABOUT = """\
A clip goes in, and what the model hears and sees in it comes out. It stays on \
this computer and is deleted when you choose another or close the page. The \
answer is a guess from voice and face about how an emotion is **shown**; it \
does not tell what a person feels.
"""
NOTHING_YET = "<p>Choose or record a clip.</p>"
# Uploads of visitors whose leaving went unnoticed: seconds between two looks,
# and the age at which they are deleted.
SWEEP = (60, 3600)


def build_page(recognizer, clips, max_mb):
    """Puts the page together.

    Arguments
    ---------
    recognizer : vavl_sb.inference.emotion.EmotionRecognizer
        What ``analyze`` is called of.
    clips : vavl_sb.page.clips.Clips
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
        results = [
            player,
            timeline,
            gr.HTML(elem_id="answers"),
            gr.HTML(elem_id="crops"),
            gr.HTML(elem_id="stages"),
        ]
        _connect(gr, page, sources, switches, results, Page(recognizer, clips))
    return page


def _sources(gr, max_mb):
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
            sources=["microphone"],
            label="Record sound",
            elem_id="microphone",
        )
    return [file, camera, microphone]


def _connect(gr, page, sources, switches, results, work):
    """Says what follows on what."""
    # The model answers one visitor after the other.
    common = {
        "outputs": results,
        # Progress, or that there was an error, in one place.
        "show_progress_on": results[0],
        "concurrency_id": "model",
        "concurrency_limit": 1,
        "api_visibility": "private",
    }

    def one_line(error):
        # Shown as HTML; a file's name and a model's labels are not ours.
        return gr.Error(
            html.escape(str(error)), duration=None, print_exception=False
        )

    def on_clip(upload, no_sound, no_face, request: gr.Request):
        yield Page.EMPTY
        path = None if upload is None else upload["path"]
        try:
            yield work.new_clip(request.session_hash, path, no_sound, no_face)
        except VAVLError as error:
            raise one_line(error) from None

    def on_switch(no_sound, no_face, request: gr.Request):
        yield Page.EMPTY
        try:
            yield work.same_clip(request.session_hash, no_sound, no_face)
        except VAVLError as error:
            raise one_line(error) from None

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
    """What the page does, without the page.

    Arguments
    ---------
    recognizer, clips
        As for :func:`build_page`.
    """

    # Of player, timeline, answers, crops and times.
    EMPTY = (NOTHING_YET, None, "", "", "")

    def __init__(self, recognizer, clips):
        self.recognizer = recognizer
        self.clips = clips
        self.limits = getattr(recognizer.hparams, "attribute_range", None)

    def new_clip(self, visitor, path, no_sound, no_face):
        """Results for a clip that was just uploaded or recorded.

        Arguments
        ---------
        visitor : str
            Whose clip it is.
        path : str
            The clip; None if the visitor took it away.
        no_sound, no_face : bool
            The switches.

        Returns
        -------
        tuple
            What player, timeline, answers, crops and times show.
        """
        if path is None:
            self.clips.drop(visitor)
            return self.EMPTY
        self.clips.take(visitor, path)
        return self.same_clip(visitor, no_sound, no_face)

    def same_clip(self, visitor, no_sound, no_face):
        """Results for the clip that a visitor has.

        Arguments
        ---------
        visitor, no_sound, no_face
            As in :meth:`new_clip`.

        Returns
        -------
        tuple
            As in :meth:`new_clip`.

        Raises
        ------
        VAVLError
            The clip cannot be used; the line names it as the visitor does.
        """
        path = self.clips.held(visitor)
        if path is None:
            return self.EMPTY
        modality = chosen_modality(no_sound, no_face)
        try:
            analysis = self.recognizer.analyze(
                path,
                modality=modality,
                crops=0 if modality == "audio" else 8,
            )
        except VAVLError as error:
            # With another switch it may do; without any it is of no use.
            if modality == "auto":
                self.clips.drop(visitor)
            line = error.text.replace(path, Path(path).name)
            raise VAVLError(line) from error
        return (
            player_html(path),
            emotion_over_time(analysis.timeline, self.limits),
            answers_html(analysis.emotion, self.limits, modality),
            crops_html(analysis.crops),
            stages_html(analysis),
        )


def chosen_modality(no_sound, no_face):
    """Which head the switches leave.

    Arguments
    ---------
    no_sound, no_face : bool
        What is to be ignored.

    Returns
    -------
    str
        A modality of ``EmotionRecognizer.analyze``.

    Example
    -------
    >>> chosen_modality(False, False), chosen_modality(True, False)
    ('auto', 'visual')
    """
    if no_sound and no_face:
        raise VAVLError(
            "nothing is left to go by: ignore sound or face, not both"
        )
    if no_sound:
        return "visual"
    return "audio" if no_face else "auto"


def player_html(path):
    """A player for a clip, also for one that has no picture.

    Arguments
    ---------
    path : str
        The clip, in the page's own folder.

    Returns
    -------
    str
    """
    # The browser plays what it can; a container that it does not know is no
    # reason to refuse the clip.
    return (
        '<video class="vavl-player" controls preload="metadata" '
        f'src="/gradio_api/file={quote(path)}"></video>'
        f"<p>{html.escape(Path(path).name)}</p>"
    )
