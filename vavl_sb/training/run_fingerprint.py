"""Whether a folder's checkpoints belong to the run that is asked for.

SpeechBrain resumes from whatever checkpoint is in the folder. With another
partition, that network may have learned from what are now test speakers.

Authors
 * The vavl_sb authors 2026
"""

import json
from pathlib import Path

from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.run_opts import RunOptions

from vavl_sb.dataio.manifest import SPLITS
from vavl_sb.dataio.preparation import digest_files
from vavl_sb.utils import distributed as processes
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.files import read_json, strict, write_json

RECORD = "run.json"
# What may change between two starts of one run: how long it trains, where
# things are, how fast it goes, and what is done besides training.
FREE = (
    "data_folder",
    "number_of_epochs",
    "early_stopping_patience",
    "num_workers",
    "pin_memory",
    "ckpt_interval_minutes",
    "ckpt_interval_steps",
    "skip_prep",
    "prepare_only",
    "use_tensorboard",
    "experiment_name",
    "audio_encoder_source",
    "visual_encoder_weights",
    "pretrained_from",
    "label_csv",
    "partition",
    "also_train",
)

# Options that came later, at what is as if they were not there: runs that were
# recorded without them go on.
ABSENT = {
    "audio_speeds": [],
    "speed_changes": [],
    "mixup": 0.0,
    "encoder_layers": 3,
    "feature_whitening": None,
    "feature_noise": 0.0,
    "feature_dropout": 0.0,
}


def other_corpora(also_train):
    """The folders of other corpora to train on.

    Arguments
    ---------
    also_train : str, list or None
        As in the YAML: one folder, several, or none.

    Returns
    -------
    list

    Example
    -------
    >>> other_corpora("results/a"), other_corpora(None)
    (['results/a'], [])
    """
    if isinstance(also_train, str) and also_train:
        return [also_train]
    return list(also_train or [])


def run_identity(hparams, run_opts):
    """Everything that makes a run what it is, as far as JSON can hold it.

    Encoders, clips and another model to start from count by what is in them,
    not by the paths that they came from.

    Arguments
    ---------
    hparams : dict
        The loaded hparams file.
    run_opts : dict or RunOptions
        Run options, from the command line.

    Returns
    -------
    dict
        Name to value.
    """
    plain = (str, int, float, bool, list, type(None))
    found = {
        key: value
        for key, value in hparams.items()
        if isinstance(value, plain)
        and key not in FREE
        and not key.startswith("__")
        and not key.endswith(("_folder", "_annotation", "_log"))
        and key not in ("feature_index", "feature_report")
        and not (key in ABSENT and value == ABSENT[key])
    }
    found.update(_run_options(found, run_opts))
    encoder = hparams["feature_extractor"]
    for modality in ("audio", "visual"):
        found[f"{modality} encoder"] = encoder.fingerprint(modality)
    # The validation clips too: they choose the checkpoint.
    own = [hparams[f"{split}_annotation"] for split in SPLITS]
    others = [
        f"{folder}/train.json"
        for folder in other_corpora(hparams["also_train"])
    ]
    found["clips"] = digest_files([*own, *others])
    # A batch has batch_size clips for each.
    if processes.count() > 1:
        found["processes"] = processes.count()
    if hparams["pretrained_from"] is not None:
        path = f"{hparams['pretrained_from']}/vavl.safetensors"
        found["pretrained_from"] = digest_files([path])
    # As it will be read again.
    return strict(json.loads(json.dumps(found, default=str)))


def _run_options(found, run_opts):
    """Those that change what is learned, as SpeechBrain takes them.

    From the command line, else from the YAML, else the default, which is left
    out: runs that were recorded without these options go on.
    """
    if isinstance(run_opts, dict):
        run_opts = RunOptions.from_dictionary(run_opts)
    default, given = RunOptions(), run_opts.overridden_args
    used = {
        name: run_opts[name] if name in given else found.get(name, usual)
        for name, usual in default.items()
    }
    # As in sb.Brain; both names are deprecated.
    for name, precision in (
        ("auto_mix_prec", "fp16"),
        ("bfloat16_mix_prec", "bf16"),
    ):
        if used[name]:
            used["precision"] = precision
    return {
        name: used[name]
        for name in ("precision", "max_grad_norm")
        if name in found or used[name] != default[name]
    }


def refuse_other_run(hparams, run_opts):
    """Refuses to go on with the checkpoints of a run of other settings.

    Arguments
    ---------
    hparams : dict
        The loaded hparams file; checkpoints and the record stand in its
        ``save_folder``.
    run_opts : dict or RunOptions
        Run options, from the command line.

    Returns
    -------
    dict
        From :func:`run_identity`, for :func:`record_run`.

    Raises
    ------
    VAVLError
        In one line that names what differs.
    """
    folder = Path(hparams["save_folder"])
    wanted = run_identity(hparams, run_opts)
    try:
        found = read_json(folder / RECORD)
    except (OSError, ValueError):
        found = None
    if isinstance(found, dict) and any(folder.glob("CKPT*")):
        keys = sorted({*found, *wanted})
        differ = [key for key in keys if found.get(key) != wanted.get(key)]
        if differ:
            raise VAVLError(
                f"{hparams['output_folder']}: holds a run of other settings "
                f"({', '.join(differ)}), whose checkpoints this run would go "
                "on with; give another output_folder, or delete that one"
            )
    return wanted


def record_run(hparams, identity):
    """Writes whose checkpoints will stand in the folder.

    Arguments
    ---------
    hparams : dict
        The loaded hparams file.
    identity : dict
        From :func:`run_identity`.
    """
    if if_main_process():
        write_json(Path(hparams["save_folder"]) / RECORD, identity)
