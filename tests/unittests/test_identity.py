"""A folder's checkpoints go on with the run that made them, or not at all."""

from types import SimpleNamespace

import pytest

from vavl_sb.training.identity import refuse_other_run
from vavl_sb.utils.errors import VAVLError


@pytest.fixture
def hparams(tmp_path):
    """What a recipe's YAML gives, as far as it matters here."""
    clips = tmp_path / "train.json"
    clips.write_text("{}")
    digests = {"audio": "a1", "visual": "v1"}
    return {
        "seed": 1,
        "output_folder": str(tmp_path),
        "save_folder": str(tmp_path / "save"),
        "train_annotation": str(clips),
        "also_train": [],
        "partition": 1,
        "labels": ["happy", "sad"],
        "residual": True,
        "lr": 0.1,
        "number_of_epochs": 2,
        "data_folder": "here",
        "feature_folder": "there",
        "digests": digests,
        "clip_encoder": SimpleNamespace(digest=digests.get),
    }


def test_the_same_run_may_go_on_longer_and_elsewhere(hparams):
    refuse_other_run(hparams)
    hparams.update(number_of_epochs=4, data_folder="x", feature_folder="y")
    refuse_other_run(hparams)


@pytest.mark.parametrize(
    "key, value", [("residual", False), ("lr", 0.2), ("labels", ["sad"])]
)
def test_another_setting_is_refused_by_name(hparams, key, value):
    refuse_other_run(hparams)
    hparams[key] = value
    with pytest.raises(VAVLError) as error:
        refuse_other_run(hparams)
    assert f"({key})" in str(error.value) and "\n" not in str(error.value)


def test_other_training_clips_and_encoders_are_refused(hparams, tmp_path):
    refuse_other_run(hparams)
    (tmp_path / "train.json").write_text('{"a": 1}')
    with pytest.raises(VAVLError, match="training clips"):
        refuse_other_run(hparams)
    (tmp_path / "train.json").write_text("{}")
    refuse_other_run(hparams)
    hparams["digests"]["audio"] = "a2"
    with pytest.raises(VAVLError, match="audio encoder"):
        refuse_other_run(hparams)
