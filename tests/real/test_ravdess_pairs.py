"""Real voices with the action units of their faces: features as input."""

import csv
import json

import numpy as np
import pytest
import torch
from conftest import run_recipe
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vavl_sb.cli import main
from vavl_sb.inference import EmotionRecognizer
from vavl_sb.lobes.speaker_normalization import (
    SpeakerNormalization,
    SpeakerStatistics,
)
from vavl_sb.utils.feature_files import read_features

pytestmark = pytest.mark.real

LABELS = "[angry, calm, disgust, fear, happy, neutral, sad, surprised]"
# Statement, repetition and intensity of the clips that are taken.
ENDING = "01-01-01"


@pytest.fixture(scope="module")
def pairs(real_data):
    """The folder of the pairs, or a skip."""
    folder = real_data / "ravdess_speech"
    if not folder.is_dir():
        pytest.skip(f"no voices with action units at {folder}")
    return folder


def take_units(pairs, units):
    """The action units of those clips: a folder of frames."""
    endings = tuple(f"{ENDING}-0{actor}" for actor in range(1, 5))
    units.mkdir()
    for file in (pairs / "action_units_frames").rglob("*.csv"):
        if file.stem.endswith(endings):
            (units / file.name).symlink_to(file)


def test_voices_and_action_units_from_end_to_end(
    pairs, whisper_folder, tmp_path, capsys
):
    voices = tmp_path / "voices"
    voices.mkdir()
    for actor in ("01", "02", "03", "04"):
        for file in (pairs / f"Actor_{actor}").glob(f"*-{ENDING}-{actor}.flac"):
            (voices / file.name).symlink_to(file)
    assert len(list(voices.iterdir())) == 32
    split = tmp_path / "split.json"
    split.write_text('{"train": [1, 2], "valid": [3], "test": [4]}')
    units, out = tmp_path / "units", tmp_path / "out"
    take_units(pairs, units)
    run_recipe(
        "RAVDESS",
        *("--data_folder", voices, "--output_folder", out),
        *("--feature_folder", tmp_path / "features", "--partition", split),
        *("--visual_features", units, "--visual_features_rate", "29.97"),
        *("--audio_encoder_source", whisper_folder, "--labels", LABELS),
        *("--d_model", "16", "--number_of_epochs", "2"),
    )
    report = json.loads((out / "feature_report.json").read_text())
    assert report["computed"] == {"audio": 32, "visual": 32}
    assert report["failed"] == {}
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["n_test"] == {"audio": 8, "visual": 8, "audiovisual": 8}
    # Inputs are normalized by the units of the training clips.
    names = [f"01-01-0{e}-{ENDING}-0{a}" for e in range(1, 9) for a in (1, 2)]
    rows = [read_features(units / f"{name}.csv") for name in names]
    rows = np.concatenate(rows).astype(np.float16).astype(np.float64)
    model = EmotionRecognizer.from_hparams(out / "inference")
    branch = model.mods.vavl.visual_branch["normalize"]
    assert np.allclose(branch.mean.numpy(), rows.mean(0), atol=1e-4)
    # The model says of a test clip what the run said of it.
    clip = f"01-08-{ENDING}-04"
    given = f"{units}/01-{clip}.csv"
    voice = str(voices / f"03-{clip}.flac")
    model_folder = str(out / "inference")
    words = ["predict", model_folder, voice, "--visual_features", given]
    assert main([*words, "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["modality"] == "audiovisual"
    with open(out / "predictions_test.csv", encoding="utf-8") as file:
        rows = {
            r["modality"]: r for r in csv.DictReader(file) if r["id"] == clip
        }
    assert set(rows) == {"audio", "visual", "audiovisual"}
    for label, probability in said["probabilities"].items():
        kept = float(rows["audiovisual"][f"prob_{label}"])
        assert probability == pytest.approx(kept, abs=1e-4)
    frames = read_features(given)
    sound = model.hparams.feature_extractor.encode(voice).audio
    direct = model.predict_features(sound, frames)
    assert direct.probabilities == pytest.approx(said["probabilities"])


def test_faces_are_better_read_where_the_speaker_is_known(pairs):
    """By logistic regression, whose scores without any speaker and with the
    speaker's own mean and deviation are published beside the data."""
    with open(pairs / "action_units_mean.csv", encoding="utf-8") as file:
        names, rows = zip(*((name, r) for name, *r in [*csv.reader(file)][1:]))
    x = torch.tensor(np.array(rows, dtype=np.float64)).float()
    emotion = np.array([int(name.split("-")[2]) - 1 for name in names])
    actor = np.array([int(name[-2:]) for name in names])
    folds = json.loads((pairs / "folds.json").read_text())["here"]
    scores = {0: [], 5: [], 60: []}
    for fold in folds:
        train = ~np.isin(actor, fold)
        normalization = SpeakerNormalization(1, x.shape[1], 8)
        normalization.fit(
            "visual",
            x[train],
            torch.nn.functional.one_hot(torch.tensor(emotion[train]), 8),
            [str(a) for a in actor[train]],
        )

        def normalized(actors, count):
            """Clips of some actors, by so many of each one's clips."""
            moved = x.clone()
            for one in actors:
                own = np.flatnonzero(actor == one)
                # Alike for all actors, in an order that has every emotion.
                known = x[np.random.default_rng(0).permutation(own)[:count]]
                statistics = SpeakerStatistics.of(known)
                if count:
                    moved[own] = normalization(
                        "visual", x[own][:, None], statistics
                    )[:, 0]
            return moved

        for count, found in scores.items():
            learned = normalized(set(actor) - set(fold), 60 if count else 0)
            judge = make_pipeline(
                StandardScaler(),
                LogisticRegression(
                    C=0.1, max_iter=2000, class_weight="balanced"
                ),
            ).fit(learned[train], emotion[train])
            tested = normalized(fold, count)[~train]
            found.append(judge.score(tested, emotion[~train]))
    none, some, every = (np.mean(found) for found in scores.values())
    assert none == pytest.approx(0.598, abs=0.01)
    assert every > none + 0.08 and none + 0.02 < some < every
