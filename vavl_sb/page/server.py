"""Starts the page on this computer, and clears up behind it."""

import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable

from vavl_sb.page.guard import Clips, Guard
from vavl_sb.page.layout import HEAD, STYLE, build_page, learn, results
from vavl_sb.page.worker import Worker
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.text import say

HOST = "127.0.0.1"
MB = 10**6


def serve(
    load_model: Callable,
    port: int = 7860,
    max_mb: float = 100.0,
    max_seconds: float = 120.0,
    announce: Callable = say,
) -> None:
    """Serves the page until the process is told to stop.

    Uploads of up to ``max_mb`` MB (10^6 bytes) lie in a folder of this process,
    which no other user can read and which is removed at the end. ``load_model``
    gives the EmotionRecognizer, in a process of its own (so that it must be
    picklable), when the port of 127.0.0.1 is known to be free; the work on a
    clip may take ``max_seconds``. ``announce`` is told in one line where the
    page is, once it is there.
    """
    for name, value in (("mb", max_mb), ("seconds", max_seconds)):
        if not value > 0:
            raise VAVLError(f"--max-{name} {value:g}: give a number above 0")
    _check_port(port)
    with _ends_on_signals(), _private_folder() as folder:
        try:
            import gradio  # noqa: F401
        except ImportError as error:
            raise VAVLError(
                f"the page needs Gradio ({error}): pip install 'vavl_sb[demo]'"
            ) from None
        with Worker(load_model, _work, max_seconds) as worker:
            page = _launch(worker, folder, port, max_mb)
            try:
                announce(f"vavl demo: http://{HOST}:{port} (Ctrl+C stops it)")
                threading.Event().wait()
            finally:
                page.close(verbose=False)


def _work(model, path, function, *arguments):
    """What a function of the page's gives for a clip."""
    return function(model, path, *arguments)


def _check_port(port: int) -> None:
    """Refuses a port that is in use, before a model is loaded in vain."""
    with socket.socket() as probe:
        # As the server does: a port that was left a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise VAVLError(
                f"port {port} on {HOST} cannot be had ({error}): choose "
                "another with --port"
            ) from None


@contextlib.contextmanager
def _private_folder():
    """A folder for uploads; Gradio reads its place when it is imported."""
    former = dict(os.environ)
    with contextlib.ExitStack() as stack:
        folder, work = (
            stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix))
            for prefix in ("vavl-demo-", "vavl-work-")
        )
        stack.callback(os.environ.update, former)
        stack.callback(os.environ.clear)
        # Whatever the environment says (to share the page, to allow more
        # paths, another address) does not hold here.
        for name in [n for n in os.environ if n.startswith("GRADIO_")]:
            del os.environ[name]
        folder = os.path.realpath(folder)
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        # What the model's process leaves when it is killed goes with it.
        os.environ["TMPDIR"] = work
        # Gradio asks its own server whether it is there: not by a proxy.
        known = [os.environ.get("NO_PROXY", ""), HOST]
        os.environ["NO_PROXY"] = ",".join(filter(None, known))
        yield folder


@contextlib.contextmanager
def _ends_on_signals():
    """Ctrl+C, a polite kill and a closed terminal all end it in good order."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number, frame):
        # Once: a second signal must not stop the clearing up.
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    former = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _launch(worker, folder, port, max_mb):
    """The running page."""
    import gradio as gr
    from starlette.middleware import Middleware

    clips = Clips(folder, int(max_mb * MB))

    def ask(path, *arguments):
        return worker.ask(path, results, *arguments)

    def ask_features(path):
        return worker.ask(path, learn)

    features = ask_features if worker.speakers else None
    page = build_page(ask, clips, max_mb, worker.metadata, features)
    page.launch(
        server_name=HOST,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        # Uploads only: Gradio's own folder is allowed as it is.
        allowed_paths=[],
        max_file_size=clips.max_bytes,
        # A fault of the program is told on the terminal, not to visitors.
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        ssr_mode=False,
        theme=gr.themes.Soft(
            primary_hue="slate",
            neutral_hue="slate",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        css=STYLE,
        head=HEAD,
        app_kwargs={
            "middleware": [Middleware(Guard, clips=clips)],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
    )
    return page
