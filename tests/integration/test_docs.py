"""Every code block of README.md and docs/: run here, or marked as not run.

A block that cannot run in a test stands below `<!-- not run: why -->`. The
files that the texts name are made beforehand; of a file's blocks each finds
what those before it have left, as for a reader. Options of all commands are
looked up, also of those that are not run, and in the recipes' READMEs.
"""

import ast
import contextlib
import csv
import functools
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from conftest import REPOSITORY, run_script
from small_models import export_small, light_extractor
from speechbrain.core import RunOptions

from synthetic import generate_corpus
from synthetic.cremad import LAYOUT as CREMAD
from vavl_sb.cli import _parser, main
from vavl_sb.inference import EmotionRecognizer
from vavl_sb.lobes import import_weights
from vavl_sb.lobes.speaker_normalization import SpeakerNormalization
from vavl_sb.page.layout import EXAMPLE
from vavl_sb.training.arguments import read_keys
from vavl_sb.utils.errors import EncoderError

sys.path.insert(0, str(REPOSITORY / "tests" / "unittests"))
from test_protocol import HPARAMS, TRAIN  # noqa: E402
from test_published import wav2vec2  # noqa: E402

DOCS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
READMES = sorted((REPOSITORY / "recipes").glob("*/README.md"))
NAMES = [path.relative_to(REPOSITORY).as_posix() for path in DOCS]
LANGUAGES = ("bash", "python")
# Pages without a command of vavl or of a recipe.
NO_COMMANDS = [
    f"{name}.md"
    for name in "method performance security troubleshooting".split()
]
LABELS = ["angry", "disgust", "fear", "happy", "neutral", "sad"]
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]+?) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Block:
    """A code block, and why it is not run (None: it is)."""

    language: str
    text: str
    why: str
    line: int


def blocks(path):
    """The code blocks of a Markdown file, in order."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(m["language"], m["text"], m["why"], text[: m.start()].count("\n"))
        for m in FENCE.finditer(text)
    ]


def commands(text):
    """Commands of a shell block: continued lines joined, no comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


@pytest.mark.parametrize("path", DOCS, ids=NAMES)
def test_every_block_has_a_language_and_none_is_indented(path):
    text = path.read_text(encoding="utf-8")
    found = blocks(path)
    assert len(re.findall(r"^\s*(```|~~~)", text, re.MULTILINE)) == 2 * len(
        found
    )
    assert len(re.findall("<!-- not run", text)) == sum(
        b.why is not None for b in found
    )
    assert {b.language for b in found} <= set(LANGUAGES)
    outside = FENCE.sub("", text)
    assert not re.search(r"\n\n    \S", outside)


@functools.lru_cache
def hparams_keys(path):
    """Keys of an hparams file and of the file that it includes."""
    own, included = read_keys(path)
    return set(own).union(*(dict(keys) for keys in included.values()))


def shell_texts(path):
    """Shell blocks of a file, fenced or (recipes) indented."""
    if path in DOCS:
        return [b.text for b in blocks(path) if b.language == "bash"]
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    return [re.sub("^    ", "", block, flags=re.MULTILINE) for block in found]


def check_command(words, folder):
    """Refuses options that `vavl`, or a recipe's script, does not have."""
    if ">" in words:
        words = words[: words.index(">")]
    script = words[1].rpartition("/")[2] if len(words) > 2 else ""
    if words[0] == "vavl":
        arguments = [word for word in words[1:] if word != "..."]
        parsed, rest = _parser().parse_known_args(arguments)
        assert rest == [] or getattr(parsed, "passes_on", False)
    elif script == "train.py":
        arguments = rest = words[2:]
    else:
        return False
    options = {w[2:].partition("=")[0] for w in rest if w.startswith("--")}
    for name in (word for word in arguments if word.endswith(".yaml")):
        file = REPOSITORY / name
        file = file if file.is_file() else folder / name
        assert options <= hparams_keys(file)
    return True


EVERYWHERE = pytest.mark.parametrize(
    "path", [*DOCS, *READMES], ids=lambda p: str(p.relative_to(REPOSITORY))
)


@EVERYWHERE
def test_options_in_blocks_exist(path):
    folder, checked = path.parent, 0
    for text in shell_texts(path):
        if not re.search("^(vavl|python|cd) ", text, re.MULTILINE):
            continue
        for line in commands(text):
            words = shlex.split(line, comments=True)
            if words[0] == "cd" and words[1].startswith("recipes/"):
                folder = REPOSITORY / words[1]
            elif words[0] == "cd" and words[1].startswith("../"):
                folder = folder.parent / words[1][3:]
            checked += check_command(words, folder)
    assert bool(checked) == (path.name not in NO_COMMANDS)


@EVERYWHERE
def test_options_in_prose_and_tables_exist(path):
    """In some command, or in some hparams file."""
    known = "".join(
        source.read_text(encoding="utf-8")
        for source in (REPOSITORY / "vavl_sb" / "cli").glob("*.py")
    )
    keys = set().union(
        RunOptions().as_dict(),
        *map(hparams_keys, (REPOSITORY / "recipes").glob("*/hparams/*.yaml")),
    )
    foreign = {"--no-deps", "--key"}  # Of pip, and any option.
    for option in re.findall(r"`(--[\w-]+)", path.read_text(encoding="utf-8")):
        assert (
            option in foreign or option[2:] in keys or (f'"{option}"' in known)
        ), option


def test_messages_of_the_troubleshooting_page_are_those_of_the_program():
    """Each stands, word for word, in an error that the package raises."""
    said = []
    for path in (REPOSITORY / "vavl_sb").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(
                node.value, ast.Constant
            ):
                node.value.value = None  # A docstring is no message.
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [
                    v.value if isinstance(v, ast.Constant) else "\0"
                    for v in node.values
                ]
                said.append("".join(parts))
    pages = [REPOSITORY / "docs" / n for n in ("troubleshooting.md", "hub.md")]
    lines = [
        line
        for path in pages
        for line in re.findall(r"^\| `([^`-].*?)` \|", path.read_text(), re.M)
    ]
    assert len(lines) > 30
    for line in lines:
        pattern = ".*".join(map(re.escape, line.split("...")))
        assert any(re.search(pattern, text, re.DOTALL) for text in said), line


def test_clips_that_texts_name_are_in_the_demos_corpus():
    """By an actor who is in the test part of its partition."""
    named = {
        name
        for path in DOCS
        for name in re.findall(
            r"demo/corpus/(\S+?\.(?:flv|wav))", path.read_text()
        )
    }
    drawn = {
        name
        for clip in CREMAD.clips("1004", 0)[:6][:6]
        for name in map(str, CREMAD.files(clip))
    }
    assert len(named) == 2 and named <= drawn


def make_clips(folder):
    """clip.mp4, long.mp4 and other.wav, and a corpus with its table."""
    corpus = folder / "drawn"
    generate_corpus(
        corpus,
        speakers=4,
        clips_per_speaker=2,
        size=(160, 120),
        num_workers=1,
        progress=False,
    )
    videos = sorted((corpus / "VideoFlash").glob("*.flv"))
    wavs = sorted((corpus / "AudioWAV").glob("*.wav"))
    for name, source in (
        ("clip.mp4", videos[0]),
        ("long.mp4", videos[1]),
        ("other.wav", wavs[0]),
    ):
        shutil.copy(source, folder / name)
    for source, name in (
        (videos[0], "VideoFlash/1004_DFA_HAP_XX.flv"),
        (wavs[0], "AudioWAV/1004_DFA_SAD_XX.wav"),
    ):
        target = folder / "results" / "demo" / "corpus" / name
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    (folder / "vavl_sb" / "page").mkdir(parents=True)
    shutil.copy(EXAMPLE, folder / "vavl_sb" / "page")
    mine = folder / "my_corpus"
    mine.mkdir()
    with open(mine / "labels.csv", "w", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "speaker", "emotion"])
        for number, source in enumerate(videos):
            # Two of the training clips are sound alone.
            if number in (1, 3):
                source = wavs[number]
            shutil.copy(source, mine / source.name)
            who = ["anna", "bert", "cleo", "dan"][number // 2]
            table.writerow([source.name, who, ["calm", "tense"][number % 2]])
    return corpus, videos


def make_demo(folder, corpus, videos):
    """results/demo as a finished run leaves it, as far as texts use it."""
    demo = folder / "results" / "demo"
    export_small(
        *(demo / "inference", LABELS, light_extractor(frame_rate=2.0)),
        corpus="CREMA-D",
        speaker_normalization=SpeakerNormalization(80, 512, 6),
    )
    entries = {
        path.stem: {
            "wav": f"{{data_root}}/AudioWAV/{path.stem}.wav",
            "video": f"{{data_root}}/VideoFlash/{path.name}",
            "duration": 2.0,
            "spk_id": path.stem[:4],
            "emotion": LABELS[number % 6],
        }
        for number, path in enumerate(videos[:3])
    }
    report = json.dumps({"data_folder": str(corpus)})
    for place in (demo / "test.json", folder / "MANIFEST"):
        place.write_text(json.dumps(entries), encoding="utf-8")
        (place.parent / "prepare_report.json").write_text(report)
    (folder / "MODEL").symlink_to(demo / "inference")


def make_published(folder):
    """Files in the forms of the published encoders, with random weights."""
    import timm

    torch.save(
        timm.create_model("tf_efficientnet_b2", num_classes=8),
        folder / "enet_b2_8_best.pt",
    )
    model = wav2vec2()
    torch.save(model.state_dict(), folder / "final_wav2vec.pt")
    other = wav2vec2("layer", stable=False, hidden_size=48)
    torch.save(other.state_dict(), folder / "mine.pt")
    other.config.save_pretrained(folder / "FOLDER")


def make_protocols(folder):
    """DIR_A and DIR_B: protocols of a train.py that trains nothing."""
    recipe = folder / "quick"
    (recipe / "hparams").mkdir(parents=True)
    (recipe / "train.py").write_text(TRAIN)
    (recipe / "hparams" / "quick.yaml").write_text(HPARAMS)
    hparams = recipe / "hparams" / "quick.yaml"
    for name, layers in (("DIR_A", 4), ("DIR_B", 0)):
        words = ["protocol", hparams, "--output_folder", folder / name]
        words += ["--partitions=1", "--seeds=1", f"--shared_layers={layers}"]
        assert main([str(word) for word in words]) == 0


def make_manifests(folder):
    """results/mine, by the script of docs/own_corpus.md."""
    found = blocks(REPOSITORY / "docs" / "own_corpus.md")
    (script,) = (b.text for b in found if "write_manifest" in b.text)
    exec(compile(script, "own_corpus.md", "exec"), {})


# What a page's blocks need besides the model and the clips.
NEEDS = {
    "docs/hub.md": [make_published],
    "docs/protocol.md": [make_protocols],
    "docs/encoders.md": [make_manifests],
    "docs/features.md": [make_manifests],
    "docs/extend.md": [make_manifests],
}
MARKED = {
    "README.md": 3,
    "docs/benchmark.md": 1,
    "docs/demo.md": 2,
    "docs/encoders.md": 1,
    "docs/features.md": 1,
    "docs/hub.md": 3,
    "docs/own_corpus.md": 1,
    "docs/protocol.md": 3,
    "docs/quickstart.md": 1,
    "docs/reliability.md": 5,
    "docs/results.md": 7,
    "docs/several_processes.md": 3,
    "docs/speakers.md": 1,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with everything that texts name."""
    folder = tmp_path_factory.mktemp("docs")
    make_demo(folder, *make_clips(folder))
    (folder / "recipes").symlink_to(REPOSITORY / "recipes")
    return folder


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch):
    """Such a folder of a page's own, which is the current one."""
    target = tmp_path / "work"
    # By links: what blocks write are files of their own.
    shutil.copytree(prepared, target, copy_function=os.link, symlinks=True)
    monkeypatch.chdir(target)
    # `vavl` and `python` are those of this environment.
    here = os.path.dirname(sys.executable)
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "path", [*sys.path])
    return target


def run_shell(text, folder, monkeypatch):
    """Runs a shell block; `vavl` and small scripts in this process."""
    for line in commands(text):
        words = shlex.split(line, comments=True)
        target = None
        if ">" in words:
            words, target = words[: words.index(">")], words[-1]
        if words[0] == "export":
            name, value = words[1].split("=", 1)
            assert (name, value) == ("PYTHONPATH", "$PWD:$PYTHONPATH")
            former = os.environ.get(name, "")
            monkeypatch.setenv(name, f"{folder}:{former}".rstrip(":"))
            sys.path.insert(0, str(folder))
        elif words[0] == "vavl":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                assert main(words[1:]) == 0, line
            assert out.getvalue(), line
            if target:
                (folder / target).write_text(out.getvalue(), encoding="utf-8")
        elif words[0] == "python" and len(words) == 2:
            runpy.run_path(words[1], run_name="__main__")
        elif words[0] == "python" and words[1].endswith("train.py"):
            run_script(folder, *words[1:])
        else:
            done = subprocess.run(
                ["bash", "-c", line],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert done.returncode == 0, (
                done.stdout[-2000:] + done.stderr[-3000:]
            )


def run_python(text, folder, names):
    """Runs a block, or writes the file that its first line names."""
    named = re.match(r"# (\w+\.py)\n", text)
    if named:
        (folder / named[1]).write_text(text, encoding="utf-8")
    else:
        exec(compile(text, "<block>", "exec"), names)


# What blocks leave, as the texts say.
LEFT = {
    "docs/quickstart.md": [
        "predictions.json",
        "predictions.csv",
        "emotion.pdf",
        "representations.npy",
        "my_model/model.json",
    ],
    "docs/hub.md": ["enet_b2_8_best.safetensors", "mine/model.safetensors"],
    "docs/speakers.md": ["anna.speaker.json"],
    "docs/protocol.md": ["comparison.json", "comparison.md"],
    "docs/robustness.md": ["results/robustness/robustness.png"],
    "docs/own_corpus.md": [
        "results/own/metrics.json",
        "results/mine/metrics.json",
        "results/mine/scores/robustness.json",
        "results/numbers/inference/vavl.safetensors",
    ],
    "docs/features.md": ["results/colours/scores/robustness.json"],
    "docs/encoders.md": [
        "results/encoders/inference/thumbnail.safetensors",
        "my_model/model.json",
    ],
}


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def check_own_corpus(folder):
    """Both models know the corpus, and were tested on its two test clips."""
    for run, labels, limits in (
        ("mine", ["calm", "tense"], None),
        ("numbers", ["arousal", "valence"], [1, 5]),
    ):
        metrics = read_json(folder / "results" / run / "metrics.json")
        assert metrics["n_test"]["audio"] == 2
        about = read_json(folder / "results" / run / "inference/model.json")
        assert about["corpus"] == "my corpus" and about["labels"] == labels
        assert about["attribute_range"] == limits
    card = (folder / "results" / "mine" / "inference/README.md").read_text()
    assert "Test speakers: dan" in card and "Partition" not in card
    # The table alone does, and its partition is told.
    card = (folder / "results" / "own" / "inference/README.md").read_text()
    assert "Partition: 1" in card


def check_encoders(folder):
    """The model has them, says so, and is not loaded without trust."""
    about = read_json(folder / "my_model" / "model.json")["metadata"]
    names = {"audio": "my_encoders.Loudness", "visual": "my_encoders.Thumbnail"}
    assert about["encoder_names"] == names
    card = (folder / "my_model" / "README.md").read_text(encoding="utf-8")
    assert "- Visual encoder, my_encoders.Thumbnail: " in card
    with pytest.raises(EncoderError, match="my_encoders.Loudness.*--trust"):
        EmotionRecognizer.from_hparams(folder / "my_model")


def check_features(folder):
    """The model and its scores know the clips' features."""
    model = read_json(folder / "results/colours/inference/model.json")
    assert model["visual_encoder"]["arguments"] == {
        "output_dim": 3,
        "frame_rate": 10.0,
        "columns": None,
    }
    scores = read_json(folder / "results/colours/scores/robustness.json")
    assert scores["clips"]["with_both"] == 2
    assert scores["clips"]["failed"] == {}


def check_extend(folder):
    """The fusion, the loss and the metric were those, and the export is."""
    metrics = read_json(folder / "results/gated/metrics.json")
    # Of two classes, one of the two likeliest is always right.
    assert metrics["test"]["audiovisual"]["top2"] == 1.0
    network = read_json(folder / "results/gated/inference/model.json")[
        "network"
    ]
    assert network["class"] == "my_fusion.Gated"
    assert network["arguments"]["d_model"] == 32
    log = (folder / "results/gated/train_log.txt").read_text(encoding="utf-8")
    assert "audio_prediction_loss" in log and "reconstruction" not in log
    with pytest.raises(EncoderError, match="my_fusion.Gated.*--trust"):
        EmotionRecognizer.from_hparams(folder / "results/gated/inference")


CHECKS = {
    "docs/features.md": check_features,
    "docs/extend.md": check_extend,
    "docs/own_corpus.md": check_own_corpus,
    "docs/encoders.md": check_encoders,
}


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCS, ids=NAMES)
def test_blocks_run(path, folder, monkeypatch):
    name = path.relative_to(REPOSITORY).as_posix()
    found = blocks(path)
    marked = [block for block in found if block.why is not None]
    assert len(marked) == MARKED.get(name, 0)
    if name == "docs/hub.md":
        # The published weights are large: theirs are the sizes of a small one.
        sizes = {**import_weights.LARGE_ROBUST, **wav2vec2().config.to_dict()}
        monkeypatch.setattr(import_weights, "LARGE_ROBUST", sizes)
    for make in NEEDS.get(name, ()):
        make(folder)
    names, ran = {}, 0
    for block in found:
        if block.why is None:
            print(f"{name}, line {block.line}")
            if block.language == "bash":
                run_shell(block.text, folder, monkeypatch)
            else:
                run_python(block.text, folder, names)
            ran += 1
    assert ran + len(marked) == len(found)
    assert found or path.name in NO_COMMANDS
    for left in LEFT.get(name, ()):
        assert (folder / left).stat().st_size > 0, left
    if name in CHECKS:
        CHECKS[name](folder)
