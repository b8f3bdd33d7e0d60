"""The model card: description, training data, scores and intended use."""

import math
import re
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from vavl_sb.lobes.hf_config import read_config
from vavl_sb.lobes.vavl import MODALITIES
from vavl_sb.lobes.visual_encoder import GRADIENTS
from vavl_sb.training.model_file import WEIGHTS, read_model
from vavl_sb.training.report import table
from vavl_sb.utils.corpora import DRAWN
from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.files import write_atomically
from vavl_sb.utils.text import markdown, printable

NAME = "README.md"
# A card with this line is overwritten; one without it is the user's own.
MARK = "<!-- Made by vavl_sb. Remove this line to keep a text of your own. -->"
USE = """\
For research on emotion in speech and faces, and for tools whose users know of
it and agree to it. The model predicts how the people who labelled the corpus,
or acted in it, would name the emotion in a clip, not what a person feels.

Not for decisions about people: hiring, schools, policing, borders, credit,
health, or the like. In the European Union, inferring emotions at work and in
schools is prohibited except for medical and safety reasons.
"""
LIMITS = """\
- Corpora of this kind contain acted emotion by few speakers of one language;
  scores on other people, languages, ages, cameras and rooms may be much lower.
- If several people are in view, one face is tracked.
"""
EXAMPLE = """\
```python
from vavl_sb.inference import EmotionRecognizer

model = EmotionRecognizer.from_hparams("REPO_ID")  # or a folder
print(model.predict_file("clip.mp4"))
```

Tensors are safetensors; nothing in here is pickled.
"""
DRAWN_ONLY = (
    "It was trained on drawn faces and a synthetic voice only: what it "
    "predicts for people means nothing"
)
# Metadata for the Hugging Face hub.
FRONT = {
    "library_name": "speechbrain",
    "license": "other",
    "license_name": "depends-on-corpus-and-encoders",
    "tags": [
        "speechbrain",
        "vavl",
        "emotion-recognition",
        "speech-emotion-recognition",
        "facial-expression-recognition",
        "audio-visual",
    ],
}
# Names of a run's settings in the card; other settings keep their own.
WORDS = {
    "also_train": "Also trained on",
    "test_speakers": "Test speakers",
    "label_source": "Labels",
    "withhold_audio": "Training clips whose audio was withheld",
    "withhold_visual": "Training clips whose face was withheld",
    "mixup": "Mixup",
    "feature_noise": "Noise on features in training",
    "pretrained_from": "Started from",
}
UNKNOWN = "unknown: see the source"
NOTHING = "nothing to license"
# Licences of corpora, which also limit the use of weights trained on them.
TERMS = {
    "CREMA-D": "Open Database License (ODbL) 1.0",
    "MSP-IMPROV": "academic licence of its owners: research only, no "
    "redistribution",
    "RAVDESS": "CC BY-NC-SA 4.0: no commercial use",
}
WEIGHTS_TERMS = (
    "limited by the licence of the corpus, and by the publisher of the model"
)
# Names and licences of encoders, by model type or class.
ENCODERS = {
    "vavl_logmel": ("log-mel features", NOTHING),
    "wav2vec2": ("wav2vec 2.0", "Apache-2.0 for wav2vec2-large-robust"),
    "whisper": ("Whisper's encoder", "MIT"),
    "hubert": ("HuBERT", UNKNOWN),
    "wavlm": ("WavLM", UNKNOWN),
    "VisualEncoder": (
        "EfficientNet-B2",
        "Apache-2.0 for those of timm and of HSEmotion",
    ),
    "Precomputed": ("features computed elsewhere", UNKNOWN),
    GRADIENTS: ("oriented gradients", NOTHING),
}


def describe(folder: str | Path) -> dict[str, Any]:
    """Describes an exported model without loading it.

    Returns
    -------
    dict
        ``folder``, ``task``, ``labels``, ``attribute_range``, ``corpus``,
        ``trained_heads``, ``encoders`` (names), ``network`` (settings),
        ``parameters`` (number, in the network), ``train_speakers``,
        ``train_clips`` (number), ``run``, ``test``, ``n_test``, ``target`` (of
        the labels), ``ceiling`` (of the scores) and ``licences`` (of the
        corpora, encoders and weights). Values that were not recorded are None.

    Raises
    ------
    EncoderError
        If the folder has no model, or its files cannot be read.
    """
    folder = Path(folder)
    model = read_model(folder)
    record = model["metadata"]
    names = record.get("encoder_names") or {}
    also = (record.get("run") or {}).get("also_train")
    corpora = [model["corpus"], *(also if isinstance(also, list) else [])]
    drawn = f"drawn by vavl_sb, {NOTHING}"
    terms = {
        name: drawn if name.startswith(DRAWN) else TERMS.get(name, UNKNOWN)
        for name in map(str, corpora)
    }
    encoders = {}
    for modality in MODALITIES:
        kind = _kind(folder, model, modality)
        what, terms[modality] = ENCODERS.get(kind, (kind, UNKNOWN))
        name = names.get(modality)
        if kind == "Precomputed" and name is not None:  # Omitted in the export.
            encoders[modality] = "not included: no trained head uses it"
            del terms[modality]
            continue
        own = name in (None, what)  # A user's class has no other name.
        encoders[modality] = what if own else f"{what} ({name})"
    plain = ("task", "labels", "attribute_range", "corpus", "trained_heads")
    recorded = (
        *("train_speakers", "train_clips", "run", "test", "n_test"),
        *("target", "ceiling"),
    )
    return {
        "folder": str(folder),
        **{key: model[key] for key in plain},
        "encoders": encoders,
        "network": model["network"]["arguments"],
        "parameters": _parameters(folder / WEIGHTS),
        **{key: record.get(key) for key in recorded},
        "licences": {
            **terms,
            "weights": WEIGHTS_TERMS,
            **(record.get("licences") or {}),
        },
    }


def _parameters(path: Path) -> int | None:
    """Counts the parameters in a file by its header; None if unreadable."""
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return sum(
                math.prod(file.get_slice(name).get_shape()) for name in names
            )
    except (OSError, SafetensorError):
        return None


def learned_from(metadata: dict) -> str:
    """Summarizes a model's training data in one line; see :func:`describe`.

    Example
    -------
    >>> metadata = {"corpus": "CREMA-D", "run": None, "train_clips": 3742}
    >>> metadata |= {"train_speakers": ["1001", "1002"], "target": "perceived"}
    >>> learned_from(metadata)
    'Learned from CREMA-D (3,742 clips, 2 speakers); its labels are perceived.'
    """
    run, corpus = metadata["run"] or {}, metadata["corpus"]
    also = run.get("also_train")
    names = [corpus, *(also if isinstance(also, list) else [])]
    line = f"Learned from {', '.join(map(str, names))}"
    counts = []
    if metadata["train_clips"]:
        counts.append(f"{metadata['train_clips']:,} clips")
    if metadata["train_speakers"]:
        counts.append(f"{len(metadata['train_speakers'])} speakers")
    if counts:
        line += f" ({', '.join(counts)})"
    if run.get("pretrained_from"):
        line += f", after {run['pretrained_from']}"
    if metadata["target"]:
        line += f"; its labels are {metadata['target']}"
    if corpus.startswith(DRAWN):
        line += f". {DRAWN_ONLY}"
    return printable(f"{line.rstrip('.')}.")


def _kind(folder: Path, model: dict, modality: str) -> str:
    """Returns an encoder's key in :data:`ENCODERS`, or its class."""
    name = model[f"{modality}_encoder"]["class"]
    if name == "VisualEncoder":
        weights = model["visual_encoder"]["arguments"].get("weights")
        return name if weights else GRADIENTS
    if name != "AudioEncoder":
        return name
    try:
        return read_config(folder / "audio_encoder")["model_type"]
    except EncoderError:
        return name


def write_card(folder: str | Path) -> Path:
    """Writes a model's README.md, unless the user has replaced it."""
    path = Path(folder) / NAME
    own = False
    if path.is_file():
        with open(path, "rb") as file:  # Any encoding and size.
            own = MARK.encode() not in file.read(2**20)
    if not own:
        write_atomically(path, model_card(folder).encode("utf-8"))
    return path


def model_card(folder: str | Path) -> str:
    """Returns the card of an exported model: Markdown with a YAML header for
    the hub.

    Omits what model.json does not contain. Raises an EncoderError if a file is
    missing or damaged.
    """
    metadata = describe(folder)
    front = dict(FRONT)
    if metadata["task"] == "classification":
        front["pipeline_tag"] = "audio-classification"
    limits = LIMITS.strip()
    if metadata["corpus"].startswith(DRAWN):
        limits = f"- {DRAWN_ONLY}.\n{limits}"
    title, *lines = facts(metadata)
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        MARK,
        title,
        "[Versatile Audio-Visual Learning](https://arxiv.org/abs/2305.07216): "
        "emotion from speech, from a face, or from both. Trained and exported "
        "with vavl_sb, a plug-in for SpeechBrain.",
        f"## Use\n\n{EXAMPLE.strip()}",
        "\n".join(lines).strip(),
        f"## Intended use\n\n{USE.strip()}",
        f"## Limits\n\n{limits}",
    ]
    return "\n\n".join(parts) + "\n"


def facts(metadata: dict, plain: bool = False) -> list[str]:
    """Formats task, training, network, scores and licences of a model (see
    :func:`describe`) as lines of Markdown, or of ``plain`` text.

    In Markdown, values from the model are escaped and cannot add lines.
    """
    if not plain:
        command = (metadata["run"] or {}).get("command")
        metadata = _marked(metadata)
        if command is not None:
            metadata["run"]["command"] = _code(command)
    lines = [f"{'' if plain else '# '}VAVL, trained on {metadata['corpus']}"]
    for title, section in (
        ("Task", _task),
        ("Training", _training),
        ("Network", _network),
        ("Scores", _scores),
        ("Licences", _licences),
    ):
        head = [title] if plain else [f"## {title}", ""]
        lines += ["", *head, *section(metadata)]
    return lines


def _marked(metadata: Any) -> Any:
    """Escapes all text from the export for Markdown."""
    if isinstance(metadata, dict):
        return {
            markdown(key): _marked(value) for key, value in metadata.items()
        }
    if isinstance(metadata, (list, tuple)):
        return [_marked(item) for item in metadata]
    return markdown(metadata) if isinstance(metadata, str) else metadata


def _code(command: object) -> str:
    """Formats a command as a code span that the command cannot close."""
    command = printable(str(command))
    fence = max(re.findall("`*", command)) + "`"
    space = " " if "`" in command else ""
    return f"{fence}{space}{command}{space}{fence}"


def _task(metadata: dict) -> list[str]:
    """Describes the classes or attributes, and the trained heads."""
    labels = ", ".join(metadata["labels"])
    if metadata["task"] == "classification":
        text = f"Classification, one of {len(metadata['labels'])}: {labels}."
    elif metadata["attribute_range"]:
        low, high = metadata["attribute_range"]
        text = f"Regression of {labels}, each from {low:g} to {high:g}."
    else:
        text = f"Regression of {labels}."
    heads = ", ".join(metadata["trained_heads"])
    return [f"{text} Heads that were trained: {heads}."]


def _training(metadata: dict) -> list[str]:
    """Lists the corpus and the settings of the run, as far as known."""
    lines = [f"- Corpus: {metadata['corpus']}"]
    if metadata["train_clips"]:
        lines.append(f"- Clips in training: {metadata['train_clips']}")
    if metadata["train_speakers"]:
        lines.append(
            f"- Speakers in training: {len(metadata['train_speakers'])}"
        )
    for key, value in (metadata["run"] or {}).items():
        in_scores = key == "command" and metadata["test"]
        if value not in (None, "", [], 0) and not in_scores:
            name = WORDS.get(key, key.replace("_", " ").capitalize())
            if isinstance(value, list):
                value = ", ".join(map(str, value))
            lines.append(f"- {name}: {value}")
    return lines


def _network(metadata: dict) -> list[str]:
    """Lists the encoders, and the network's size and settings."""
    lines = [
        f"- {modality.capitalize()} encoder: {name}"
        for modality, name in metadata["encoders"].items()
    ]
    if metadata["parameters"]:
        lines.append(
            f"- Parameters, without the encoders: {metadata['parameters']:,}"
        )
    settings = ", ".join(f"{k} {v}" for k, v in metadata["network"].items())
    return [*lines, f"- Settings: {settings}"]


def _scores(metadata: dict) -> list[str]:
    """Formats the test scores as a table, with the run's command."""
    if not metadata["test"]:
        return ["None were recorded with this model."]
    test = {}
    for head, scores in metadata["test"].items():
        test[head] = flat = {}
        for name, value in scores.items():
            if isinstance(value, dict) and value:  # such as ccc
                flat |= {f"{name} {k}": v for k, v in value.items()}
            else:
                flat[name] = value
    names = [
        name
        for name in next(iter(test.values()))
        if all(isinstance(s.get(name), (int, float)) for s in test.values())
    ]
    counts = metadata["n_test"] or {}
    rows = [
        [head, counts.get(head, ""), *(f"{scores[n]:.3f}" for n in names)]
        for head, scores in test.items()
    ]
    command = (metadata["run"] or {}).get("command")
    by = f", by {command}" if command else ""
    lines = table(["head", "clips", *names], rows)
    lines = [f"On the test clips{by}:", "", *lines]
    if metadata["target"]:
        lines += [
            "",
            f"The labels are {metadata['target']}. Scores on another kind of "
            "labels cannot be compared with these.",
        ]
    return [*lines, "", metadata["ceiling"]] if metadata["ceiling"] else lines


def _licences(metadata: dict) -> list[str]:
    """Lists the licences of corpora, encoders and weights."""
    what = {
        modality: f"{modality.capitalize()} encoder, {name}"
        for modality, name in metadata["encoders"].items()
    }
    what["weights"] = "VAVL's own weights"
    return [
        f"- {what.get(name, f'Corpus {name}')}: {terms}"
        for name, terms in metadata["licences"].items()
    ]
