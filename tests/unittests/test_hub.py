"""Fetching models from the hub's cache, sending them, and their cards.

No test reaches a hub: the cache is laid out by hand, and the hub's answers are
huggingface_hub's own errors or a stand-in that records what it is asked.
"""

import os
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import constants, errors, utils
from light_model import write_model_file
from small_models import export_small
from speechbrain.utils.fetching import FetchConfig

from vavl_sb import cli
from vavl_sb.inference import EmotionRecognizer, hub
from vavl_sb.training.model_card import model_card
from vavl_sb.utils.errors import EncoderError, VAVLError

COMMIT, OLD = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model as a run leaves it, with random weights."""
    folder = tmp_path_factory.mktemp("run") / "inference"
    about = {"train_speakers": ["1001", "1002"], "corpus": "CREMA-D"}
    return export_small(folder, ["angry", "happy"], **about)


@pytest.fixture
def cache(tmp_path, exported, monkeypatch):
    """The hub's cache as huggingface_hub lays it out, with one model of two
    versions, and the network off."""
    repository = tmp_path / "hub" / "models--me--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "refs" / "v1").write_text(OLD)
    for commit in (COMMIT, OLD):
        shutil.copytree(exported, repository / "snapshots" / commit)
    file = repository / "snapshots" / OLD / "model.json"
    file.write_text(file.read_text().replace('"angry"', '"old"'))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert constants.HF_HUB_OFFLINE
    return tmp_path / "hub"


def test_a_hub_id_works_offline_from_the_cache(cache):
    model = EmotionRecognizer.from_hparams("me/model")
    assert model.hparams.labels == ["angry", "happy"]
    out = model(audio=torch.zeros(1, 30, 80))
    assert out.audio.shape == (1, 2)


def test_links_to_the_blobs_of_the_hubs_cache_are_followed(cache):
    """As huggingface_hub lays it out: all files of a version are links."""
    repository = cache / "models--me--model"
    (repository / "blobs").mkdir()
    files = (repository / "snapshots" / COMMIT).rglob("*")
    for number, path in enumerate(p for p in files if p.is_file()):
        blob = repository / "blobs" / str(number)
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, path.parent))
    model = EmotionRecognizer.from_hparams("me/model")
    assert model.hparams.labels == ["angry", "happy"]
    # Nobody fetched it by this path: it could be laid out to look like one.
    snapshot = repository / "snapshots" / COMMIT
    with pytest.raises(EncoderError, match="is a link out of the model's"):
        EmotionRecognizer.from_hparams(snapshot)
    (snapshot / "README.md").unlink()
    (snapshot / "README.md").symlink_to(cache.parent / "secret.json")
    with pytest.raises(EncoderError, match="README.md: is a link out of"):
        EmotionRecognizer.from_hparams("me/model")


@pytest.mark.parametrize(
    "name, absolute",
    [
        ("vavl.safetensors", False),
        ("audio_encoder/config.json", True),
        ("audio_encoder", False),
    ],
)
def test_a_link_out_of_a_models_folder_is_refused(
    tmp_path, exported, monkeypatch, capsys, name, absolute
):
    folder, secret = tmp_path / "model", tmp_path / "elsewhere"
    shutil.copytree(exported, folder)
    (folder / name).rename(secret)
    there = (
        secret if absolute else os.path.relpath(secret, (folder / name).parent)
    )
    (folder / name).symlink_to(there)
    for act in (
        lambda: EmotionRecognizer.from_hparams(folder),
        lambda: EmotionRecognizer.from_hparams(folder, trust=True),
        lambda: hub.send_model(folder, "me/model", api=FakeApi()),
    ):
        with pytest.raises(EncoderError, match=f"{name}: is a link"):
            act()
    api = FakeApi()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token: api)
    assert cli.main(["push", str(folder), "me/model"]) == 1
    assert "is a link out of" in capsys.readouterr().err and not api.sent


def test_links_within_a_model_and_what_is_no_file(tmp_path, exported):
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    (folder / "weights").mkdir()
    (folder / "vavl.safetensors").rename(folder / "weights" / "a")
    (folder / "vavl.safetensors").symlink_to("weights/a")
    (tmp_path / "link").symlink_to(folder)
    EmotionRecognizer.from_hparams(tmp_path / "link")
    (folder / "a").symlink_to(".")  # Two of these make 2^40 copies of all.
    with pytest.raises(EncoderError, match="a: is a link to a folder"):
        EmotionRecognizer.from_hparams(folder)
    (folder / "a").unlink()
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")
    with pytest.raises(EncoderError, match="README.md: is not a file"):
        EmotionRecognizer.from_hparams(folder)
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("README.md")
    with pytest.raises(EncoderError, match="README.md: is not a file"):
        EmotionRecognizer.from_hparams(folder)


@pytest.mark.parametrize(
    "options",
    [
        {"revision": OLD, "local_files_only": True},
        {"fetch_config": FetchConfig(revision="v1", allow_network=False)},
    ],
)
def test_revisions(cache, options):
    model = EmotionRecognizer.from_hparams("me/model", **options)
    assert model.hparams.labels == ["old", "happy"]


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        ("me/other", {}, "HF_HUB_OFFLINE is set"),
        ("me/model", {"revision": "v9"}, "me/model at v9: .*HF_HUB_OFFLINE"),
        ("me/other", {"local_files_only": True}, "cached snapshot"),
        ("../elsewhere", {}, "no such folder; give one"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(cache, source, options, told):
    with pytest.raises(EncoderError, match=told):
        EmotionRecognizer.from_hparams(source, **options)


def test_the_hub_is_asked_with_token_and_for_a_models_files(monkeypatch):
    asked = {}

    def record(source, **options):
        asked.update(options, source=source)
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", record)
    with pytest.raises(EncoderError, match="from the hub: .*no route"):
        EmotionRecognizer.from_hparams("me/model", token="hf_x", revision="v2")
    assert asked["source"] == "me/model"
    assert asked["token"] == "hf_x" and asked["revision"] == "v2"
    assert not any(fnmatch("x.pt", p) for p in asked["allow_patterns"])
    assert not any(fnmatch("a/x.bin", p) for p in asked["allow_patterns"])


class FakeApi:
    """Records what is sent."""

    def __init__(self, token=None, fails=None):
        self.token, self.fails, self.sent = token, fails, {}

    def create_repo(self, repo_id, **options):
        if self.fails:
            raise self.fails
        self.created = {"repo_id": repo_id, **options}
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, folder_path, allow_patterns, **options):
        self.options = options
        for path in utils.filter_repo_objects(
            [
                p.relative_to(folder_path).as_posix()
                for p in Path(folder_path).rglob("*")
                if p.is_file()
            ],
            allow_patterns=allow_patterns,
        ):
            self.sent[path] = True


def test_push_sends_the_model_with_its_card_and_no_more(
    tmp_path, exported, monkeypatch, capsys
):
    folder = tmp_path / "inference"
    shutil.copytree(exported, folder)
    (folder / "README.md").unlink()
    (folder / "secret.pt").write_bytes(b"x")
    (folder / ".env").write_bytes(b"TOKEN")
    made = []
    monkeypatch.setattr(
        huggingface_hub,
        "HfApi",
        lambda token: made.append(FakeApi(token)) or made[0],
    )
    arguments = ["push", str(tmp_path), "me/model", "--private"]
    assert cli.main([*arguments, "--token", "hf_x"]) == 0
    (api,) = made
    assert api.token == "hf_x"
    assert api.created["private"] is True and api.created["exist_ok"] is True
    assert api.options["repo_id"] == "me/model"
    assert sorted(api.sent) == [
        "README.md",
        "audio_encoder/config.json",
        "hyperparams.yaml",
        "model.json",
        "vavl.safetensors",
    ]
    assert "https://huggingface.co/me/model" in capsys.readouterr().out
    # What was sent is a whole model.
    EmotionRecognizer.from_hparams(folder)


def test_push_offline_or_of_nothing_gives_one_line(exported, capsys, tmp_path):
    assert cli.main(["push", str(exported), "me/model"]) == 1
    told = capsys.readouterr().err
    assert "cannot be sent: HF_HUB_OFFLINE is set; unset it" in told
    assert cli.main(["push", str(tmp_path), "me/model"]) == 1
    assert "no model.json in it" in capsys.readouterr().err
    assert cli.main(["push", str(tmp_path / "none"), "me/model"]) == 1
    assert "no such folder" in capsys.readouterr().err
    with pytest.raises(VAVLError, match="someone/model"):
        hub.send_model(exported, "a/b/c")
    refused = FakeApi(fails=errors.LocalTokenNotFoundError("log in\nfirst"))
    with pytest.raises(VAVLError, match="log in first"):
        hub.send_model(exported, "me/model", api=refused)


def test_an_export_has_its_card(exported):
    text = (exported / "README.md").read_text(encoding="utf-8")
    assert text == model_card(exported)
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "speechbrain"
    assert huggingface_hub.ModelCard(text).data.license == "other"
    for part in (
        "one of 2: angry, happy",
        "Corpus CREMA-D: Open Database License (ODbL) 1.0",
        "Speakers in training: 2",
        "None were recorded",
        "## Intended use",
        "## Limits",
    ):
        assert part in text


def test_a_card_tells_scores_and_command(tmp_path):
    scores = {"ccc": {"arousal": 0.5, "valence": 0.25}, "ccc_mean": 0.375}
    about = {
        "run": {"command": "python train.py x.yaml", "seed": 12},
        "encoder_names": {"audio": "openai/whisper-tiny", "visual": None},
        "test": {"audio": scores},
        "n_test": {"audio": 7},
        "target": "perceived: the mean rating of people who saw <the> clip",
        "ceiling": "Two panels agree to a CCC of 0.812.",
    }
    write_model_file(
        tmp_path,
        about,
        task="regression",
        labels=["arousal", "valence"],
        corpus="RAVDESS",
        attribute_range=[1, 5],
    )
    (tmp_path / "audio_encoder").mkdir()
    config = tmp_path / "audio_encoder" / "config.json"
    config.write_text('{"model_type": "whisper"}')
    text = re.sub(" +", " ", model_card(tmp_path))
    for part in (
        "| head | clips | ccc arousal | ccc valence | ccc_mean |",
        "| audio | 7 | 0.500 | 0.250 | 0.375 |",
        # What others wrote is no HTML.
        "The labels are perceived: the mean rating of people who saw &#60;the",
        "Two panels agree to a CCC of 0.812.",
        "by `python train.py x.yaml`",
        "Seed: 12",
        "each from 1 to 5",
        "Corpus RAVDESS: CC BY-NC-SA 4.0",
        "Whisper's encoder (openai/whisper-tiny): MIT",
    ):
        assert part in text
    assert "pipeline_tag" not in text
