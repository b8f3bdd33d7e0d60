"""Protocol, benchmark and the ablation's variants with CREMA-D's real recipe."""

import json

import pytest
from conftest import REPOSITORY, SMALL
from hyperpyyaml import load_hyperpyyaml

from vavl_sb import cli
from vavl_sb.evaluation.benchmark import VARIANTS
from vavl_sb.training.arguments import parse_arguments

# Few of the small corpus's actors: what matters here is the run.
SPLIT = {"train": ["1001", "1002"], "valid": ["1006"], "test": ["1004", "1008"]}
RECIPE = REPOSITORY / "recipes" / "CREMA-D"
HPARAMS = str(RECIPE / "hparams" / "vavl_cls.yaml")


def test_each_variant_turns_one_thing_off(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(RECIPE)

    def settings(change):
        options = [f"--{key}={value}" for key, value in change.items()]
        options += [f"--output_folder={tmp_path}", "--data_folder=x", *SMALL]
        path, _, overrides = parse_arguments([HPARAMS, *options])
        with open(path, encoding="utf-8") as file:
            hparams = load_hyperpyyaml(file, overrides)
        weight = hparams["reconstruction_weight"]
        return {"weight": weight, **hparams["shared"]["vavl"].settings}

    full = settings({}).items()
    found = {
        name: dict(settings(change).items() - full)
        for name, change in VARIANTS.items()
    }
    assert found == {
        "full": {},
        "no_shared_layers": {"shared_layers": 0},
        "no_residual": {"residual": False},
        "no_reconstruction": {"weight": 0},
    }


@pytest.mark.slow
def test_a_protocol_of_a_real_recipe(small_corpus, tmp_path, monkeypatch):
    # As a user: from a folder of one's own, with paths seen from there.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").symlink_to(small_corpus)
    (tmp_path / "split.json").write_text(json.dumps(SPLIT))
    words = [
        *("protocol", HPARAMS, "--output_folder", "out"),
        *("--seeds", "5,", "--partitions", "split.json"),
        *("--data_folder", "corpus", "--feature_folder", "features"),
        *SMALL,
    ]
    assert cli.main(words) == 0
    assert (tmp_path / "features").is_dir()
    content = json.loads((tmp_path / "out/protocol.json").read_text())
    run = tmp_path / "out" / "partitionsplit_seed5"
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(content["summary"]) == ["audio", "visual", "audiovisual"]
    for head, found in content["summary"].items():
        assert found["n_speakers"] == len(SPLIT["test"])
        for name, score in found["scores"].items():
            truth = metrics["test"][head][name]
            assert score["mean"] == pytest.approx(truth, abs=1e-6)


@pytest.mark.slow
def test_a_benchmark_of_a_real_recipe(small_corpus, tmp_path):
    split = tmp_path / "split.json"
    split.write_text(json.dumps(SPLIT))
    out = tmp_path / "out"
    words = [
        *("benchmark", HPARAMS, "--output_folder", out, "--seeds", "5,"),
        *("--partitions", split, "--fusion", "late,linear"),
        *("--withhold", "0.4", "--data_folder", small_corpus),
        *("--feature_folder", tmp_path / "features", *SMALL),
    ]
    assert cli.main([str(word) for word in words]) == 0
    content = json.loads((out / "benchmark.json").read_text())
    late, linear = content["results"]
    # It is the second that is compared with the first.
    assert not late["difference"]
    assert list(linear["difference"]) == list(linear["summary"])
    assert len(linear["summary"]) == 6
    for model in ("late", "linear"):
        run = out / f"{model}_withhold0.4" / "partitionsplit_seed5"
        report = json.loads((run / "prepare_report.json").read_text())
        for modality in ("audio", "visual"):
            assert report["arguments"][f"withhold_{modality}"] == 0.2
    # Mean and deviation of 80 bands and 512 gradients, and a constant, twice.
    count = content["models"]["linear"]["parameters"]
    assert count == 6 * (2 * 80 + 2 * 512 + 2)
    assert count != content["models"]["late"]["parameters"]
    assert (out / "benchmark.pdf").is_file()
