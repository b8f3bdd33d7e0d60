"""--fusion, as users give it: from a corpus to a prediction."""

import json

import pytest
from conftest import run_recipe, small_run

from vavl_sb.inference import EmotionRecognizer
from vavl_sb.lobes.vavl import HEADS, MODALITIES


@pytest.mark.parametrize(
    "fusion, hparams, epochs, heads, withheld, normalization",
    [
        # It is fitted before the first epoch, of which one is then enough; its
        # product needs no clip that has both.
        ("linear", "vavl_cls.yaml", 1, HEADS, ("0.4", "0.4"), "iterative"),
        (
            "auxformer",
            "vavl_reg.yaml",
            2,
            MODALITIES,
            ("0.4", "0.45"),
            "speaker",
        ),
    ],
)
def test_another_network_is_trained_and_exported(
    small_corpus,
    tmp_path,
    fusion,
    hparams,
    epochs,
    heads,
    withheld,
    normalization,
):
    folder = tmp_path / "out"
    arguments = [
        *small_run(small_corpus, folder, tmp_path / "features"),
        # Each clip that has both loses one of the two.
        *("--withhold_audio", withheld[0], "--withhold_visual", withheld[1]),
        *("--fusion", fusion, "--speaker_normalization", normalization),
    ]
    run_recipe("CREMA-D", *arguments, hparams=hparams)
    report = json.loads((folder / "prepare_report.json").read_text())
    index = json.loads((folder / "features.json").read_text())
    for kind, modality in (("audio", "audio"), ("video", "visual")):
        clips = report["one_modality"][f"{kind} withheld"]["clips"]
        assert clips and all(index[id][modality] is None for id in clips)
    metrics = (folder / "metrics.json").read_text()
    assert list(json.loads(metrics)["test"]) == list(HEADS)
    log = (folder / "train_log.txt").read_text().splitlines()
    assert sum(line.startswith("epoch: ") for line in log) == epochs
    about = json.loads((folder / "inference" / "model.json").read_text())
    assert about["trained_heads"] == list(heads)
    assert about["metadata"]["run"]["fusion"] == fusion
    model = EmotionRecognizer.from_hparams(folder / "inference")
    count = sum(p.numel() for p in model.mods.vavl.parameters())
    assert about["metadata"]["parameters"] == count
    clip = next((small_corpus / "VideoFlash").glob("*.flv"))
    # By other clips of the speaker, whoever the network was trained on.
    speaker = model.enrol(sorted((small_corpus / "VideoFlash").glob("1008*")))
    alone = model.predict_file(clip, modality="visual").as_dict()
    known = model.predict_file(clip, modality="visual", speaker=speaker)
    key = "attributes" if "reg" in hparams else "probabilities"
    assert alone[key] != known.as_dict()[key]
    # The same command finds the run finished, and its scores the same.
    run_recipe("CREMA-D", *arguments, hparams=hparams)
    assert (folder / "metrics.json").read_text() == metrics
    # A folder is one network's.
    arguments += ["--fusion", "late"]
    status, output = run_recipe(
        "CREMA-D", *arguments, hparams=hparams, check=False
    )
    assert status == 1 and "a run of other settings (fusion)" in output
