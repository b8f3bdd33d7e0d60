"""What others can send to the page: a real server, asked by raw sockets."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None,
    reason="the page needs gradio: pip install 'vavl_sb[demo]'",
)
MAX_BYTES = 1_500_000  # Above what is kept in memory.
MAX_SECONDS = 5
SERVE = f"""
import page_models, vavl_sb.page.server as server
server.serve(page_models.ModelOfSpeakers, PORT, {MAX_BYTES / 1e6}, {MAX_SECONDS},
    lambda line: print(line, flush=True))
"""
FORM = "Content-Type: multipart/form-data; boundary=B"
UPLOAD = "POST /gradio_api/upload"


class Server:
    """The page in a process of its own, and what lies in its folder."""

    def __init__(self, folder, command=(sys.executable, "-c", SERVE)):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.host = f"Host: 127.0.0.1:{self.port}"
        # Where the model is, among others.
        paths = os.pathsep.join(filter(None, sys.path))
        more = {"TMPDIR": str(folder), "PYTHONPATH": paths}
        self.process = subprocess.Popen(
            [word.replace("PORT", str(self.port)) for word in command],
            env={**os.environ, **more, "GRADIO_SHARE": "true"},
            stdout=subprocess.PIPE,
        )
        if not self.process.stdout.readline().startswith(b"vavl demo: "):
            pytest.fail("the page did not start")

    def stop(self, number):
        """Ends it by a signal; it leaves nothing behind."""
        self.process.send_signal(number)
        assert self.process.wait(timeout=60) == 0
        assert list(self.folder.iterdir()) == []

    def clips(self):
        """Bytes of the files that lie in the folder."""
        return {
            path: path.stat().st_size
            for path in self.folder.glob("vavl-demo-*/**/*")
            if path.is_file()
        }

    def open_and_deleted(self):
        """Nameless files that the process has written."""
        found = []
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(link))
        place = str(self.folder)
        return [n for n in found if place in n and n.endswith("(deleted)")]

    def send(self, request, *headers, body=b"", host=None):
        """A connection on which so much has been sent."""
        connection = socket.create_connection(
            ("127.0.0.1", self.port), timeout=20
        )
        lines = [f"{request} HTTP/1.1", host or self.host, *headers]
        head = "\r\n".join([*filter(None, lines), "Connection: close", "", ""])
        try:
            connection.sendall(head.encode("latin-1") + body)
        except ConnectionError:
            pass  # Refused, and closed, before all was sent.
        return connection

    def ask(self, *request, **more):
        """Status and body of the answer; its head stays in ``head``."""
        data = b""
        with self.send(*request, **more) as connection:
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(65536):
                    data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        assert head, "no answer"
        self.head = head.decode()
        return int(head.split()[1]), body.decode(errors="replace")

    def upload(self, *headers, body=None, content=b"happy", **more):
        """The same of an upload of one clip."""
        body = form(content) if body is None else body
        length = f"Content-Length: {len(body)}"
        kind = [] if any(h.startswith("Content-T") for h in headers) else [FORM]
        return self.ask(UPLOAD, *kind, length, *headers, body=body, **more)

    def post(self, route, data):
        """The same of a question in JSON."""
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        kind = "Content-Type: application/json"
        length = f"Content-Length: {len(body)}"
        return self.ask(f"POST /gradio_api/{route}", kind, length, body=body)

    def join(self, visitor, path):
        """Asks about a clip as the page does."""
        return self.question(visitor, "file", file_data(path), False, False)

    def question(self, visitor, part, *values):
        """Asks what follows first on a part of the page."""
        config = json.loads(self.ask("GET /config")[1])
        (key,) = (
            row["id"]
            for row in config["components"]
            if row["props"].get("elem_id") == part
        )
        data = {"session_hash": visitor, "data": values, "trigger_id": key}
        data["fn_index"] = min(
            row["id"]
            for row in config["dependencies"]
            if key in [target for target, _ in row["targets"]]
        )
        return self.post("queue/join", data)

    def events(self, visitor):
        """All that comes of it, once it is done."""
        route = f"GET /gradio_api/queue/data?session_hash={visitor}"
        return self.ask(route)[1]


def file_data(path):
    """An upload as the page names it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def form(*contents, field="files", name="clip.mp4", end=b"--B--\r\n"):
    """The body of an upload."""
    head = f'--B\r\nContent-Disposition: form-data; name="{field}"'
    head = f'{head}; filename="{name}"\r\n\r\n'.encode()
    return b"".join(head + content + b"\r\n" for content in contents) + end


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop(signal.SIGINT)


@pytest.fixture
def empty(server):
    """The server, where no clip lies."""
    for path in server.clips():
        path.unlink()
    return server


FOREIGN = [
    "ORIGIN: HTTP://EVIL.EXAMPLE",
    "Origin: null",
    "Origin: http://127.0.0.1:1",
    "Origin: http://127.0.0.1:PORT@evil.example",
    "Origin: http://127.0.0.1:PORT\r\nOrigin: http://evil.example",
    "Origin: http://127.0.0.1:PORT\r\nSec-Fetch-Site: cross-site",
    "Sec-Fetch-Site: same-site",
]


@pytest.mark.parametrize("header", FOREIGN)
@pytest.mark.parametrize("route", ["upload", "queue/join"])
def test_another_site_is_refused_before_its_body_is_read(server, header, route):
    header = header.replace("PORT", str(server.port))
    # None of the body is ever sent: who waits for it gets no answer.
    request = f"POST /gradio_api/{route}"
    status, line = server.ask(request, FORM, "Content-Length: 9999", header)
    assert (status, line) == (403, "no requests from other sites\n")


def test_the_page_itself_and_programs_may_upload(empty):
    own = f"http://127.0.0.1:{empty.port}"
    named = f"localhost:{empty.port}"
    for headers, host in (
        ([], None),
        ([f"Origin: {own}", "Sec-Fetch-Site: same-origin"], None),
        ([f"Origin: http://{named}"], f"Host: {named}"),
        ([], f"Host: {named.upper()}"),
        (["Sec-Fetch-Site: none"], None),
    ):
        status, text = empty.upload(*headers, host=host)
        assert status == 200
        (path,) = json.loads(text)
        assert empty.clips()[Path(path)] == len(b"happy")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:PORT",
        "127.0.0.1.evil.example",
        "localhost:PORT@evil.example",
        "[::1]:PORT",
        "",
    ],
)
def test_a_site_that_points_its_name_here_is_refused(server, host):
    host = f"Host: {host}".replace("PORT", str(server.port))
    for request in ("GET /", "GET /config", UPLOAD):
        assert server.ask(request, host=host)[0] == 400


def test_a_link_from_elsewhere_leads_to_the_page_and_to_nothing_else(server):
    foreign = "Sec-Fetch-Site: cross-site"
    status, text = server.ask("GET /", foreign, "Sec-Fetch-Mode: navigate")
    assert status == 200 and "vavl demo" in text
    # What it shows may load nothing from elsewhere.
    policy = re.search("content-security-policy: (.*)", server.head)[1]
    assert policy.startswith("default-src 'self' ") and "http" not in policy
    for route in ("/config", "/gradio_api/file=/etc/hostname"):
        assert server.ask(f"GET {route}", foreign)[0] == 403
    assert server.ask("GET /", "Origin: http://evil.example")[0] == 403


def test_routes_that_the_page_has_no_use_for_are_not_there(server):
    for request in (
        "GET /gradio_api/deep_link?session_hash=x",
        "GET /gradio_api/file=https://example.com/a.mp4",
        "GET http://evil.example/",
        "PUT /gradio_api/upload",
        "POST //gradio_api/upload",
        "POST /gradio_api/run/predict",
    ):
        # Nothing of the body is sent; see above.
        status, line = server.ask(request, FORM, "Content-Length: 9999")
        assert (status, line) == (404, "no such page\n"), request
    handshake = ["Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    assert server.ask("GET /gradio_api/queue/join", *handshake)[0] >= 400


def test_no_other_file_of_the_disk_is_served(empty):
    (path,) = json.loads(empty.upload(content=b"mine")[1])
    assert empty.ask(f"GET /gradio_api/file={path}") == (200, "mine")
    route = f"GET /gradio_api/file={path}"
    assert empty.ask(route, "Range: bytes=1-2") == (206, "in")
    assert empty.ask(route, "Range: bytes=\xb2-\xb3")[0] == 416
    folder = Path(path).parent.parent
    for route in (
        "/gradio_api/file=/etc/passwd",
        f"/gradio_api/file={folder}/../../../../../../etc/passwd",
        f"/gradio_api/file={folder}",
        "/gradio_api/file=file:///etc/passwd",
        "/assets/../../../../../../../../../../../etc/passwd",
        f"/static/{'%2e%2e/' * 20}etc/passwd",
    ):
        status, text = empty.ask(f"GET {route}")
        assert status in (403, 404) and "root:" not in text, route


def chunked(pieces):
    """A body that does not say how long it is."""
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces)


def test_a_whole_request_is_bounded_and_leaves_nothing(empty):
    length = "Content-Length: 99999999999"
    status, line = empty.ask(UPLOAD, FORM, length)
    assert status == 413 and line.count("\n") == 1 and "size" in line
    half = bytes(MAX_BYTES // 2)
    assert empty.upload(body=form(*[half] * 30))[0] == 413
    stream = chunked([form(half, end=b"")] + [half] * 5)
    coding = "Transfer-Encoding: chunked"
    assert empty.ask(UPLOAD, FORM, coding, body=stream)[0] == 413
    # Several within the bound: the page sends one at a time.
    assert empty.upload(body=form(b"a", b"b"))[0] == 400
    # One byte more than a clip may have, and as many as it may have.
    assert empty.upload(content=bytes(MAX_BYTES + 1))[0] == 413
    assert empty.clips() == {} and empty.open_and_deleted() == []
    assert empty.upload(content=bytes(MAX_BYTES))[0] == 200
    assert list(empty.clips().values()) == [MAX_BYTES]


@pytest.mark.parametrize(
    "body",
    [
        form(b"x" * 9999, field="other"),
        form(b"x" * 9999, end=b""),
        form(b"x", name="n" * 99_999),
        b"no form",
    ],
)
def test_a_broken_upload_is_one_line_and_leaves_nothing(empty, body):
    for kind in (FORM, "Content-Type: multipart/form-data", "Content-Type: x"):
        status, line = empty.upload(kind, body=body)
        assert status == 400 and line.count("\n") == 1, line
    assert empty.clips() == {}


def wait_for(condition):
    """Waits until it is true."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_an_upload_that_breaks_off_leaves_nothing(empty):
    body = form(bytes(MAX_BYTES), end=b"")
    length = f"Content-Length: {len(body) + 99}"
    connections = [empty.send(UPLOAD, FORM, length, body=body)]
    connections.append(empty.send(UPLOAD, FORM, length, body=body[:99]))
    wait_for(empty.open_and_deleted)
    for connection in connections:
        connection.close()
    wait_for(lambda: not empty.open_and_deleted())
    assert empty.clips() == {}


@pytest.mark.parametrize(
    "name, kept",
    [
        ("../../../../evil.mp4", "evil.mp4"),
        (".hidden", "hidden"),
        ("a%00\x1b[31mb.mp4", "a00[31mb.mp4"),
        ("", "clip"),
        ("\u202e" + "n" * 99 + ".mp4", "n" * 56 + ".mp4"),
    ],
)
def test_a_name_is_a_name_and_no_path(empty, name, kept):
    status, text = empty.upload(body=form(b"happy", name=name))
    (path,) = empty.clips()
    assert status == 200 and json.loads(text) == [str(path)]
    assert path.name == kept and len(path.parent.name) == 32
    assert path.parent.parent.name.startswith("vavl-demo-")


def test_all_clips_together_are_bounded_and_the_oldest_goes(empty):
    paths = []
    for number in range(9):
        content = b"%d" % number + bytes(MAX_BYTES - 1)
        status, text = empty.upload(content=content)
        assert status == 200
        paths += json.loads(text)
        assert sum(empty.clips().values()) <= 4 * MAX_BYTES
    kept = {str(path) for path in empty.clips()}
    assert 1 < len(kept) < 5 and kept == set(paths[-len(kept) :])
    # Nor can one lay down files without end that have no bytes.
    for _ in range(110):
        assert empty.upload(content=b"")[0] == 200
    assert len(empty.clips()) <= 100
    (place,) = empty.folder.glob("vavl-demo-*")
    assert len(list(place.iterdir())) <= 100


def test_uploads_under_way_count_and_make_room_when_they_end(empty):
    body = form(bytes(MAX_BYTES - 200), end=b"")
    length = f"Content-Length: {len(body) + 99}"
    waiting = [empty.send(UPLOAD, FORM, length, body=body) for _ in range(4)]
    try:
        wait_for(lambda: empty.upload(content=bytes(9999))[0] == 507)
    finally:
        for connection in waiting:
            connection.close()
    wait_for(lambda: empty.upload(content=bytes(9999))[0] == 200)


@pytest.mark.parametrize(
    "body, status",
    [
        (b'{"data": "' + b"x" * 99_999 + b'"}', 413),
        (b"[" * 9999, 400),
        (b'{"fn_index": ' + b"9" * 9999 + b"}", 400),
        (b"\xff\xfe{", 400),
        (b"[]", 422),
    ],
)
def test_hostile_json_is_refused(server, body, status):
    assert server.post("queue/join", body)[0] == status


@pytest.mark.parametrize("path", ["HTTPS://example.com", "a", ["/"]])
def test_the_page_fetches_nothing(server, path):
    assert server.join("fetcher", path) == (403, "no files from elsewhere\n")
    # Wherever it stands, and however it is written.
    text = json.dumps({"data": [0, [{"x": {"path": path}}]]})
    body = text.replace("path", "\\u0070ath").encode()
    assert server.post("queue/join", body)[0] == 403


def answers(events):
    """Labels that the page shows, in the events of a visitor."""
    return set(re.findall(r'class=\\"label\\">(\w+)<', events))


@pytest.mark.parametrize("word", ["endless", "crash"])
def test_a_clip_that_never_ends_does_not_block_the_next_visitor(empty, word):
    paths = {}
    for visitor, content in (("bad", word), ("good", "happy")):
        (path,) = json.loads(empty.upload(content=content.encode())[1])
        paths[visitor] = Path(path)
    start = time.monotonic()
    for visitor, path in paths.items():
        assert empty.join(visitor + word, str(path))[0] == 200
    told = empty.events("bad" + word)
    assert not answers(told)
    (line,) = re.findall(r'"error":"(.*?)"', told)
    reason = (
        f"took more than {MAX_SECONDS} s" if word == "endless" else "broke off"
    )
    assert line.startswith("clip.mp4: ") and reason in line
    assert answers(empty.events("good" + word)) == {"happy"}
    assert time.monotonic() - start < MAX_SECONDS + 40
    # What nobody can work on does not stay; what has been answered does.
    assert list(empty.clips()) == [paths["good"]]


def test_no_other_file_is_analysed(empty, tmp_path):
    """Asking as the page does, but for a path that nobody uploaded."""
    (tmp_path / "private").write_text("happy")
    assert empty.join("thief", str(tmp_path / "private"))[0] == 200
    told = empty.events("thief")
    assert not answers(told) and '"success":false' in told
    assert (tmp_path / "private").exists()


def test_other_clips_of_a_person_are_deleted_and_count_for_their_visitor(
    empty, tmp_path
):
    def uploaded(*contents):
        found = [empty.upload(content=content)[1] for content in contents]
        return [path for text in found for path in json.loads(text)]

    def asked(visitor, part, *values):
        assert empty.question(visitor, part, *values)[0] == 200
        return empty.events(visitor)

    (clip,) = uploaded(b"happy")
    assert answers(asked("anna", "file", file_data(clip), False, False))
    # A long name of each of as many as one may choose at once.
    files = [
        {**file_data(path), "orig_name": "x" * 99, "url": "y" * 400}
        for path in uploaded(b"bad", b"endless", *[b"word"] * 31)
    ]
    (tmp_path / "private").write_text("private")
    files.insert(0, file_data(uploaded(b"one")[0]))
    told = asked("anna", "add", files)
    assert set(re.findall(r"this person</b>: (\d+)", told)) == set(
        map(str, range(1, 31))
    )
    lines = re.findall(r'"log":"(.*?)"', told)
    assert [line.split(": ")[1][:9] for line in lines] == [
        *("not a med", "took more", "left out;", "left out;"),
    ]
    assert [str(path) for path in empty.clips()] == [clip]
    found = answers(asked("anna", "no-sound", False, False))
    assert found == {"one" + "_word" * 29}
    # Whoever is not anna has none of it; nor has who asks for another file.
    told = asked("thief", "add", [file_data(str(tmp_path / "private"))])
    assert "this person</b>: 1" not in told
    assert (tmp_path / "private").exists()
    (other,) = uploaded(b"sad")
    told = asked("thief", "file", file_data(other), False, False)
    assert answers(told) == {"sad"}
    asked("anna", "remove")
    assert answers(asked("anna", "no-sound", False, False)) == {"happy"}
