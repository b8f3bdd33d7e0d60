"""A folder's checkpoints go on with the run that made them, or not at all."""

from types import SimpleNamespace

import pytest
from conftest import REPOSITORY

from vavl_sb.training.arguments import parse_arguments
from vavl_sb.training.run_fingerprint import claim_folder, read_settings
from vavl_sb.utils.errors import VAVLError

HPARAMS = str(REPOSITORY / "recipes" / "CREMA-D" / "hparams" / "vavl_cls.yaml")


class Run:
    """A run of the CREMA-D recipe, as far as it matters here."""

    def __init__(self, folder):
        self.folder, self.fingerprints = folder, {"audio": "a1", "visual": "v1"}
        self.manifests = {}
        for split in ("train", "valid", "test"):
            self.manifests[split] = str(folder / f"{split}.json")
            (folder / f"{split}.json").write_text("{}")

    def start(self, *options, hparams=HPARAMS, **more):
        """Claims the folder, as train.py does."""
        path, _, overrides = parse_arguments(
            [str(hparams), "--data_folder", "here", *options]
        )
        claim_folder(
            str(self.folder / "save"),
            settings=read_settings(path, overrides),
            feature_extractor=SimpleNamespace(
                fingerprint=self.fingerprints.get
            ),
            manifests=self.manifests,
            **{"precision": "fp32", "max_grad_norm": float("inf"), **more},
        )

    def refusal(self, *options, **more):
        """The one line with which it is refused."""
        with pytest.raises(VAVLError) as error:
            self.start(*options, **more)
        line = error.value.text
        assert "\n" not in line and str(self.folder) in line
        return line


@pytest.fixture
def run(tmp_path):
    (tmp_path / "save").mkdir()
    return Run(tmp_path)


@pytest.fixture
def started(run):
    """The same, with a checkpoint."""
    run.start()
    (run.folder / "save" / "CKPT+1").mkdir()
    return run


def test_the_same_run_may_go_on_longer_and_elsewhere(started):
    started.start("--number_of_epochs", "40", "--feature_folder", "y")
    started.start("--lr", "5e-5", "--num_workers=2", "--output_folder", "z")


@pytest.mark.parametrize(
    "key, value",
    [
        ("lr", "0.2"),
        ("labels", "[sad]"),
        ("schedule", "joint"),
        ("prediction_loss", "!name:my.loss"),
        ("vavl", "!new:my.Fusion"),
    ],
)
def test_another_setting_is_refused_by_name(started, key, value):
    assert f"({key})" in started.refusal(f"--{key}", value)


def test_what_the_yaml_of_all_corpora_says_counts(started):
    text = (REPOSITORY / "recipes" / "vavl.yaml").read_text("utf-8")
    changed = text.replace("betas: (0.95, 0.999)", "betas: (0.9, 0.999)")
    assert changed != text
    recipe = started.folder / "corpus" / "hparams" / "vavl_cls.yaml"
    recipe.parent.mkdir(parents=True)
    with open(HPARAMS, encoding="utf-8") as file:
        recipe.write_text(file.read())
    (started.folder / "vavl.yaml").write_text(text)
    started.start(hparams=recipe)
    (started.folder / "vavl.yaml").write_text(changed)
    assert "(opt_class)" in started.refusal(hparams=recipe)


@pytest.mark.parametrize(
    "option", [{"precision": "bf16"}, {"max_grad_norm": 5.0}]
)
def test_run_options_that_change_the_run_are_refused_by_name(started, option):
    assert f"({next(iter(option))})" in started.refusal(**option)


def test_without_a_checkpoint_there_is_nothing_to_go_on_with(run):
    run.start()
    run.start("--lr", "0.2")


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_other_clips_are_refused(started, split):
    path = started.folder / f"{split}.json"
    path.write_text('{"a": 1}')
    assert "(clips)" in started.refusal()
    path.write_text("{}")
    started.start()


def test_another_encoder_or_start_is_refused(started):
    started.fingerprints["audio"] = "a2"
    assert "(audio encoder)" in started.refusal()
    started.fingerprints["audio"] = "a1"
    (started.folder / "vavl.safetensors").write_text("weights")
    source = str(started.folder)
    assert "(pretrained_from)" in started.refusal(pretrained_from=source)
