"""The card of a model: what it is, was trained on, scores, and is not for."""

import re
from pathlib import Path
from typing import Any

import yaml

from vavl_sb.training.run_metadata import describe
from vavl_sb.utils.corpora import DRAWN
from vavl_sb.utils.files import write_atomically
from vavl_sb.utils.text import markdown, printable

NAME = "README.md"
# A card with this line is made anew; one without it is somebody's own.
MARK = "<!-- Made by vavl_sb. Remove this line to keep a text of your own. -->"
USE = """\
For research on emotion in speech and faces, and for tools whose users know of
it and agree to it. The model says how people who labelled the corpus, or who
acted in it, would name what a clip shows; not what a person feels.

Not for decisions about people: hiring, schools, policing, borders, credit,
health, or the like. In the European Union, inferring emotions at work and in
schools is prohibited save for medical and safety reasons.
"""
LIMITS = """\
- Corpora of this kind hold acted emotion by few speakers of one language;
  scores on other people, languages, ages, cameras and rooms may be much lower.
- With several people in a picture, one face is followed.
"""
EXAMPLE = """\
```python
from vavl_sb.inference import EmotionRecognizer

model = EmotionRecognizer.from_hparams("REPO_ID")  # or a folder
print(model.predict_file("clip.mp4"))
```

Tensors are safetensors; nothing in here is pickled.
"""
# The hub reads it.
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
# Settings of a run in the words of the card; others stand under their names.
WORDS = {
    "also_train": "Trained with it",
    "label_source": "Labels",
    "withhold_audio": "Training clips whose sound was withheld",
    "withhold_visual": "Training clips whose face was withheld",
    "mixup": "Mixup",
    "feature_noise": "Noise on features in training",
    "pretrained_from": "Started from",
}


def write_card(folder: str | Path) -> Path:
    """Writes a model's README.md, unless somebody wrote one of their own.

    Arguments
    ---------
    folder : str or Path
        An exported model.

    Returns
    -------
    Path
        The README.md.
    """
    path = Path(folder) / NAME
    own = False
    if path.is_file():
        with open(path, "rb") as file:  # In any encoding, of any size.
            own = MARK.encode() not in file.read(2**20)
    if not own:
        write_atomically(path, model_card(folder).encode("utf-8"))
    return path


def model_card(folder: str | Path) -> str:
    """The card of an exported model.

    Arguments
    ---------
    folder : str or Path
        With model.json; what that does not tell is left out.

    Returns
    -------
    str
        Markdown, with the hub's YAML before it.

    Raises
    ------
    EncoderError
        In one line: a file is missing or damaged.
    """
    about = describe(folder)
    command = (about["run"] or {}).get("command")
    about = _marked(about)
    if command is not None:
        about["run"]["command"] = _code(command)
    front = dict(FRONT)
    if about["task"] == "classification":
        front["pipeline_tag"] = "audio-classification"
    limits = LIMITS.strip()
    if about["corpus"].startswith(DRAWN):
        limits = (
            "- A program has drawn and voiced the corpus: what the model says "
            f"of people means nothing.\n{limits}"
        )
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        MARK,
        f"# VAVL, trained on {about['corpus']}",
        "[Versatile Audio-Visual Learning](https://arxiv.org/abs/2305.07216): "
        "emotion from speech, from a face, or from both. Trained and exported "
        "with vavl_sb, a plug-in for SpeechBrain.",
        f"## Task\n\n{_task(about)}",
        f"## Use\n\n{EXAMPLE.strip()}",
        f"## Training\n\n{_training(about)}",
        f"## Scores\n\n{_scores(about)}",
        f"## Licences\n\n{_licences(about)}",
        f"## Intended use\n\n{USE.strip()}",
        f"## Limits\n\n{limits}",
    ]
    return "\n\n".join(parts) + "\n"


def _marked(about: Any) -> Any:
    """All that the export says, as it may stand in the card."""
    if isinstance(about, dict):
        return {markdown(key): _marked(value) for key, value in about.items()}
    if isinstance(about, (list, tuple)):
        return [_marked(item) for item in about]
    return markdown(about) if isinstance(about, str) else about


def _code(command: object) -> str:
    """A command in a code span, whose fence it cannot close."""
    command = printable(str(command))
    fence = max(re.findall("`*", command)) + "`"
    space = " " if "`" in command else ""
    return f"{fence}{space}{command}{space}{fence}"


def _task(about: dict) -> str:
    """Classes or attributes, and their names."""
    labels = ", ".join(about["labels"])
    if about["task"] == "classification":
        text = f"Classification, one of {len(about['labels'])}: {labels}."
    elif about["attribute_range"]:
        low, high = about["attribute_range"]
        text = f"Regression of {labels}, each from {low:g} to {high:g}."
    else:
        text = f"Regression of {labels}."
    return (
        f"{text} Heads that were trained: {', '.join(about['trained_heads'])}."
    )


def _training(about: dict) -> str:
    """Corpus and settings of the run, as far as they are known."""
    lines = [f"- Corpus: {about['corpus']}"]
    if about["train_speakers"]:
        lines.append(f"- Speakers in training: {len(about['train_speakers'])}")
    for key, value in (about["run"] or {}).items():
        if value not in (None, "", [], 0):
            name = WORDS.get(key, key.replace("_", " ").capitalize())
            many = isinstance(value, list)
            said = ", ".join(map(str, value)) if many else value
            lines.append(f"- {name}: {said}")
    return "\n".join(lines)


def _scores(about: dict) -> str:
    """A table of the test scores, with the command that gave them."""
    if not about["test"]:
        return "None were recorded with this model."
    test = {head: _flat(scores) for head, scores in about["test"].items()}
    names = [
        name
        for name in next(iter(test.values()))
        if all(isinstance(s.get(name), (int, float)) for s in test.values())
    ]
    counts = about["n_test"] or {}
    rows = [["head", "clips", *names], ["---"] * (len(names) + 2)]
    for head, scores in test.items():
        values = [f"{scores[name]:.3f}" for name in names]
        rows.append([head, str(counts.get(head, "")), *values])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    command = (about["run"] or {}).get("command")
    said = f", by {command}" if command else ""
    text = f"On the test clips{said}:\n\n{table}"
    if about["target"]:
        text += (
            f"\n\nThe labels are {about['target']}. A score on labels of "
            "another kind cannot be compared with these."
        )
    return f"{text}\n\n{about['ceiling']}" if about["ceiling"] else text


def _flat(scores: dict) -> dict:
    """Scores by attribute, such as ccc, beside the others."""
    flat = {}
    for name, value in scores.items():
        if isinstance(value, dict):
            flat.update({f"{name} {k}": v for k, v in value.items()})
        else:
            flat[name] = value
    return flat


def _licences(about: dict) -> str:
    """Of corpora, encoders and weights."""
    what = {
        modality: f"{modality.capitalize()} encoder, {name}"
        for modality, name in about["encoders"].items()
    }
    what["weights"] = "VAVL's own weights"
    return "\n".join(
        f"- {what.get(name, f'Corpus {name}')}: {terms}"
        for name, terms in about["licences"].items()
    )
