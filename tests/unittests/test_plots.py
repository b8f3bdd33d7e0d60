"""What figures show, read from matplotlib's own objects and from the files."""

import logging
import re

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from sklearn.metrics import f1_score

from vavl_sb.evaluation import robustness
from vavl_sb.evaluation.predictions import Predictions
from vavl_sb.training import plots
from vavl_sb.utils.metrics import EmotionStats

LABELS = ["angry", "disgust", "fear", "happy", "neutral", "sad"]


@pytest.fixture
def drawn(monkeypatch):
    """Figures, as they are before they are written."""
    found = []
    monkeypatch.setattr(plots, "save_figure", lambda f, p: found.append(f))
    monkeypatch.setattr(robustness, "save_figure", lambda f, p: found.append(f))
    return found


def legend_texts(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def outside(figure):
    """Whether legend and title cover no panel, nor each other, and all is
    within the figure."""
    figure.canvas.draw()
    panels = [a.get_tightbbox() for a in figure.axes if a.get_visible()]
    parts = [legend.get_window_extent() for legend in figure.legends]
    parts += [figure._suptitle.get_window_extent()] * bool(figure._suptitle)
    covered = [
        one
        for number, one in enumerate(parts)
        if any(one.overlaps(o) for o in (*panels, *parts[number + 1 :]))
    ]
    whole = figure.bbox.padded(1)
    return not covered and all(
        whole.contains(*end)
        for b in (*parts, *panels)
        for end in (b.min, b.max)
    )


def luminance(colour):
    """Relative luminance, as in the Web Content Accessibility Guidelines."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in parts
    ]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


# From RGB to the responses of long, middle and short cones, and a dichromat's
# own plane: Vienot, Brettel and Mollon, Color Research and Application 24, 1999.
LMS = np.array(
    [
        [17.8824, 43.5161, 4.11935],
        [3.45565, 27.1554, 3.86714],
        [0.0299566, 0.184309, 1.46709],
    ]
)
DICHROMATS = {
    "protan": [[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]],
    "deutan": [[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]],
}


@pytest.mark.parametrize("kind", DICHROMATS)
def test_colours_of_emotions_differ_for_who_sees_no_red_or_no_green(kind):
    for names in (LABELS, [*LABELS, "calm", "surprised"]):
        colours = plots.emotion_colours(names)
        assert len(set(colours.values())) == len(names)
        rgb = [
            [(int(c[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)]
            for c in colours.values()
        ]
        seen = np.linalg.inv(LMS) @ DICHROMATS[kind] @ LMS @ np.transpose(rgb)
        seen = seen.clip(0, 1).T ** (1 / 2.2)
        distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
        # Orange and green of matplotlib's own cycle are 0.08 apart.
        assert distance[~np.eye(len(seen), dtype=bool)].min() > 0.12
        assert all(luminance(c) < 0.5 for c in colours.values())  # On white.


def test_an_emotion_has_its_colour_in_any_set_of_labels():
    every = plots.emotion_colours([*LABELS, "calm", "surprised"])
    for names in (["sad", "angry"], ["neutral", "happy", "mine"]):
        for name, colour in plots.emotion_colours(names).items():
            assert every.get(name, colour) == colour
    assert plots.emotion_colours(["Anger"])["Anger"] == every["angry"]
    many = plots.emotion_colours([f"label {i}" for i in range(30)])
    assert len(many) == 30 and None not in many.values()


def entries(epochs=4):
    """Curves whose values say what they are: part, head, kind and epoch."""
    found = []
    for epoch in range(1, epochs + 1):
        parts = {"train": {"loss": 99.0}, "valid": {"loss": 99.0}}
        for i, part in enumerate(parts):
            for j, head in enumerate(("audio", "visual", "audiovisual")):
                value = 1.0 + i + j / 10 + epoch / 100
                parts[part][f"{head}_prediction_loss"] = value
                if head != "audiovisual":
                    parts[part][f"{head}_reconstruction_loss"] = value + 5
                if part == "valid":
                    parts[part][f"{head}_f1_macro"] = value / 10
        criterion = [3.0, 1.0, 2.0, 4.0][epoch - 1]
        found.append({"epoch": epoch, **parts, "criterion": criterion})
    return found


def test_curves_have_a_panel_a_kind_and_a_colour_a_head(drawn):
    plots.learning_curves(entries(), "x", "VAVL, trained on CREMA-D")
    (figure,) = drawn
    assert figure.get_suptitle() == "VAVL, trained on CREMA-D"
    names = ["prediction loss", "reconstruction loss", "validation macro F1"]
    assert [axes.get_ylabel() for axes in figure.axes] == names
    truth = entries()
    for axes, kind in zip(
        figure.axes, ("prediction_loss", "reconstruction_loss", "f1_macro")
    ):
        *lines, chosen = axes.lines
        styles = {}
        for line in lines:
            part = "valid" if line.get_linestyle() == "-" else "train"
            head = next(
                h
                for h, c in plots.HEAD_COLOURS.items()
                if c == to_hex(line.get_color()).upper()
            )
            styles[head, part] = list(line.get_ydata())
        expected = {
            (name.split("_")[0], part): [e[part][name] for e in truth]
            for part in ("train", "valid")
            for name in truth[0][part]
            if name.endswith(f"_{kind}")
        }
        assert styles == expected
        # The epoch of the lowest criterion, which is tested.
        assert list(chosen.get_xdata()) == [2, 2]
    assert "epoch 2, kept" in legend_texts(figure) and outside(figure)


def test_curves_of_a_network_that_does_not_reconstruct(drawn):
    found = [
        {
            "epoch": 1,
            "train": {"audio_prediction_loss": 1.0},
            "valid": {"audio_prediction_loss": 2.0, "audio_uar": 0.5},
            "criterion": None,
        }
    ]
    plots.learning_curves(found, "x")
    (figure,) = drawn
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "prediction loss",
        "validation UAR",
    ]
    assert legend_texts(figure) == ["audio", "training", "validation"]
    plots.learning_curves([], "x")
    assert len(drawn) == 1


def test_a_figure_is_written_for_papers_too(tmp_path):
    plots.learning_curves(entries(), tmp_path / "curves", "VAVL")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "curves.pdf",
        "curves.png",
        "curves.svg",
    ]
    first = {p: p.read_bytes() for p in tmp_path.iterdir()}
    assert first[tmp_path / "curves.png"].startswith(b"\x89PNG")
    assert b"<svg" in first[tmp_path / "curves.svg"]
    # Fonts of type 3 are what publishers refuse.
    pdf = first[tmp_path / "curves.pdf"]
    assert pdf.startswith(b"%PDF") and b"/Type3" not in pdf
    plots.learning_curves(entries(), tmp_path / "curves", "VAVL")
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == first
    figure, _ = plots.make_figure(2, 2)
    plots.save_figure(figure, tmp_path / "one.svg")
    assert len(list(tmp_path.iterdir())) == 4


TITLES = {
    1: "VAVLLinear, trained on a corpus with a long name, recorded in 2026",
    3: "VAVL, trained on CREMA-D",
}


@pytest.mark.parametrize("heads", TITLES)
def test_a_reliability_diagram_says_what_its_curves_are(drawn, heads):
    torch.manual_seed(0)
    stats = {}
    for head in ("audio", "visual", "audiovisual")[:heads]:
        stats[head] = EmotionStats(LABELS)
        targets = torch.arange(120) % 6
        logits = torch.randn(120, 6) + 2 * torch.eye(6)[targets]
        stats[head].append([str(i) for i in range(120)], logits, targets)
    plots.reliability_diagram(stats, {"audio": 2.0}, "x", TITLES[heads])
    (figure,) = drawn
    assert len(figure.axes) == heads and outside(figure)
    assert " ".join(figure.get_suptitle().split("\n")) == TITLES[heads]
    assert len(legend_texts(figure)) == 3
    _, before, after = figure.axes[0].lines
    logits, targets = stats["audio"].stacked()
    # Of the clips in the last bin: how sure, and how many are right.
    for line, temperature in ((before, 1.0), (after, 2.0)):
        sure = torch.from_numpy(logits / temperature).softmax(1)
        most, best = sure.max(1)
        rows = (most * 10).ceil() == (most.max() * 10).ceil()
        right = (best == torch.from_numpy(targets))[rows].double().mean()
        expected = [most[rows].mean(), right]
        np.testing.assert_allclose(line.get_xydata()[-1], expected, atol=1e-6)
    assert "at temperature 2.00" in figure.axes[0].get_title()


def test_a_confusion_matrix_has_room_for_long_names(drawn):
    counts = np.eye(8, dtype=int) * 400 + 7
    names = [*LABELS, "surprised", "a class of a long name"]
    plots.confusion(counts, names, "VAVL\naudio, 3000 clips", "x")
    (figure,) = drawn
    assert figure.get_suptitle() == "VAVL\naudio, 3000 clips"
    assert outside(figure)
    panel, bar = (axes.get_window_extent() for axes in figure.axes)
    assert panel.height == pytest.approx(bar.height, rel=0.01)


def test_a_figure_is_no_news_for_a_log(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        plots.learning_curves(entries(), tmp_path / "curves", "VAVL")
    assert caplog.messages == []


def random_predictions(speakers=6, clips=20):
    """Right in about 2, 3 and 4 of 5 clips: audio, visual, both."""
    random = np.random.default_rng(0)
    found = Predictions("classification", LABELS)
    for i in range(speakers * clips):
        label = i % len(LABELS)
        outputs = {}
        for head, right in (("audio", 2), ("visual", 3), ("audiovisual", 4)):
            wrong = random.random() > right / 5
            says = (label + wrong) % len(LABELS)
            outputs[head] = torch.eye(len(LABELS))[says]
        entry = {"emotion": LABELS[label], "spk_id": f"s{i // clips}"}
        found.add(f"c{i}", outputs, entry)
    return found


def test_chance_is_the_score_of_guesses():
    found = Predictions("classification", LABELS)
    random = np.random.default_rng(0)
    targets = random.choice(6, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1], size=600)
    for i, target in enumerate(targets):
        outputs = {"audio": torch.zeros(6)}
        found.add(str(i), outputs, {"emotion": LABELS[target]})
    guesses = random.integers(0, 6, size=(300, 600))
    scores = [f1_score(targets, g, average="macro") for g in guesses]
    assert found.chance(found.clips()) == pytest.approx(
        np.mean(scores), abs=3e-3
    )
    assert Predictions("regression", ["valence"]).chance([]) == 0.0


def test_an_interval_is_that_of_drawn_speakers():
    found = random_predictions()
    clips = found.clips("audio")
    scores = found.scores(["audio"])["audio"]
    low, high = scores["interval"]
    assert low < scores["f1_macro"] < high
    random, drawn = np.random.default_rng(1), []
    for _ in range(400):
        chosen = random.choice(6, size=6)
        rows = [
            c for s in chosen for c in clips if found.speakers[c] == f"s{s}"
        ]
        says = [int(found.outputs["audio"][c].argmax()) for c in rows]
        truth = [found.targets[c] for c in rows]
        drawn.append(f1_score(truth, says, average="macro"))
    expected = np.percentile(drawn, [2.5, 97.5])
    np.testing.assert_allclose([low, high], expected, atol=0.01)
    one = random_predictions(speakers=1)
    assert one.scores(["audio"])["audio"]["interval"] is None


def test_the_robustness_figure_has_chance_intervals_and_the_other_head(drawn):
    found = random_predictions()
    scores = found.scores(("audio", "visual", "audiovisual"))
    worse = {**scores, "audio": {**scores["audio"], "f1_macro": 0.2}}
    levels = [{"level": None, "scores": scores}, {"level": 0, "scores": worse}]
    condition = {"title": "Noise", "unit": "SNR in dB", "levels": levels}
    result = {
        "task": "classification",
        "title": "VAVL, trained on CREMA-D",
        "chance": 0.17,
        "conditions": {"noise": condition},
    }
    robustness._draw(result, "x")
    (figure,) = drawn
    (axes,) = figure.axes
    assert axes.get_ylabel() == "macro F1" and axes.get_xlabel() == "SNR in dB"
    assert figure.get_suptitle() == "VAVL, trained on CREMA-D"
    chance, audio, visual, both = axes.lines
    assert list(chance.get_ydata()) == [0.17, 0.17]
    assert audio.get_ydata()[1] == 0.2 and audio.get_linestyle() == "-"
    # The face is as it was: what sound in noise is measured by.
    for line, head in ((visual, "visual"), (both, "audiovisual")):
        assert set(line.get_ydata()) == {scores[head]["f1_macro"]}
        assert line.get_linestyle() == "--"
    bands = [band.get_paths()[0].vertices[:, 1] for band in axes.collections]
    ends = [[band.min(), band.max()] for band in bands]
    expected = [scores[h]["interval"] for h in scores]
    np.testing.assert_allclose(ends, expected)
    texts = legend_texts(figure)
    assert texts[:3] == ["audio", "visual", "audiovisual"]
    assert "chance" in texts and re.search("95 % interval", " ".join(texts))
    assert outside(figure)
