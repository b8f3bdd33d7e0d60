"""`vavl benchmark` with a recipe that takes a moment a run.

Its train.py leaves what a real one leaves: each network has a modality that it
always understands, and scores less the farther its learning rate is from one
that suits it.
"""

import csv
import json
import re

import numpy as np
import pytest
from scipy.stats import permutation_test

from vavl_sb import cli
from vavl_sb.evaluation.benchmark import CONDITIONS, add_missing
from vavl_sb.evaluation.corruption import lose_modality
from vavl_sb.evaluation.predictions import read_run

TRAIN = """
import csv, json, os, random, sys

options = dict(word[2:].split("=", 1) for word in sys.argv[2:])
hparams = dict(
    line.split(": ") for line in open(sys.argv[1]).read().splitlines()
)
hparams.update(options)
out, fusion = options["output_folder"], hparams["fusion"]
os.makedirs(out + "/inference", exist_ok=True)
with open("calls.txt", "a") as file:
    file.write(" ".join(sorted(f"{k}={v}" for k, v in options.items())) + "\\n")
if hparams["fail_in"] == fusion and not os.path.exists("mended"):
    sys.exit("error: no such luck")

labels = ["angry", "happy", "sad"]
split = json.load(open(options["partition"]))
ids = [f"{who}_{i}" for who in split["test"] for i in range(15)]
json.dump(
    {id: {"spk_id": id.split("_")[0]} for id in ids},
    open(out + "/test.json", "w"),
)
dice = random.Random(fusion + options["seed"])
knows = {"vavl": "audiovisual", "late": "visual", "uavm": "audio"}.get(fusion)
suits = {"vavl": 0.001, "late": 0.1}.get(fusion, 0.01)
chance = 0.9 if float(hparams["lr"]) == suits else 0.6
chance -= float(hparams["withhold_audio"])
rows = []
for head in ("audio", "audiovisual", "visual"):
    for index, id in enumerate(ids):
        true, wrong = index % 3, (index + 1) % 3
        guess = true if dice.random() < chance else wrong
        if hparams["sure"] == "True":
            guess = true if head in (knows, "audiovisual") else wrong
        rows.append([id, head, labels[true], labels[guess]])
with open(out + "/predictions_test.csv", "w") as file:
    csv.writer(file).writerows(
        [["id", "modality", "label", "prediction"], *rows]
    )
metrics = {"task": "classification", "labels": labels, "target": "acted"}
json.dump(metrics, open(out + "/metrics.json", "w"))
about = {"metadata": {"parameters": 1000 * len(fusion)}}
json.dump(about, open(out + "/inference/model.json", "w"))
"""
HPARAMS = """\
seed: 1234
partition: 1
output_folder: results
fusion: vavl
lr: 0.01
withhold_audio: 0.0
withhold_visual: 0.0
fail_in: none
sure: False
"""
FOLDS = [[f"{name}{i}" for i in range(4)] for name in "abc"]


@pytest.fixture
def recipe(tmp_path):
    """A recipe folder with hparams/quick.yaml and the quick train.py."""
    folder = tmp_path / "recipes" / "QUICK"
    (folder / "hparams").mkdir(parents=True)
    (folder / "train.py").write_text(TRAIN)
    (folder / "hparams" / "quick.yaml").write_text(HPARAMS)
    (tmp_path / "folds.json").write_text(json.dumps(FOLDS))
    return folder


@pytest.fixture
def vavl(recipe, tmp_path):
    """The command, in this process, with its exit status."""

    def run(*options):
        words = ["benchmark", recipe / "hparams" / "quick.yaml"]
        words += ["--output_folder", tmp_path / "out"]
        words += ["--partitions", tmp_path / "folds.json", "--seeds=1"]
        return cli.main([str(word) for word in [*words, *options]])

    return run


def read(tmp_path):
    """benchmark.json, and its results by network (and share)."""
    content = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    found = {}
    for entry in content["results"]:
        share = entry["withhold"]
        name = entry["model"] + (f"_{share}" if share != "0" else "")
        found[name] = entry
    return content, found


def predictions(run):
    """Head to clip to (label, prediction), by the csv module alone."""
    found = {}
    with open(run / "predictions_test.csv") as file:
        for row in csv.DictReader(file):
            pair = row["label"], row["prediction"]
            found.setdefault(row["modality"], {})[row["id"]] = pair
    return found


def test_of_clips_without_one_modality_the_head_that_is_left_counts(
    vavl, tmp_path
):
    assert vavl("--fusion=late,uavm", "--sure=True", "--jobs=2") == 0
    _, found = read(tmp_path)
    # Of a fold's 60 clips 6, 30 and 54 lack one, half of them the sound: where
    # only the other modality is understood, those are the ones that go wrong.
    right = {"audiovisual": 60, "missing_10": 57, "missing_50": 45}
    right |= {"missing_90": 33}
    for model, one, other in (
        ("late", "audio", "visual"),
        ("uavm", "visual", "audio"),
    ):
        for name, count in {**right, one: 0, other: 60}.items():
            accuracy = found[model]["summary"][name]["scores"]["f1_micro"]
            assert accuracy["mean"] == pytest.approx(count / 60), name


def accuracy_of(run, percent, seed):
    """Speaker to accuracy on clips of which some lack a modality."""
    heads, found = predictions(run), {}
    lost = lose_modality(heads["audiovisual"], percent, seed)
    for clip in heads["audiovisual"]:
        left = {"audio": "visual", "visual": "audio"}.get(lost.get(clip))
        label, prediction = heads[left or "audiovisual"][clip]
        found.setdefault(clip.split("_")[0], []).append(label == prediction)
    return {who: np.mean(right) for who, right in found.items()}


def test_the_test_against_vavl_is_scipys(vavl, tmp_path, monkeypatch):
    # With as many clips of each speaker, the accuracy is a mean over speakers,
    # and swapping a speaker's predictions turns the sign of a difference.
    assert (
        vavl("--fusion=late,vavl,linear", "--score=f1_micro", "--seeds=2") == 0
    )
    content, found = read(tmp_path)
    assert content["reference"] == "vavl" and not found["vavl"]["difference"]
    ps = []
    for model in ("late", "linear"):
        for percent in (0, 10, 50, 90):
            sides = []
            for name in (model, "vavl"):
                seeds = [{}, {}]
                for number, fold in ((s, f) for s in (0, 1) for f in (1, 2, 3)):
                    seed = 1234 + number
                    run = (
                        tmp_path
                        / "out"
                        / name
                        / f"partitionfold{fold}_seed{seed}"
                    )
                    seeds[number] |= accuracy_of(run, percent, seed)
                sides.append(
                    [np.mean([s[who] for s in seeds]) for who in seeds[0]]
                )
            truth = permutation_test(
                sides,
                lambda a, b: np.mean(a - b),
                permutation_type="samples",
                n_resamples=np.inf,
            )
            name = f"missing_{percent}" if percent else "audiovisual"
            part = found[model]["difference"][name]
            assert part["exact"] and part["n_speakers"] == 12
            test = part["scores"]["f1_micro"]
            assert test["difference"] == pytest.approx(truth.statistic)
            assert test["p"] == pytest.approx(truth.pvalue)
            ps.append(test["p"])
    # One family: two networks, six conditions.
    tests = [
        part["scores"]["f1_micro"]
        for model in ("late", "linear")
        for part in found[model]["difference"].values()
    ]
    assert len(tests) == 12
    least = min(tests, key=lambda test: test["p"])
    assert least["p_holm"] == pytest.approx(min(1, 12 * least["p"]))


def test_each_network_gets_its_own_rate_from_training_speakers_alone(
    vavl, recipe, tmp_path
):
    assert vavl("--fusion=vavl,late,linear", "--lrs=0.001,0.01,0.1") == 0
    content, _ = read(tmp_path)
    chosen = {name: m["lr"] for name, m in content["models"].items()}
    assert chosen == {"vavl": "0.001", "late": "0.1", "linear": None}
    runs = [dict(w.split("=", 1) for w in x.split()) for x in noted(recipe)]
    tried = [run for run in runs if "/lrs/" in run["output_folder"]]
    assert {(r["fusion"], r["lr"]) for r in tried} == {
        (model, lr)
        for model in ("vavl", "late")
        for lr in ("0.001", "0.01", "0.1")
    }
    # None of them has seen a test speaker of the first fold.
    splits = [json.load(open(run["partition"])) for run in tried]
    assert all(s == splits[0] for s in splits)
    parts = [set(splits[0][name]) for name in ("train", "test")]
    assert parts[0] | parts[1] == set(FOLDS[1] + FOLDS[2])
    assert len(parts[1]) == 2 and not parts[0] & parts[1]
    rest = {(r["fusion"], r.get("lr")) for r in runs if r not in tried}
    assert rest == {("vavl", "0.001"), ("late", "0.1"), ("linear", None)}
    text = (tmp_path / "out" / "benchmark.md").read_text()
    assert re.search(r"\| late +\| 4,000 +\| 0.1 +\| 3 ", text)
    assert re.search(r"\| linear +\| 6,000 +\| - +\| 3 ", text)


def noted(recipe):
    """The options of each run of train.py, a line each."""
    path = recipe / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_withheld_shares_are_trained_anew_and_compared_among_themselves(
    vavl, recipe, tmp_path
):
    assert vavl("--fusion=vavl,late", "--withhold=0,0.5") == 0
    _, found = read(tmp_path)
    shares = {
        (r["fusion"], r.get("withhold_audio"), r.get("withhold_visual"))
        for r in (
            dict(w.split("=", 1) for w in x.split()) for x in noted(recipe)
        )
    }
    assert shares == {
        (model, share, share)
        for model in ("vavl", "late")
        for share in (None, "0.25")
    }
    assert list(found) == ["vavl", "late", "vavl_0.5", "late_0.5"]
    for end in ("", "_0.5"):
        scores = found["late" + end]["difference"]["audio"]["scores"]["uar"]
        for side, name in (("first", "late"), ("second", "vavl")):
            summary = found[name + end]["summary"]["audio"]["scores"]["uar"]
            assert scores[side] == pytest.approx(summary["mean"])
    text = (tmp_path / "out" / "benchmark.md").read_text()
    titles = re.findall("^## (.*)$", text, re.M)
    assert titles[:6] == list(CONDITIONS.values()) and len(titles) == 12
    assert titles[6] == "Audio only; 50 % of the training clips lack one"
    assert "Labels: acted." in text


def test_the_same_command_resumes_and_one_failing_network_stops_no_other(
    vavl, recipe, tmp_path, capsys
):
    options = ["--fusion=vavl,mult,late", "--fail_in=mult"]
    assert vavl(*options) == 1
    assert "PARTIAL: mult: no such luck" in capsys.readouterr().out
    content, found = read(tmp_path)
    assert content["partial"] and found["mult"]["n_finished"] == 0
    assert found["late"]["difference"].keys() == CONDITIONS.keys()
    assert len(noted(recipe)) == 9
    (recipe / "mended").write_text("")
    assert vavl(*options) == 0
    assert len(noted(recipe)) == 12
    first = (tmp_path / "out" / "benchmark.json").read_bytes()
    assert vavl(*options) == 0
    assert len(noted(recipe)) == 12
    assert (tmp_path / "out" / "benchmark.json").read_bytes() == first


def test_attributes_are_scored_where_clips_lack_one(tmp_path):
    random, names = np.random.default_rng(3), ["arousal", "valence"]
    rows, outputs = [], {}
    targets = random.normal(size=(20, 2)).round(4)
    for head in ("audio", "audiovisual", "visual"):
        outputs[head] = (targets + random.normal(size=(20, 2))).round(4)
        rows += [
            [f"{i:02}", head, *targets[i], *outputs[head][i]] for i in range(20)
        ]
    columns = [
        f"{kind}_{name}" for kind in ("label", "prediction") for name in names
    ]
    with open(tmp_path / "predictions_test.csv", "w") as file:
        csv.writer(file).writerows([["id", "modality", *columns], *rows])
    about = {"task": "regression", "labels": names}
    (tmp_path / "metrics.json").write_text(json.dumps(about))
    entries = {f"{i:02}": {"spk_id": "a"} for i in range(20)}
    (tmp_path / "test.json").write_text(json.dumps(entries))
    result = add_missing(read_run(tmp_path), seed=5)
    for percent in (10, 50, 90):
        lost = lose_modality(entries, percent, 5)
        assert len(lost) == 20 * percent // 100
        left = {"audio": "visual", "visual": "audio", None: "audiovisual"}
        p = np.array([outputs[left[lost.get(f"{i:02}")]][i] for i in range(20)])
        gap = (p.mean(0) - targets.mean(0)) ** 2
        both = ((p - p.mean(0)) * (targets - targets.mean(0))).mean(0)
        ccc = 2 * both / (p.var(0) + targets.var(0) + gap)
        scores = result.scores[f"missing_{percent}"]
        assert scores["ccc_valence"] == pytest.approx(ccc[1], abs=1e-5)
        assert scores["ccc_mean"] == pytest.approx(ccc.mean(), abs=1e-5)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--fusion=vavl,lat"], ["fusion: lat is none of vavl,", "late"]),
        (["--fusion=vavl,vavl"], ["--fusion: has a duplicate"]),
        (["--withhold=0,1"], ["--withhold: invalid value 1"]),
        (["--withhold=half"], ["--withhold: invalid value half"]),
        (["--lrs=0.1,0"], ["--lrs: invalid value 0"]),
        (["--lrs=0.1,0.01", "--lr=0.1"], ["--lr: ", "give --lrs"]),
        (["--withhold_audio=0.1"], ["--withhold_audio: ", "give --withhold"]),
        (["--lrs=0.1,0.01", "--partitions=1"], ["--lrs: ", "file of folds"]),
    ],
)
def test_wrong_options_get_one_line_before_anything_runs(
    vavl, recipe, tmp_path, capsys, options, words
):
    assert vavl(*options) == 1
    error = capsys.readouterr().err
    assert error.startswith("vavl: ") and error.count("\n") == 1, error
    assert all(word in error for word in words), error
    assert not (tmp_path / "out").exists() and noted(recipe) == []
