"""Starts the page on this computer, and clears up behind it."""

import contextlib
import importlib.util
import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Callable

from vavl_sb.page.layout import EXAMPLE, STYLE, build_page
from vavl_sb.page.worker import Worker
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.text import say

HOST = "127.0.0.1"
# Names under which a browser on this computer reaches the server. A site that
# has its own name point here (DNS rebinding) is refused.
NAMES = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")
# The browser may load only what this server sends: no fonts, scripts or
# pictures from elsewhere. Gradio's own pages need inline scripts and styles.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)


def serve(
    load_model: Callable,
    port: int = 7860,
    max_mb: float = 100.0,
    max_seconds: float = 120.0,
    announce: Callable = say,
) -> None:
    """Serves the page until the process is told to stop.

    Arguments
    ---------
    load_model : Callable
        Gives the EmotionRecognizer, in a process of its own (so that it must
        be picklable).
    port : int
        Where on 127.0.0.1.
    max_mb : float
        Largest upload, in MB (10^6 bytes). Uploads lie in a folder that no
        other user can read, and that is removed at the end.
    max_seconds : float
        How long the work on a clip may take.
    announce : Callable
        Is told in one line where the page is, once it is there.
    """
    for name, value in (("mb", max_mb), ("seconds", max_seconds)):
        if not value > 0:
            raise VAVLError(f"--max-{name} {value:g}: give a number above 0")
    _check_port(port)
    if importlib.util.find_spec("gradio") is None:
        raise VAVLError("the page needs Gradio: pip install 'vavl_sb[demo]'")
    # A polite kill and a closed terminal end it as Ctrl+C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="vavl-demo-") as folder,
    ):
        _set_environment(folder)
        with contextlib.closing(Worker(load_model, max_seconds)) as worker:
            page = build_page(worker, max_mb)
            _launch(page, port, max_mb)
            try:
                announce(f"vavl demo: http://{HOST}:{port} (Ctrl+C stops it)")
                threading.Event().wait()
            finally:
                page.close(verbose=False)


def _check_port(port):
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


def _set_environment(folder):
    """Where uploads go; Gradio reads it when it is imported."""
    # Whatever the environment says (to share the page, to allow more paths,
    # another address) does not hold here.
    for name in [n for n in os.environ if n.startswith("GRADIO_")]:
        del os.environ[name]
    # What the model's process leaves when it is killed goes there as well.
    for name in ("GRADIO_TEMP_DIR", "TMPDIR"):
        os.environ[name] = os.path.realpath(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Gradio asks its own server whether it is there: not by a proxy.
    known = [os.environ.get("NO_PROXY", ""), HOST]
    os.environ["NO_PROXY"] = ",".join(filter(None, known))


def _launch(page, port, max_mb):
    """Starts the server, in a thread."""
    import gradio as gr
    from starlette.middleware import Middleware

    page.launch(
        server_name=HOST,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        allowed_paths=[str(EXAMPLE)],
        max_file_size=int(max_mb * 10**6),
        # A fault of the program is told on the terminal, not to visitors.
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        # Its own fonts would come from Google.
        theme=gr.themes.Soft(font=["system-ui"], font_mono=["monospace"]),
        css=STYLE,
        app_kwargs={"middleware": [Middleware(SameSite)]},
    )


class SameSite:
    """ASGI middleware: requests of other web sites do not get to Gradio.

    Gradio keeps their scripts from reading an answer, but takes their uploads
    and questions. Programs on this computer, which send no ``Origin``, may ask.
    """

    def __init__(self, app: Callable):
        self.app = app

    async def __call__(self, scope, receive, send):
        """Handles one request; see ASGI."""
        from starlette.datastructures import Headers
        from starlette.responses import PlainTextResponse

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                header = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message.get("headers", []), header]
            await send(message)

        app = self.app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            (host, *more) = headers.getlist("host") or [""]
            foreign = set(headers.getlist("origin")) - {f"http://{host}"}
            # A link on another site may lead to the page.
            if (scope["method"], scope["path"]) != ("GET", "/"):
                sites = set(headers.getlist("sec-fetch-site"))
                foreign |= sites - {"same-origin", "none"}
            if more or not NAMES.fullmatch(host.lower()):
                line = "this page is at 127.0.0.1 and localhost only\n"
                app = PlainTextResponse(line, 400)
            elif foreign:
                app = PlainTextResponse("no requests from other sites\n", 403)
        await app(scope, receive, send_with_policy)
