"""Checks that a folder's checkpoints belong to the run that is started.

SpeechBrain resumes from any checkpoint in the folder. After a change of
partition, that network may have been trained on the new test speakers.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from hyperpyyaml.core import recursive_update
from ruamel.yaml import YAML
from speechbrain.utils.distributed import if_main_process

from vavl_sb.dataio.datasets import other_corpora
from vavl_sb.dataio.preparation import digest_files
from vavl_sb.features.extractor import FeatureExtractor
from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.training.arguments import read_keys
from vavl_sb.utils import distributed as processes
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json, write_json

RECORD = "run.json"
# Settings that may change when a run is resumed: duration, paths, speed, and
# settings that are compared by their content instead (see claim_folder).
FREE = {
    *("data_folder", "output_folder", "save_folder", "feature_folder"),
    *("train_annotation", "valid_annotation", "test_annotation", "train_log"),
    *("number_of_epochs", "num_workers", "ckpt_interval_minutes"),
    *("ckpt_interval_steps", "skip_prep", "prepare_only", "prepare", "corpus"),
    *("partition", "label_csv", "also_train", "pretrained_from"),
    *("audio_encoder_source", "visual_encoder_weights"),
}


def read_settings(yaml_file: str, overrides: str = "") -> dict:
    """Reads all settings of a YAML file and its included files as plain values.

    Objects are strings or mappings with their YAML tag; references are not
    resolved. The overrides are those of
    :func:`vavl_sb.training.arguments.parse_arguments`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.yaml"
    >>> _ = path.write_text("lr: 0.1\\nnet: !new:torch.nn.ReLU\\n")
    >>> read_settings(path, "lr: 0.2")
    {'lr': '0.2', 'net': '!new:torch.nn.ReLU '}
    """
    own, included = read_keys(yaml_file)
    recursive_update(own, YAML().load(overrides) or {})
    settings = {}
    for key, nodes in included.items():
        nodes, changes = dict(nodes), own.pop(key)
        if isinstance(changes, dict):  # Not a dict without overrides.
            recursive_update(nodes, changes)
        settings.update(nodes)
    return {key: _plain(node) for key, node in {**settings, **own}.items()}


def _plain(node):
    """Converts a node of ruamel.yaml to JSON values."""
    tag = getattr(getattr(node, "tag", None), "value", None)
    if isinstance(node, dict):
        values = {str(key): _plain(value) for key, value in node.items()}
        return {"tag": tag, **values} if tag else values
    if isinstance(node, (list, tuple)):
        values = [_plain(value) for value in node]
        return [tag, *values] if tag else values
    if tag:
        return f"{tag} {getattr(node, 'value', '')}"
    if isinstance(node, (bool, type(None))):
        return node
    if isinstance(node, (int, float)):
        # As text: 1e-4 equals 0.0001, and infinity is possible in JSON.
        return repr(float(node))
    return str(node)


def claim_folder(
    save_folder: str,
    settings: dict,
    feature_extractor: FeatureExtractor,
    manifests: dict[str, str],
    also_train: str | Sequence[str] | None = (),
    pretrained_from: str | None = None,
    **run_options,
) -> None:
    """Writes the run's settings to a folder; raises a VAVLError that names the
    differences if its checkpoints are those of another run.

    Encoders, clips and the pretrained model are compared by content, not by
    path. ``settings`` are from :func:`read_settings`, ``manifests`` maps splits
    to paths (also validation, which selects the checkpoint), ``also_train`` are
    folders with manifests of further training corpora, and ``run_options`` are
    SpeechBrain's options that change the result of training.
    """
    wanted = {k: v for k, v in settings.items() if k not in FREE}
    wanted.update({k: _plain(v) for k, v in run_options.items()})
    for modality in MODALITIES:
        fingerprint = feature_extractor.fingerprint(modality)
        wanted[f"{modality} encoder"] = fingerprint
    others = other_corpora(also_train)
    wanted["clips"] = digest_files([*manifests.values(), *others])
    # batch_size is per process.
    wanted["processes"] = processes.count()
    if pretrained_from is not None:
        wanted["pretrained_from"] = digest_files(
            [f"{pretrained_from}/vavl.safetensors"]
        )
    wanted = json.loads(json.dumps(wanted))
    folder = Path(save_folder)
    try:
        recorded = read_json(folder / RECORD)
    except (OSError, ValueError):
        recorded = None
    if isinstance(recorded, dict) and any(folder.glob("CKPT*")):
        keys = sorted({*recorded, *wanted})
        differ = [key for key in keys if recorded.get(key) != wanted.get(key)]
        if differ:
            raise VAVLError(
                f"{folder.parent}: holds a run of other settings "
                f"({', '.join(differ)}), whose checkpoints this run would "
                "resume from; give another output_folder, or delete that one"
            )
    processes.gather(None)  # All processes read it before it is written.
    if if_main_process():
        write_json(folder / RECORD, wanted)
