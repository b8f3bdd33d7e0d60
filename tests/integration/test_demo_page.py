"""`vavl demo` as a process of its own, driven by a headless Chromium.

Truth is what ``EmotionRecognizer.predict_file`` says about the same clip.
"""

import importlib.util
import shutil
import signal
import sys
import time

import pytest
from test_evaluate import make_model
from test_page_requests import Server

from synthetic import generate_corpus
from vavl_sb.inference import EmotionRecognizer
from vavl_sb.training.plots import emotion_curves

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gradio") is None,
        reason="the page needs gradio: pip install 'vavl_sb[demo]'",
    ),
]
PATIENCE = 180  # Seconds; a busy machine takes long to import Gradio.


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
    (clip,) = (folder / "VideoFlash").glob("*.flv")
    return clip


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
def server(model_folder, tmp_path_factory):
    words = ["demo", model_folder, "--port", "PORT", "--max-mb", "0.5"]
    command = [sys.executable, "-m", "vavl_sb.cli", *map(str, words)]
    server = Server(tmp_path_factory.mktemp("server"), command)
    yield server
    server.stop(signal.SIGTERM)


@pytest.fixture(scope="module")
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
        "--window-size=1300,1500",
        "--no-proxy-server",
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
        self.url = f"http://127.0.0.1:{server.port}"
        chromium.get(self.url)
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
    rows = [word for name, p in ranked for word in (name, f"{p:.2f}")]
    return [answer["label"], *rows]


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
    wait_for(lambda: visit.all("#timeline .js-plotly-plot .scatterlayer"))
    curves = visit.script(
        "document.querySelector('#timeline .js-plotly-plot').data"
        ".map(e => [e.name, e.y])"
    )
    times, values = emotion_curves(model.timeline(clip))
    for (name, found), (label, truth) in zip(
        curves, values.items(), strict=True
    ):
        assert name == label and found == pytest.approx(truth, abs=1e-5)
    assert visit.script(
        "[...document.querySelectorAll('.vavl-crops img')]"
        ".every(e => e.complete && e.naturalWidth > 50)"
    )
    crops = visit.all(".vavl-crops img")
    assert len(crops) == len(model.analyze(clip, crops=8).crops) > 2
    source = visit.all("#player video")[0].get_attribute("src")
    status, _ = visit.server.ask(f"GET {source[len(visit.url) :]}")
    assert status == 200
    assert [path.name for path in visit.server.clips()] == [clip.name]
    elsewhere = visit.script(
        "performance.getEntriesByType('resource').map(e => e.name)"
        f".filter(n => !n.startsWith('{visit.url}') "
        "&& !/^(data|blob):/.test(n))"
    )
    assert elsewhere == []


def test_switches_ignore_sound_or_face(visit, model, clip):
    visit.upload(clip)
    visit.wait_for_answer("audiovisual")
    for head, switch in (("visual", "no-sound"), ("audio", "no-face")):
        visit.press(switch)
        check_answers(visit, model.predict_file(clip, modality=head), (head,))
        assert bool(visit.all(".vavl-crops img")) == (head == "visual")
        visit.press(switch)
        check_answers(visit, model.predict_file(clip))
    visit.press("no-sound")
    visit.wait_for_answer("visual")
    visit.press("no-face")
    (line,) = wait_for(visit.toasts)
    assert "not both" in line and visit.answers() == {}


def test_a_visitor_who_leaves_takes_the_clip_along(visit, clip):
    visit.upload(clip)
    visit.wait_for_answer("audiovisual")
    assert visit.server.clips()
    visit.chromium.get("about:blank")
    wait_for(lambda: not visit.server.clips())
