"""A folder's checkpoints go on with the run that made them, or not at all."""

from types import SimpleNamespace

import pytest
import speechbrain as sb

from vavl_sb.training.run_fingerprint import record_run, refuse_other_run
from vavl_sb.utils.errors import VAVLError


@pytest.fixture
def hparams(tmp_path):
    """What a recipe's YAML gives, as far as it matters here."""
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.json").write_text("{}")
    digests = {"audio": "a1", "visual": "v1"}
    return {
        "seed": 1,
        "output_folder": str(tmp_path),
        "save_folder": str(tmp_path / "save"),
        "train_annotation": str(tmp_path / "train.json"),
        "valid_annotation": str(tmp_path / "valid.json"),
        "test_annotation": str(tmp_path / "test.json"),
        "pretrained_from": None,
        "also_train": [],
        "partition": 1,
        "labels": ["happy", "sad"],
        "residual": True,
        "lr": 0.1,
        "number_of_epochs": 2,
        "data_folder": "here",
        "feature_folder": "there",
        "digests": digests,
        "feature_extractor": SimpleNamespace(fingerprint=digests.get),
    }


@pytest.fixture
def started(hparams, tmp_path):
    """The same, of a run that has a checkpoint."""
    record_run(hparams, refuse_other_run(hparams, {}))
    (tmp_path / "save" / "CKPT+1").mkdir()
    return hparams


def test_the_same_run_may_go_on_longer_and_elsewhere(started):
    started.update(number_of_epochs=4, data_folder="x", feature_folder="y")
    refuse_other_run(started, {})


@pytest.mark.parametrize(
    "key, value", [("residual", False), ("lr", 0.2), ("labels", ["sad"])]
)
def test_another_setting_is_refused_by_name(started, key, value):
    started[key] = value
    with pytest.raises(VAVLError) as error:
        refuse_other_run(started, {})
    assert f"({key})" in str(error.value) and "\n" not in str(error.value)


def test_options_that_came_later_count_where_they_change_something(started):
    started.update(audio_speeds=[], speed_changes=[], mixup=0.0)
    started.update(feature_whitening=None, feature_noise=0.0)
    started.update(encoder_layers=3)
    refuse_other_run(started, {})
    started.update(audio_speeds=[90], speed_changes=[90], mixup=0.2)
    with pytest.raises(
        VAVLError, match=r"\(audio_speeds, mixup, speed_changes\)"
    ):
        refuse_other_run(started, {})
    started.update(audio_speeds=[], speed_changes=[], mixup=0.0)
    started.update(feature_whitening=0.5)
    with pytest.raises(VAVLError, match=r"\(feature_whitening\)"):
        refuse_other_run(started, {})


@pytest.mark.parametrize("in_yaml", [{}, {"max_grad_norm": 5.0}])
def test_run_options_that_change_the_run_are_refused_by_name(
    hparams, tmp_path, in_yaml
):
    hparams.update(in_yaml)
    record_run(hparams, refuse_other_run(hparams, {}))
    (tmp_path / "save" / "CKPT+1").mkdir()
    # The defaults are what was recorded, and others change nothing.
    for same in (
        {"precision": "fp32", "max_grad_norm": 5.0},
        {"noprogressbar": True, "device": "cpu"},
    ):
        refuse_other_run(hparams, same)
    for option in (["--max_grad_norm", "1"], ["--precision", "bf16"]):
        _, run_opts, _ = sb.parse_arguments(["a.yaml", *option])
        with pytest.raises(VAVLError, match=rf"\({option[0][2:]}\)"):
            refuse_other_run(hparams, run_opts)
    with pytest.raises(VAVLError, match=r"\(precision\)"):
        refuse_other_run(hparams, {"bfloat16_mix_prec": True})


def test_a_run_option_counts_before_the_yaml(hparams, tmp_path):
    hparams["max_grad_norm"] = 1.0
    record_run(hparams, refuse_other_run(hparams, {"max_grad_norm": 5.0}))
    (tmp_path / "save" / "CKPT+1").mkdir()
    with pytest.raises(VAVLError, match=r"\(max_grad_norm\)"):
        refuse_other_run(hparams, {})
    refuse_other_run({**hparams, "max_grad_norm": 5.0}, {})


def test_without_a_checkpoint_there_is_nothing_to_go_on_with(hparams):
    record_run(hparams, refuse_other_run(hparams, {}))
    hparams["lr"] = 0.2
    refuse_other_run(hparams, {})


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_other_clips_are_refused(started, tmp_path, split):
    (tmp_path / f"{split}.json").write_text('{"a": 1}')
    with pytest.raises(VAVLError, match="(clips)"):
        refuse_other_run(started, {})
    (tmp_path / f"{split}.json").write_text("{}")
    refuse_other_run(started, {})


def test_another_encoder_or_start_is_refused(started, tmp_path):
    started["digests"]["audio"] = "a2"
    with pytest.raises(VAVLError, match="audio encoder"):
        refuse_other_run(started, {})
    started["digests"]["audio"] = "a1"
    (tmp_path / "vavl.safetensors").write_text("weights")
    started["pretrained_from"] = str(tmp_path)
    with pytest.raises(VAVLError, match="pretrained_from"):
        refuse_other_run(started, {})
