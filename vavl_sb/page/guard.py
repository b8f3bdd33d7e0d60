"""What the page's server lets in: from where, which routes, how many bytes."""

import asyncio
import contextlib
import json
import re
import secrets
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from vavl_sb.utils.errors import VAVLError

# The browser may load only what this server sends: no fonts, scripts or
# pictures from elsewhere. Gradio's own pages need inline scripts and styles.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
]
# Names under which a browser on this computer reaches the server, at any port
# (one may be forwarded). A site that has its own name point here (DNS
# rebinding) is refused.
HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")
# The one form of it that Gradio reads without a fault.
RANGE = re.compile(r"bytes=[0-9]*-[0-9]*")
# What the page uses of Gradio's routes; the others are not there. Some of them
# read from the network, write files, or run a function past the queue.
UPLOAD = "/gradio_api/upload"
ROUTES = {
    "GET": re.compile(
        "/|/config|/theme.css|/favicon.ico|/manifest.json"
        "|/(assets|static|svelte)/.*"
        "|/gradio_api/(info|startup-events|queue/data|heartbeat/[^/]+|file=/.*)"
    ),
    "POST": re.compile(f"{UPLOAD}|/gradio_api/(queue/join|cancel|reset)"),
}
# Bytes of a question to the queue, which may name as many uploads as may lie
# there, and of what stands around an upload.
SMALL = 64 * 1024
# Seconds that a request's body may take to arrive.
PATIENCE = 300
# Clips of the largest size that may lie there, uploads at a time, clips at all.
LARGEST, AT_ONCE, MOST = 4, 4, 100
GONE = "this clip is not there any more; upload it again"


class Refusal(Exception):
    """A request that is not served: a status of HTTP, and why."""

    def __init__(self, status: int, line: str):
        super().__init__(line)
        self.status = status


class _Paths(set):
    """A set that may change while Gradio walks through it in a thread."""

    def __iter__(self):
        return set.__iter__(self.copy())


class Clips:
    """The clips that visitors have uploaded, in a folder of the page's own.

    A visitor has one at a time. It is deleted when the next one comes, when it
    turns out to be of no use, and when the visitor leaves. All of them are
    bounded, by the ``max_bytes`` of the largest clip: the oldest makes room for
    the newest. No file outside of the folder is ever taken or deleted.

    Example
    -------
    >>> import io
    >>> clips = Clips(getfixture("tmp_path"), max_bytes=100)
    >>> for name in ("a.mp4", "b.mp4"):
    ...     clips.take("visitor", clips.keep(io.BytesIO(b"clip"), 4, name))
    >>> [path.name for path in clips.folder.rglob("*.mp4")]
    ['b.mp4']
    """

    def __init__(self, folder: str | Path, max_bytes: int):
        self.folder = Path(folder).resolve()
        self.max_bytes = max_bytes
        self.kept = _Paths()  # For Gradio, which deletes what grows old.
        self._held: dict[str, Path] = {}
        # Visitors come and go in threads of their own.
        self._lock = threading.RLock()

    def keep(self, file: BinaryIO, size: int, name: str) -> str:
        """Writes an upload of ``size`` bytes, by the visitor's name for it, to a
        folder of its own that cannot be guessed; gives its path."""
        place = self.folder / secrets.token_hex(16)
        path = place / file_name(name)
        with self._lock:
            self._make_room(size)
            place.mkdir()
            try:
                with open(path, "xb") as out:
                    shutil.copyfileobj(file, out)
            except BaseException:
                self._delete(path)
                raise
            self.kept.add(str(path))
        return str(path)

    def _make_room(self, size: int) -> None:
        """Deletes the oldest clips, as far as there are too many."""
        found = []
        for place in self.folder.iterdir():
            with contextlib.suppress(OSError):
                place.rmdir()  # Gradio deletes old files alone.
        for path in self.folder.glob("*/*"):
            with contextlib.suppress(OSError):  # As it does at any moment.
                found.append((path.stat().st_mtime, path.stat().st_size, path))
        found.sort()
        size += sum(row[1] for row in found)
        while found and (size > LARGEST * self.max_bytes or len(found) >= MOST):
            _, freed, path = found.pop(0)
            self._delete(path)
            size -= freed

    def take(self, visitor: str, path: str) -> None:
        """Holds a clip for a visitor, and deletes the one held before.

        VAVLError unless it is a file in the folder.
        """
        found = self.find(path)
        with self._lock:
            if self._held.get(visitor) != found:
                self.drop(visitor)
            self._held[visitor] = found

    def find(self, path: str) -> Path:
        """An upload's path; VAVLError unless it is a file in the folder."""
        found = Path(path).resolve()
        if self.folder not in found.parents or not found.is_file():
            raise VAVLError(GONE)
        return found

    def delete(self, path: str) -> None:
        """Deletes an upload, if it is still there."""
        with contextlib.suppress(VAVLError):
            self._delete(self.find(path))

    def held(self, visitor: str) -> str | None:
        """Path of the clip that a visitor has; None if there is none.

        VAVLError if it had to make room.
        """
        path = self._held.get(visitor)
        if path is not None and not path.is_file():
            raise VAVLError(GONE)
        return None if path is None else str(path)

    def drop(self, visitor: str) -> None:
        """Deletes the clip that a visitor has, if any."""
        with self._lock:
            path = self._held.pop(visitor, None)
            if path is not None:
                self._delete(path)

    def _delete(self, path: Path) -> None:
        """Deletes a clip and the folder that it alone lies in."""
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()
        self.kept.discard(str(path))


class Guard:
    """ASGI middleware: what is not for this page does not get to Gradio.

    Uploads are taken in here, because Gradio bounds each file of a request
    alone, and leaves behind what a broken request brought.
    """

    def __init__(self, app: Callable, clips: Clips):
        self.app, self.clips = app, clips
        self._uploads = 0  # Under way.

    async def __call__(self, scope, receive, send):
        """Handles one request; see the base class of ASGI applications."""
        from starlette.responses import PlainTextResponse

        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                message = dict(message)
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        answer = self.app
        try:
            _check(scope)
            if scope["path"] == UPLOAD:
                answer = await self._upload(scope, receive)
            elif scope["method"] == "POST":
                receive = await _question(scope, receive)
        except Refusal as refusal:
            answer = PlainTextResponse(f"{refusal}\n", refusal.status)
        await answer(scope, receive, send_with_headers)

    async def _upload(self, scope, receive):
        """Takes one file in; gives the answer that Gradio's client expects."""
        from anyio.to_thread import run_sync
        from starlette.exceptions import HTTPException
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import JSONResponse

        limit = self.clips.max_bytes
        receive = _bounded(scope, receive, limit + SMALL)
        if self._uploads >= AT_ONCE:
            raise Refusal(507, "too many uploads at once; try again")
        self._uploads += 1
        try:
            request = Request(scope, receive)
            async with request.form(max_files=1, max_fields=0) as form:
                file = form.get("files")
                if file is None:
                    raise Refusal(400, "no file in this request")
                if file.size > limit:
                    raise _too_large(limit)
                given = (file.file, file.size, file.filename or "")
                path = await run_sync(self.clips.keep, *given)
        except HTTPException as error:
            raise Refusal(error.status_code, error.detail) from None
        except ClientDisconnect:
            raise Refusal(400, "the upload broke off") from None
        except OSError as error:
            raise Refusal(507, f"cannot be kept ({error.strerror})") from None
        finally:
            self._uploads -= 1
        return JSONResponse([path])


def _check(scope):
    """Refuses what comes from elsewhere, or asks for what is not there."""
    found = {}
    for name, value in scope["headers"]:
        text = value.decode("latin-1").strip().lower()
        found.setdefault(name.decode("latin-1").lower(), []).append(text)
    (host, *more) = found.get("host", [""])
    if more or not HOST.fullmatch(host):
        raise Refusal(400, "this page is at 127.0.0.1 and localhost only")
    method = scope["method"].replace("HEAD", "GET")
    sites = set(found.get("sec-fetch-site", []))
    # A link on another site may lead to the page, and to nothing else of it.
    if (method, scope["path"]) == ("GET", "/"):
        sites = set()
    foreign = set(found.get("origin", [])) - {f"http://{host}"}
    if foreign or sites - {"same-origin", "none"}:
        raise Refusal(403, "no requests from other sites")
    if method not in ROUTES or not ROUTES[method].fullmatch(scope["path"]):
        raise Refusal(404, "no such page")
    if not all(map(RANGE.fullmatch, found.get("range", []))):
        raise Refusal(416, "give one range of bytes")


def _bounded(scope, receive, limit):
    """``receive``, for a body of so many bytes that comes in bounded time."""
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit:
            raise _too_large(limit)
    clock = asyncio.get_running_loop().time
    end = clock() + PATIENCE
    total = 0

    async def receive_some():
        nonlocal total
        try:
            message = await asyncio.wait_for(receive(), end - clock())
        except asyncio.TimeoutError:
            raise Refusal(408, "the request took too long") from None
        total += len(message.get("body", b""))
        if total > limit:
            raise _too_large(limit)
        return message

    return receive_some


def _too_large(limit):
    """The refusal of a request of too many bytes."""
    return Refusal(413, f"the size is above the limit of {limit} bytes")


async def _question(scope, receive):
    """``receive``, for a body that was read and names files of this computer.

    Gradio would fetch those of a URL, whatever their size.
    """
    read = _bounded(scope, receive, SMALL)
    body, more = b"", True
    while more:
        message = await read()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    try:
        json.loads(body, object_pairs_hook=_with_local_path)
    except (ValueError, RecursionError):
        raise Refusal(400, "no JSON") from None
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again():
        return messages.pop() if messages else await receive()

    return receive_again


def _with_local_path(pairs):
    """An object of JSON, unless its path is none of this computer."""
    for key, value in pairs:
        if key == "path" and not str(value).startswith("/"):
            raise Refusal(403, "no files from elsewhere")
    return dict(pairs)


def file_name(text: str) -> str:
    """A name that a file can have, of what a visitor calls it.

    Example
    -------
    >>> file_name("../clips/me.mp4"), file_name("..")
    ('me.mp4', 'clip')
    """
    # The end has the extension; some systems take 255 bytes.
    name = re.sub(r"[^\w .,()\[\]-]", "", Path(text).name)[-60:]
    return name.lstrip(".") or "clip"
