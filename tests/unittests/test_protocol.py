"""The protocol with a recipe that takes a moment a run.

Its train.py writes what a real one writes, in the same form: predictions
that are right for a share of the clips, by partition, seed and options. It
can be told to fail, or to kill itself half-way, in one run.
"""

import csv
import json
import os
import re
import signal
import sys
import time

import numpy as np
import pytest
from sklearn.metrics import f1_score, recall_score

from vavl_sb import cli
from vavl_sb.evaluation.comparison import compare, write_comparison
from vavl_sb.evaluation.predictions import read_run
from vavl_sb.evaluation.protocol import _read_overrides, read_partitions
from vavl_sb.utils.errors import VAVLError

TRAIN = """
import csv, json, os, random, signal, sys, time

options = dict(word[2:].split("=", 1) for word in sys.argv[2:])
hparams = dict(
    line.split(": ") for line in open(sys.argv[1]).read().splitlines()
)
hparams.update(options)
out = options["output_folder"]
os.makedirs(out, exist_ok=True)
if "prepare_only" in options:
    if hparams["fail_in"] == "prepare":
        sys.exit("error: no clips")
    for split, names in (("train", "bd"), ("valid", "f"), ("test", "eca")):
        with open(os.path.join(out, split + ".json"), "w") as file:
            entries = {name + "1": {"spk_id": name} for name in names}
            json.dump(entries, file)
    sys.exit()

def note(what):
    with open("calls.txt", "a") as file:
        file.write(f"{what} {os.path.basename(out)}\\n")

note("start")
with open(os.path.join(out, "pid"), "w") as file:
    file.write(str(os.getpid()))
me = os.path.basename(options["partition"])[0] + "/" + options["seed"]
if hparams["fail_in"] == me:
    print("vavl_sb.utils.errors - error: /corpus: no such folder")
    print("a last line that says nothing")
    sys.exit(1)
half = os.path.join(out, "half")
if hparams["die_in"] == me and not os.path.exists(half):
    open(half, "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(float(hparams["pause"]))

labels = ["angry", "happy", "sad"]
right = 0.4 + 0.1 * float(hparams["shared_layers"])
right += 0.1 * (hparams["residual"] == "True")
ids = [f"{me[0]}{speaker}_{i}" for speaker in range(6) for i in range(5)]
json.dump(
    {id: {"spk_id": id[:2]} for id in ids},
    open(os.path.join(out, "test.json"), "w"),
)
dice = random.Random(me + str(right))
rows = []
for head in ("audio", "visual"):
    for index, id in enumerate(ids):
        true = index % 3
        guess = true if dice.random() < right else dice.randrange(3)
        rows.append([id, head, labels[true], labels[guess]])
with open(os.path.join(out, "predictions_test.csv"), "w") as file:
    csv.writer(file).writerows(
        [["id", "modality", "label", "prediction"], *rows]
    )
metrics = {"task": "classification", "labels": labels}
json.dump(metrics, open(os.path.join(out, "metrics.json"), "w"))
note("end")
"""
HPARAMS = """\
seed: 1234
partition: 1
output_folder: results
fail_in: none
die_in: none
pause: 0
shared_layers: 2
residual: True
reconstruction_weight: 2.0
num_workers: 0
prepare_only: False
"""


@pytest.fixture
def recipe(tmp_path):
    """A recipe folder with hparams/quick.yaml and the quick train.py."""
    folder = tmp_path / "recipes" / "QUICK"
    (folder / "hparams").mkdir(parents=True)
    (folder / "train.py").write_text(TRAIN)
    (folder / "hparams" / "quick.yaml").write_text(HPARAMS)
    return folder


def vavl(command, recipe, out, *more):
    """Runs a command on the quick recipe, in this process."""
    hparams = recipe / "hparams" / "quick.yaml"
    words = [command, hparams, "--output_folder", out, *more]
    return cli.main([str(word) for word in words])


def calls(recipe):
    """What the runs noted, in order."""
    path = recipe / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


def sklearn_scores(run, head):
    """Scores of a run's predictions by scikit-learn."""
    with open(run / "predictions_test.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["modality"] == head]
    pair = [[row[key] for row in rows] for key in ("label", "prediction")]
    return {
        "f1_macro": f1_score(*pair, average="macro"),
        "f1_micro": f1_score(*pair, average="micro"),
        "uar": recall_score(*pair, average="macro"),
    }


def summary(out):
    return json.loads((out / "protocol.json").read_text())


def test_mean_and_deviation_of_all_runs(recipe, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--partitions", "1-2", "--seeds", "2"]
    assert vavl("protocol", recipe, out, *options) == 0
    content = summary(out)
    folders = [f"partition{p}_seed{s}" for p in (1, 2) for s in (1234, 1235)]
    assert [run["folder"] for run in content["runs"]] == folders
    scores = [sklearn_scores(out / folder, "audio") for folder in folders]
    audio = content["summary"]["audio"]
    assert audio["n_runs"] == 4 and audio["n_speakers"] == 12
    for name, found in audio["scores"].items():
        values = [s[name] for s in scores]
        assert found["mean"] == pytest.approx(np.mean(values))
        assert found["sd"] == pytest.approx(np.std(values, ddof=1))
        assert found["low"] < found["mean"] < found["high"]
    printed = capsys.readouterr().out
    mean, sd = (audio["scores"]["f1_macro"][k] for k in ("mean", "sd"))
    assert f"{mean:.3f} ± {sd:.3f} [" in printed
    assert (out / "protocol.md").read_text() in printed
    assert printed.count(": finished in") == 4


def test_finished_runs_are_skipped_and_more_may_be_added(
    recipe, tmp_path, capsys
):
    out = tmp_path / "out"
    options = ["--partitions=1", "--seeds=2"]
    assert vavl("protocol", recipe, out, *options) == 0
    first = (out / "protocol.json").read_bytes()
    # How fast a run is computed is no other setting.
    assert vavl("protocol", recipe, out, *options, "--num_workers=2") == 0
    assert calls(recipe).count("start partition1_seed1234") == 1
    assert capsys.readouterr().out.count("finished before") == 2
    assert vavl("protocol", recipe, out, *options) == 0
    assert (out / "protocol.json").read_bytes() == first
    assert vavl("protocol", recipe, out, "--partitions=1-2", "--seeds=2") == 0
    assert len(calls(recipe)) == 2 * 4


def test_one_failed_run_is_reported_and_the_rest_goes_on(
    recipe, tmp_path, capsys
):
    out = tmp_path / "out"
    options = ["--partitions", "1-3", "--seeds", "7,", "--fail_in", "2/7"]
    assert vavl("protocol", recipe, out, *options) == 1
    printed = capsys.readouterr().out
    (line,) = [x for x in printed.splitlines() if "FAILED" in x]
    assert "partition 2 seed 7: FAILED: /corpus: no such folder" in line
    assert str(out / "partition2_seed7" / "run.log") in line
    assert "PARTIAL: 1 of 3 runs" in (out / "protocol.md").read_text()
    content = summary(out)
    assert content["partial"] and content["n_finished"] == 2
    assert content["summary"]["audio"]["n_runs"] == 2
    assert content["runs"][1]["error"] == "/corpus: no such folder"


def test_a_killed_run_resumes(recipe, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--partitions", "1,2", "--seeds", "7,", "--die_in", "1/7"]
    assert vavl("protocol", recipe, out, *options) == 1
    assert "killed by signal 9" in capsys.readouterr().out
    assert vavl("protocol", recipe, out, *options) == 0
    # The same command in the same folder; the finished one is left alone.
    assert calls(recipe).count("start partition1_seed7") == 2
    assert calls(recipe).count("start partition2_seed7") == 1
    log = (out / "partition1_seed7/run.log").read_text()
    commands = re.findall(r"^\$ (.*)", log, re.M)
    assert len(commands) == 2 and commands[0] == commands[1]
    assert not summary(out)["partial"]


def test_the_command_itself_killed_leaves_no_run_behind(recipe, tmp_path):
    out = tmp_path / "out"
    options = ["--partitions=1", "--seeds=3", "--pause=60"]
    child = os.fork()
    if child == 0:
        os._exit(vavl("protocol", recipe, out, *options))
    pid = out / "partition1_seed1234" / "pid"
    wait_for(lambda: pid.exists() and pid.read_text())
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM
    # Neither does train.py go on, nor does the next run start.
    wait_for(lambda: not is_running(int(pid.read_text())))
    assert calls(recipe) == ["start partition1_seed1234"]


def wait_for(condition):
    """Waits until it is true."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_running(process):
    """Whether a process that is not our child is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # One that has ended and that nobody has waited for counts as ended.
    with open(f"/proc/{process}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def test_side_by_side_the_first_goes_alone(recipe, tmp_path):
    out = tmp_path / "out"
    options = ["--partitions=1", "--seeds=1,2,3", "--jobs=2", "--pause=0.7"]
    assert vavl("protocol", recipe, out, *options) == 0
    noted = calls(recipe)
    assert noted[:2] == ["start partition1_seed1", "end partition1_seed1"]
    assert {x.split()[0] for x in noted[2:4]} == {"start"}
    # One has finished: the features are there, and all may start at once.
    (recipe / "calls.txt").unlink()
    options[1] = "--seeds=1,4,5"
    assert vavl("protocol", recipe, out, *options) == 0
    assert {x.split()[0] for x in calls(recipe)[:2]} == {"start"}


def test_a_folder_with_runs_of_other_settings_is_refused(
    recipe, tmp_path, capsys
):
    out, split = tmp_path / "out", tmp_path / "a_split.json"
    hparams = recipe / "hparams" / "quick.yaml"
    split.write_text("{}")
    shared = recipe / "shared.yaml"
    shared.write_text("a: 1")
    text = HPARAMS + "shared: !include:../shared.yaml\n"
    hparams.write_text(text)
    options = ["--partitions", split, "--seeds=1"]
    assert vavl("protocol", recipe, out, *options) == 0
    before = sorted(os.listdir(out))

    def refused(*more):
        assert vavl("protocol", recipe, out, *options, *more) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and str(out) in error
        return error

    assert "pause 0.0, not 0.01" in refused("--pause", "0.01")
    assert "precision default, not bf16" in refused("--precision", "bf16")
    split.write_text('{"train": []}')
    assert "partition a_split was changed" in refused()
    split.write_text("{}")
    hparams.write_text(text.replace("pause: 0", "pause: 0.01"))
    assert "pause 0.0, not 0.01" in refused()
    hparams.write_text(text)
    shared.write_text("a: 2")
    assert "a 1.0, not 2.0" in refused()
    shared.write_text("a: 1")
    kept = (out / "protocol_settings.json").read_text()
    (out / "protocol_settings.json").write_text('{"settings": {}}')
    assert "protocol_settings.json is of another version" in refused()
    (out / "protocol_settings.json").write_text(kept)
    (out / "protocol_settings.json").rename(tmp_path / "aside")
    assert "there is no protocol_settings.json" in refused()
    (tmp_path / "aside").rename(out / "protocol_settings.json")
    assert sorted(os.listdir(out)) == before and len(calls(recipe)) == 2


@pytest.mark.parametrize(
    "options, words",
    [
        (["--partitions", "nowhere/x.json"], ["no such file"]),
        (["--partitions", "1,1"], ["given twice"]),
        (["--seeds", "0"], ["--seeds"]),
        (["--seed", "3"], ["--seed:", "--seeds"]),
        (["--pause", "1", "--pause", "2"], ["--pause: stands twice"]),
        (["--slurm", "a=1"], ["--launcher slurm"]),
        (["--puase", "1"], ["--puase: no such option (the nearest: --pause)"]),
        (["--residual=no"], ["--residual: must be True or False, not no"]),
    ],
)
def test_wrong_options_get_one_line_before_anything_runs(
    recipe, tmp_path, capsys, options, words
):
    out = tmp_path / "out"
    assert vavl("protocol", recipe, out, *options) == 1
    error = capsys.readouterr().err
    assert error.startswith("vavl: ") and error.count("\n") == 1, error
    assert all(word in error for word in words), error
    assert not out.exists() and calls(recipe) == []


def test_paths_are_meant_from_where_the_command_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "logmel").mkdir()  # A folder that only has the name of one.
    (tmp_path / "split.json").write_text("{}")
    found = _read_overrides(
        ["--data_folder", "corpus", "--feature_folder=new", "--lr", "1e-3"]
        + ["--audio_encoder_source", "some/hub", "--face_detector", "logmel"]
        + ["--debug"]
    )
    assert found == {
        "data_folder": str(tmp_path / "corpus"),
        "feature_folder": str(tmp_path / "new"),
        "lr": "1e-3",
        "audio_encoder_source": "some/hub",
        "face_detector": "logmel",
        "debug": None,
    }
    assert read_partitions("split.json,2") == {
        "split": str(tmp_path / "split.json"),
        "2": "2",
    }


@pytest.mark.parametrize(
    "content", ["[[1, 2], [3]]", '{"here": [[1, 2], [3]]}']
)
def test_each_fold_of_a_file_is_tested_once(recipe, tmp_path, capsys, content):
    path, out = tmp_path / "folds.json", tmp_path / "out"
    path.write_text(content)
    options = ["--partitions", path, "--seeds=7,"]
    assert vavl("protocol", recipe, out, *options) == 0
    assert calls(recipe)[::2] == [
        "start partitionfold1_seed7",
        "start partitionfold2_seed7",
    ]
    splits = [
        json.loads((out / "splits" / f"fold{k}.json").read_text())
        for k in (1, 2)
    ]
    assert splits == [
        {"train": [3], "valid": [], "test": [1, 2]},
        {"train": [1, 2], "valid": [], "test": [3]},
    ]
    log = (out / "partitionfold2_seed7" / "run.log").read_text()
    assert f"--partition={out}/splits/fold2.json" in log
    # Other folds are another protocol.
    path.write_text("[[1], [2, 3]]")
    assert vavl("protocol", recipe, out, *options) == 1
    assert "partition fold1 was changed" in capsys.readouterr().err


def test_speakers_are_divided_into_folds_of_neighbours(
    recipe, tmp_path, capsys
):
    out = tmp_path / "out"
    assert vavl("protocol", recipe, out, "--folds=4", "--seeds=7,") == 0
    splits = [
        json.loads((out / "splits" / f"fold{k}.json").read_text())
        for k in (1, 2, 3, 4)
    ]
    tested = [split["test"] for split in splits]
    assert tested == [["a", "b"], ["c", "d"], ["e"], ["f"]]
    for split in splits:
        assert sorted(split["train"] + split["test"]) == list("abcdef")
        assert split["valid"] == []
    assert calls(recipe)[-1] == "end partitionfold4_seed7"
    # The same command goes on, and other folds are another protocol.
    assert vavl("protocol", recipe, out, "--folds=4", "--seeds=7,") == 0
    assert len(calls(recipe)) == 8
    assert vavl("protocol", recipe, out, "--folds=3", "--seeds=7,") == 1
    assert "partition fold3 was changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, words",
    [
        (["--folds=1"], "--folds: must be 2 to 6, the number of speakers"),
        (["--folds=7"], "not 7"),
        (["--folds=2", "--fail_in=prepare"], "not known (no clips); give"),
    ],
)
def test_folds_that_cannot_be_get_one_line(
    recipe, tmp_path, capsys, options, words
):
    assert vavl("protocol", recipe, tmp_path / "out", *options) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1, error
    assert calls(recipe) == []


def test_folds_and_partitions_exclude_each_other(recipe, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        vavl("protocol", recipe, out, "--folds=2", "--partitions=1")
    assert "--partitions: not allowed with" in capsys.readouterr().err
    assert not out.exists()


def test_a_speaker_in_two_folds_is_refused(tmp_path):
    path = tmp_path / "folds.json"
    path.write_text('[["1", "2"], [3, 1]]')
    with pytest.raises(VAVLError, match="speaker 1 is in two folds"):
        read_partitions(str(path))
    path.write_text("[[1, 2], []]")
    with pytest.raises(VAVLError, match="two folds or more"):
        read_partitions(str(path))


@pytest.mark.slow
def test_slurm_launcher_with_submitits_own_local_cluster(
    recipe, tmp_path, capsys
):
    out = tmp_path / "out"
    options = ["--seeds=7,", "--fail_in=2/7"]
    # So that no run goes alone, which would take as long again.
    assert vavl("protocol", recipe, out, *options, "--partitions=1") == 0
    options += ["--partitions=1-3", "--jobs=2"]
    options += ["--launcher=slurm", "--slurm=cluster=local"]
    assert vavl("protocol", recipe, out, *options, "--slurm=no_such=1") == 1
    assert "no_such" in capsys.readouterr().err
    assert vavl("protocol", recipe, out, *options) == 1
    content = summary(out)
    assert [run["finished"] for run in content["runs"]] == [True, False, True]
    assert content["runs"][1]["error"] == "/corpus: no such folder"
    assert list((out / "slurm").glob("*result.pkl"))
    # On a machine without Slurm: one line.
    options[-1] = "--slurm=timeout_min=5"
    assert vavl("protocol", recipe, out, *options) == 1
    error = capsys.readouterr().err
    assert "srun" in error and error.count("\n") == 1


def test_without_submitit_slurm_is_refused_in_one_line(
    recipe, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert vavl("protocol", recipe, tmp_path / "out", "--launcher=slurm") == 1
    assert "vavl_sb[slurm]" in capsys.readouterr().err


@pytest.fixture
def two(recipe, tmp_path):
    """Protocols that differ in one option, with one run failed in B."""
    common = ["--partitions=1-2", "--seeds=1,2"]
    a, b = tmp_path / "a", tmp_path / "b"
    vavl("protocol", recipe, a, *common, "--shared_layers=4")
    vavl("protocol", recipe, b, *common, "--shared_layers=0", "--fail_in=2/2")
    return a, b


def test_compare_uses_the_common_runs(two, tmp_path, capsys, monkeypatch):
    a, b = two
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert cli.main(["compare", str(a), str(b)]) == 0
    text = capsys.readouterr().out
    assert "3 runs in common" in text
    assert "Finished in A alone and left out (partition/seed): 2/2" in text
    content = json.loads((tmp_path / "comparison.json").read_text())
    common = ["partition1_seed1", "partition1_seed2", "partition2_seed1"]
    for modality in ("audio", "visual"):
        part = content["modalities"][modality]
        means = [
            np.mean([read_run(f / r).scores[modality]["uar"] for r in common])
            for f in two
        ]
        found = part["scores"]["uar"]
        assert found["first"] == pytest.approx(means[0])
        assert found["difference"] == pytest.approx(means[0] - means[1])
        assert found["low"] < found["difference"] < found["high"]
        assert part["n_speakers"] == 12 and part["exact"]
        # A is right nine times in ten, B less than six: all twelve speakers
        # agree, and no swap of them comes near.
        assert found["p"] < 0.01
    ps = [part["scores"]["uar"] for part in content["modalities"].values()]
    smallest = min(ps, key=lambda entry: entry["p"])
    assert smallest["p_holm"] == pytest.approx(2 * smallest["p"])
    assert text.endswith("In comparison.json\n") and "p cannot" not in text
    content["modalities"]["audio"].update(n_speakers=4, smallest_p=0.125)
    line = "audio: with 4 speakers p cannot fall below 0.125."
    assert line in write_comparison(content, tmp_path)


def test_a_clip_that_one_side_lacks_is_left_out_on_both(two):
    path = two[1] / "partition1_seed1" / "predictions_test.csv"
    lines = path.read_text().splitlines()
    assert lines[1].split(",")[1] == "audio"
    path.write_text("\n".join(lines[:1] + lines[2:]) + "\n")
    found = compare(*two)["modalities"]
    assert found["audio"]["n_unpaired"] == 1
    assert found["visual"]["n_unpaired"] == 0


def test_what_cannot_be_compared_gets_one_line(two, recipe, tmp_path, capsys):
    a, b = map(str, two)
    assert cli.main(["compare", a, str(tmp_path / "no")]) == 1
    other = tmp_path / "other"
    vavl("protocol", recipe, other, "--partitions=3", "--seeds=1")
    assert cli.main(["compare", a, str(other)]) == 1
    path = tmp_path / "b" / "partition1_seed1" / "predictions_test.csv"
    # The same predictions scored on other labels: swap two classes in both.
    text = path.read_text()
    for old, new in (("angry", "#"), ("happy", "angry"), ("#", "happy")):
        text = text.replace(old, new)
    path.write_text(text)
    assert cli.main(["compare", a, b]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert "give an output folder of vavl protocol" in errors[0]
    assert "no finished run (partition, seed) in common" in errors[1]
    assert "has another label or speaker" in errors[2]
    assert len(errors) == 3


def test_ablation_compares_each_variant_with_the_full_network(
    recipe, tmp_path, capsys
):
    out = tmp_path / "out"
    options = ["--partitions=1", "--seeds=2", "--shared_layers=4"]
    assert vavl("ablate", recipe, out, *options) == 0
    changes = {
        name: summary(out / name)["overrides"]
        for name in ("full", "no_shared_layers", "no_residual")
    }
    assert changes == {
        "full": {"shared_layers": "4"},
        "no_shared_layers": {"shared_layers": "0"},
        "no_residual": {"shared_layers": "4", "residual": "False"},
    }
    content = json.loads((out / "ablation.json").read_text())
    assert content["reference"] == "full" and not content["partial"]
    full, *variants = content["results"]
    assert full["model"] == "full" and full["difference"] == {}
    result = {variant["model"]: variant["difference"] for variant in variants}
    # The quick network does not look at the reconstruction's weight.
    same = result["no_reconstruction"]["audio"]["scores"]["uar"]
    assert (same["difference"], same["p"]) == (0.0, 1.0)
    means = [
        summary(out / name)["summary"]["audio"]["scores"]["uar"]["mean"]
        for name in ("no_shared_layers", "full")
    ]
    worse = result["no_shared_layers"]["audio"]["scores"]
    assert worse["uar"]["difference"] == pytest.approx(means[0] - means[1])
    # One family: 3 variants, 2 modalities.
    tests = [
        part["scores"]["f1_macro"]
        for variant in result.values()
        for part in variant.values()
    ]
    assert len(tests) == 6
    smallest = min(tests, key=lambda entry: entry["p"])
    assert smallest["p_holm"] == pytest.approx(min(1, 6 * smallest["p"]))
    text = (out / "ablation.md").read_text()
    assert text in capsys.readouterr().out
    text = re.sub(" +", " ", text)
    assert re.search(
        r"\| no_shared_layers \| - \| 2 \|.* "
        rf"\{worse['f1_macro']['difference']:+.3f} \| \[",
        text,
    )
    assert "The difference to full in macro F1" in text
