"""`vavl demo` as a process of its own, asked by Gradio's client, by plain HTTP
and by a headless Chromium.

Truth is what ``EmotionRecognizer.predict_file`` says about the same clip.
"""

import http.client
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from test_evaluate import make_model

from vavl_sb.inference import EmotionRecognizer
from vavl_sb.page.layout import EXAMPLE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gradio") is None,
        reason="the page needs gradio: pip install 'vavl_sb[demo]'",
    ),
]
PATIENCE = 180  # Seconds; a busy machine takes long to import Gradio.
MAX_BYTES = 200_000
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"'
    b"\r\n\r\n%s\r\n--B--\r\n"
)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def emotion(model_folder):
    """What the model says about the example."""
    return EmotionRecognizer.from_hparams(model_folder).predict_file(EXAMPLE)


class Server:
    """The page in a process of its own, and what lies in its folder."""

    def __init__(self, model_folder, folder):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        words = ["demo", model_folder, "--port", self.port, "--max-mb", 0.2]
        paths = os.pathsep.join(filter(None, sys.path))
        more = {"TMPDIR": str(folder), "PYTHONPATH": paths}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vavl_sb.cli", *map(str, words)],
            env={**os.environ, **more, "GRADIO_SHARE": "true"},
            stdout=subprocess.PIPE,
        )
        if not self.process.stdout.readline().startswith(b"vavl demo: "):
            pytest.fail("the page did not start")

    def ask(self, method, path, body=None, **headers):
        """Status, body and headers of the answer to a request."""
        connection = http.client.HTTPConnection(self.host, timeout=60)
        headers = {k.replace("_", "-"): v for k, v in headers.items()}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("latin-1"), answer.headers

    def upload(self, content=b"clip", **headers):
        """The same of an upload."""
        kind = "multipart/form-data; boundary=B"
        route = "/gradio_api/upload"
        headers["Content_Type"] = kind
        return self.ask("POST", route, FORM % content, **headers)

    def clips(self):
        """The names of the clips that lie in the folder."""
        return [path.name for path in self.folder.rglob("*.mp4")]


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory):
    server = Server(model_folder, tmp_path_factory.mktemp("server"))
    yield server
    server.process.terminate()
    server.process.wait()


def columns(answers):
    """Head to what its column shows, with the names of the classes."""
    parts = re.split(r'data-head="(\w+)">', answers)[1:]
    texts = (re.sub("(<[^>]*>)+", "\n", part) for part in parts[1::2])
    return {
        head: text.split("\n", 3)[2:] for head, text in zip(parts[::2], texts)
    }


def numbers(text):
    """Class to the probability in lines of text."""
    found = re.findall(r"(\w+)\s+([01]\.\d\d)", text)
    return {name: float(value) for name, value in found}


def check_answers(answers, emotion):
    """The page says of each head what the model says in Python."""
    found = columns(answers)
    for head, truth in emotion.per_modality.items():
        label, text = found[head]
        expected = pytest.approx(truth["probabilities"], abs=0.0051)
        assert label == truth["label"] and numbers(text) == expected, head


def test_a_program_asks_and_gets_what_the_model_says(
    server, emotion, monkeypatch, tmp_path
):
    from gradio_client import Client, handle_file

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client = Client(
        f"http://{server.host}", verbose=False, download_files=tmp_path
    )
    ask = (handle_file(str(EXAMPLE)), False, False, None)
    answers, player, plot, crops, times = client.predict(
        *ask, api_name="/predict"
    )
    assert len(emotion.per_modality) == 3
    check_answers(answers, emotion)
    assert plot["plot"].startswith("data:image/") and len(crops) > 2
    assert "CSV" in times and "decode" in times
    (source,) = re.findall('src="([^"]+)"', player)
    status, body, _ = server.ask("GET", source)
    assert status == 200 and body.encode("latin-1") == EXAMPLE.read_bytes()
    assert server.ask("GET", "/gradio_api/file=/etc/passwd")[0] == 403
    text = handle_file(__file__)
    answers = client.predict(text, False, False, None, api_name="/predict")[0]
    assert "test_demo_page.py: not a media file" in answers


def test_other_sites_and_other_names_are_refused(server):
    own = f"http://{server.host}"
    assert server.upload()[0] == 200
    assert server.upload(Origin=own, Sec_Fetch_Site="same-origin")[0] == 200
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": own, "Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        status, line, _ = server.upload(**headers)
        assert (status, line) == (403, "no requests from other sites\n")
    for host in ("evil.example", f"evil.example:{server.port}", ""):
        status, line, _ = server.ask("GET", "/", Host=host)
        assert status == 400 and "127.0.0.1 and localhost only" in line
    # A link from elsewhere leads to the page, and to nothing else of it.
    status, _, headers = server.ask("GET", "/", Sec_Fetch_Site="cross-site")
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert server.ask("GET", "/config", Sec_Fetch_Site="cross-site")[0] == 403
    name = f"localhost:{server.port}"
    assert server.ask("GET", "/config", Host=name)[0] == 200


def test_uploads_are_bounded(server):
    before = server.clips()
    status, line, _ = server.upload(bytes(MAX_BYTES + 1))
    assert status >= 400 and f"{MAX_BYTES} bytes" in line
    assert server.clips() == before
    assert server.upload(bytes(MAX_BYTES))[0] == 200


@pytest.fixture
def chromium():
    """A browser without a screen."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no chromium: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed"
    )
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "--headless=new",
        "--no-sandbox",  # Chromium has none for root.
        "--disable-dev-shm-usage",
        "--no-proxy-server",
    ):
        options.add_argument(flag)
    chromium = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(driver)
    )
    yield chromium
    chromium.quit()


def test_a_visitor_takes_the_example_and_a_switch(server, emotion, chromium):
    chromium.get(f"http://{server.host}")

    def wait_for(selector):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for found in chromium.find_elements("css selector", selector):
                return found
            time.sleep(0.1)
        pytest.fail(f"waited {PATIENCE} s in vain for {selector}")

    def click(selector):
        # By script: while it loads, what shows the progress is in front.
        chromium.execute_script("arguments[0].click()", wait_for(selector))

    click("#example")
    wait_for(f".vavl-answer.chosen[data-head={emotion.modality}]")
    answers = chromium.execute_script(
        "return document.querySelector('#answers').innerHTML"
    )
    check_answers(answers, emotion)
    click("#no-sound input")
    wait_for(".vavl-answer.chosen[data-head=visual]")
    click("#no-face input")
    assert "not both" in wait_for(".vavl-error").text
    elsewhere = chromium.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
        ".filter(n => !n.startsWith(arguments[0]) && !/^(data|blob):/.test(n))",
        f"http://{server.host}",
    )
    assert elsewhere == []


def test_nothing_is_left_after_the_end(model_folder, tmp_path):
    """Not when the terminal is closed either."""
    server = Server(model_folder, tmp_path)
    try:
        assert server.upload()[0] == 200 and server.clips() == ["a.mp4"]
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o077 == 0
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(timeout=PATIENCE) == 0
        assert list(tmp_path.iterdir()) == []
    finally:
        server.process.kill()
