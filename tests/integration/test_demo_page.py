"""`vavl demo` as a process of its own, driven by a headless Chromium.

Truth is what ``EmotionRecognizer.predict_file`` says about the same clip.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from test_evaluate import make_model

from synthetic import generate_corpus
from vavl_sb.inference import EmotionRecognizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gradio") is None,
        reason="the page needs gradio: pip install 'vavl_sb[demo]'",
    ),
]
MAX_MB = 0.5
PATIENCE = 180  # Seconds; a busy machine takes long to import Gradio.
SWITCHES = {"visual": "no-sound", "audio": "no-face"}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(model_folder):
    return EmotionRecognizer.from_hparams(model_folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A drawn and voiced clip, sound and picture in one file."""
    folder = tmp_path_factory.mktemp("corpus") / "CREMA-D"
    generate_corpus(
        folder,
        speakers=1,
        clips_per_speaker=1,
        size=(96, 72),
        num_workers=1,
        progress=False,
    )
    (path,) = (folder / "VideoFlash").glob("*.flv")
    return path


class Server:
    """A `vavl demo` that runs, and where its uploads lie."""

    def __init__(self, model_folder, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        environment = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "GRADIO_SHARE": "true",
            "HF_HUB_OFFLINE": "1",
        }
        self.log = folder / "log.txt"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "vavl_sb.cli", "demo"),
                    *(str(model_folder), "--port", str(self.port)),
                    *("--max-mb", str(MAX_MB)),
                ],
                env=environment,
                stdout=log,
                stderr=log,
            )
        try:
            wait_for(lambda: self.url in self.log.read_text() or self.ended())
        except BaseException:
            self.stop()
            raise

    def ended(self):
        """Fails with what the process said, if it has ended."""
        assert self.process.poll() is None, self.log.read_text()

    def uploads(self):
        """Files that are held now."""
        return sorted(
            path.name
            for path in self.temporary.glob("vavl-demo-*/**/*")
            if path.is_file()
        )

    def fetch(self, route):
        """Status and text of an answer."""
        request = urllib.request.Request(self.url + route)
        # Not by a proxy that the environment may name.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def stop(self):
        """Ends the process politely; gives its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=PATIENCE)
        finally:
            self.process.kill()


def wait_for(condition):
    """What the condition gives once it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    pytest.fail(f"waited {PATIENCE} s in vain")


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory, clip):
    server = Server(model_folder, tmp_path_factory.mktemp("server"))
    yield server
    status = server.stop()
    assert status == 0, server.log.read_text()
    assert list(server.temporary.iterdir()) == []


@pytest.fixture(scope="module")
def chromium():
    """A browser with a camera and a microphone that it plays itself."""
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
        "--window-size=1300,1500",
        "--no-proxy-server",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ):
        options.add_argument(flag)
    chromium = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(driver)
    )
    yield chromium
    chromium.quit()


class Visit:
    """The page as a visitor has it before them."""

    def __init__(self, chromium, server):
        self.chromium, self.server = chromium, server
        chromium.get(server.url)
        wait_for(lambda: self.all("#file input[type=file]"))

    def all(self, selector):
        """All elements that a CSS selector finds."""
        return self.chromium.find_elements("css selector", selector)

    def script(self, text):
        """What JavaScript in the page gives."""
        return self.chromium.execute_script(f"return {text}")

    def upload(self, path):
        """Chooses a file."""
        wait_for(lambda: self.all("#file input[type=file]"))[0].send_keys(
            str(path)
        )

    def press(self, name):
        """Presses a switch."""
        self.all(f"#{name} input")[0].click()

    def answers(self):
        """Head to the lines of its column; {} while there are none."""
        text = """Object.fromEntries(
            [...document.querySelectorAll('.vavl-answer')].map(
                e => [e.dataset.head, e.innerText.split('\\n')]))"""
        return self.script(text)

    def wait_for_answer(self, head):
        """The answers, once the head that is named is the chosen one."""
        wait_for(
            lambda: (
                self.all(f".vavl-answer.chosen[data-head={head}]")
                or self.toasts()
            )
        )
        assert not self.toasts()
        return self.answers()

    def toasts(self):
        """Messages in the corner, also while they fade in."""
        return self.script(
            "[...document.querySelectorAll('.toast-body')]"
            ".map(e => e.innerText.trim()).filter(Boolean)"
        )


@pytest.fixture
def visit(chromium, server):
    return Visit(chromium, server)


def expected_lines(answer):
    """How a column shows what a head says."""
    ranked = sorted(answer["probabilities"].items(), key=lambda row: -row[1])
    return [answer["label"], *(f"{name} {p:.2f}" for name, p in ranked)]


def without_blanks(lines):
    return [line for line in lines if line.strip()][1:]


def check_answers(visit, emotion, shown=("audio", "visual", "audiovisual")):
    """The page says what the model says in Python."""
    found = visit.wait_for_answer(emotion.modality)
    for head, answer in emotion.per_modality.items():
        lines = without_blanks(found[head])
        expected = expected_lines(answer) if head in shown else ["ignored"]
        assert lines == expected, head


def test_a_clip_gives_three_answers_a_timeline_and_faces(visit, model, clip):
    visit.upload(clip)
    emotion = model.predict_file(clip)
    assert len(emotion.per_modality) == 3
    check_answers(visit, emotion)
    pictures = wait_for(lambda: visit.all("#timeline img"))
    assert visit.script(
        "[...document.querySelectorAll('#timeline img, .vavl-crops img')]"
        ".every(e => e.complete && e.naturalWidth > 50)"
    )
    assert len(pictures) == 1
    crops = visit.all(".vavl-crops img")
    assert len(crops) == len(model.analyze(clip, crops=8).crops) > 2
    source = visit.all("#player video")[0].get_attribute("src")
    status, _ = visit.server.fetch(source[len(visit.server.url) :])
    assert status == 200
    assert visit.server.uploads() == [clip.name]
    elsewhere = visit.script(
        "performance.getEntriesByType('resource').map(e => e.name)"
        f".filter(n => !n.startsWith('{visit.server.url}') "
        "&& !/^(data|blob):/.test(n))"
    )
    assert elsewhere == []


@pytest.mark.parametrize("head", ["visual", "audio"])
def test_switches_ignore_sound_or_face(visit, model, clip, head):
    visit.upload(clip)
    visit.wait_for_answer("audiovisual")
    visit.press(SWITCHES[head])
    check_answers(visit, model.predict_file(clip, modality=head), (head,))
    assert bool(visit.all(".vavl-crops img")) == (head == "visual")
    visit.press(SWITCHES[head])
    check_answers(visit, model.predict_file(clip))
    visit.press("no-sound")
    visit.wait_for_answer("visual")
    visit.press("no-face")
    (line,) = wait_for(visit.toasts)
    assert "not both" in line and visit.answers() == {}


def test_a_visitor_who_leaves_takes_the_clip_along(visit, clip):
    visit.upload(clip)
    visit.wait_for_answer("audiovisual")
    assert visit.server.uploads() == [clip.name]
    visit.chromium.get("about:blank")
    wait_for(lambda: visit.server.uploads() == [])


# Elements that Selenium holds may be replaced before it asks them: each look
# and each press is one step within the page.
CAMERA_PLAYS = """(v => !!v && !!v.srcObject && v.currentTime > 0
    && v.srcObject.getAudioTracks().length > 0)(
    document.querySelector('#camera video'))"""
# Counts what is recorded, 0.2 s at a time. A busy machine is late with it, and
# Gradio sends what there is when Stop is pressed, though it be nothing.
COUNT_RECORDED = """
    window.recorded = 0;
    const start = MediaRecorder.prototype.start;
    MediaRecorder.prototype.start = function (...given) {
        this.addEventListener("dataavailable",
            event => { window.recorded += event.data.size > 0 });
        return start.apply(this, given);
    }"""


def camera_button(word):
    """JavaScript for the button of the camera that has a word on it."""
    return (
        "[...document.querySelectorAll('#camera button')].find(e => "
        f"!e.disabled && e.innerText.toLowerCase().includes('{word}'))"
    )


def press_in_camera(visit, word):
    """Presses it, once it is there."""
    press = f"(b => {{ b && b.click(); return !!b }})({camera_button(word)})"
    wait_for(lambda: visit.script(press))


def test_the_camera_is_recorded_and_answered(visit):
    """Chromium's own test picture and beep."""
    visit.chromium.execute_script(
        "[...document.querySelectorAll('button[role=tab]')]"
        ".find(e => e.innerText.includes('Camera')).click()"
    )
    press_in_camera(visit, "")  # The one there is: to switch it on.
    # Before the stream is there, a press on Record does nothing.
    wait_for(lambda: visit.script(CAMERA_PLAYS))
    visit.chromium.execute_script(COUNT_RECORDED)
    press_in_camera(visit, "record")
    wait_for(lambda: visit.script("window.recorded") >= 12)
    press_in_camera(visit, "stop")
    answers = visit.wait_for_answer("audiovisual")
    assert all(len(lines) > 3 for lines in answers.values())


@pytest.mark.real
def test_a_real_clip(visit, model, real_data):
    """A person on video, and the same video with a silent track."""
    folder = real_data / "ravdess_clips"
    for name, head in (
        ("01-01-01-01-01-01-01.mp4", "audiovisual"),
        ("02-01-01-01-01-02-01.mp4", "visual"),
    ):
        visit = Visit(visit.chromium, visit.server)
        visit.upload(folder / name)
        found = visit.wait_for_answer(head)
        for each, answer in model.predict_file(
            folder / name
        ).per_modality.items():
            assert without_blanks(found[each]) == expected_lines(answer)
        playable = "document.querySelector('#player video').readyState >= 1"
        assert wait_for(lambda text=playable: visit.script(text))
