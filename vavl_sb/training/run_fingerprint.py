"""Whether a folder's checkpoints belong to the run that is asked for.

SpeechBrain resumes from whatever checkpoint is in the folder. With another
partition, that network may have learned from what are now test speakers.
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
# What may change between two starts of one run: how long it trains, where
# things are, how fast it goes, and what counts by its content (see below).
FREE = {
    *("data_folder", "output_folder", "save_folder", "feature_folder"),
    *("train_annotation", "valid_annotation", "test_annotation", "train_log"),
    *("number_of_epochs", "num_workers", "ckpt_interval_minutes"),
    *("ckpt_interval_steps", "skip_prep", "prepare_only", "prepare", "corpus"),
    *("partition", "label_csv", "also_train", "pretrained_from"),
    *("audio_encoder_source", "visual_encoder_weights"),
}


def read_settings(yaml_file: str, overrides: str = "") -> dict:
    """All settings of a YAML file and of those that it includes, by key: plain
    values; what makes an object is a text or a mapping with its tag.

    References are not followed: what they refer to is there. The overrides are
    those of :func:`vavl_sb.training.arguments.parse_arguments`.

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
        if isinstance(changes, dict):  # Not so, where nothing stands below it.
            recursive_update(nodes, changes)
        settings.update(nodes)
    return {key: _plain(node) for key, node in {**settings, **own}.items()}


def _plain(node):
    """A node of ruamel.yaml as JSON holds it."""
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
        # So that 1e-4 is 0.0001, and JSON has infinity.
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
    """Makes a folder this run's, unless its checkpoints are another run's:
    VAVLError, in one line that names what differs.

    Encoders, clips and another model to start from count by what is in them,
    not by the paths that they came from. ``settings`` are those of
    :func:`read_settings`, ``manifests`` split to path (validation's too, whose
    clips choose the checkpoint), ``also_train`` folders with other corpora's
    manifests, and ``run_options`` those of SpeechBrain that change what is
    learned.
    """
    wanted = {k: v for k, v in settings.items() if k not in FREE}
    wanted.update({k: _plain(v) for k, v in run_options.items()})
    for modality in MODALITIES:
        fingerprint = feature_extractor.fingerprint(modality)
        wanted[f"{modality} encoder"] = fingerprint
    others = other_corpora(also_train)
    wanted["clips"] = digest_files([*manifests.values(), *others])
    # A batch has batch_size clips for each.
    wanted["processes"] = processes.count()
    if pretrained_from is not None:
        wanted["pretrained_from"] = digest_files(
            [f"{pretrained_from}/vavl.safetensors"]
        )
    wanted = json.loads(json.dumps(wanted))
    folder = Path(save_folder)
    try:
        found = read_json(folder / RECORD)
    except (OSError, ValueError):
        found = None
    if isinstance(found, dict) and any(folder.glob("CKPT*")):
        keys = sorted({*found, *wanted})
        differ = [key for key in keys if found.get(key) != wanted.get(key)]
        if differ:
            raise VAVLError(
                f"{folder.parent}: holds a run of other settings "
                f"({', '.join(differ)}), whose checkpoints this run would go "
                "on with; give another output_folder, or delete that one"
            )
    processes.gather(None)  # All have read it before it is written.
    if if_main_process():
        write_json(folder / RECORD, wanted)
