"""The card of a model: what it is, was trained on, scores, and is not for.

Authors
 * The vavl_sb authors 2026
"""

import re
from pathlib import Path

import yaml

from vavl_sb.lobes.face_descriptor import NAME as GRADIENTS
from vavl_sb.training.model_file import CLASSES, read_model
from vavl_sb.utils.corpora import DRAWN, corpus_terms
from vavl_sb.utils.files import read_json, write_atomically
from vavl_sb.utils.text import markdown, printable

NAME = "README.md"
# A card with this line is made anew; one without it is somebody's own.
MARK = "<!-- Made by vavl_sb. Remove this line to keep a text of your own. -->"
UNKNOWN = "not known here: see the source"
AUDIO_ENCODERS = {
    "vavl_logmel": ("log-mel features", "nothing to license"),
    "wav2vec2": ("wav2vec 2.0", "Apache-2.0 for wav2vec2-large-robust"),
    "whisper": ("Whisper's encoder", "MIT"),
    "hubert": ("HuBERT", UNKNOWN),
    "wavlm": ("WavLM", UNKNOWN),
}
VISUAL_LICENCE = "Apache-2.0 for those of timm and of HSEmotion"
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
- Expressions differ between people and cultures; errors may differ between
  groups, and were not measured for groups unless a table above says so.
- Probabilities are not calibrated. A clip without any of the classes still
  gets one of them.
- With several people in a picture, one face is followed.
"""


def write_card(folder):
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
    if not path.is_file() or MARK in path.read_text(encoding="utf-8"):
        write_atomically(path, model_card(folder).encode("utf-8"))
    return path


def model_card(folder):
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
    folder = Path(folder)
    about = _marked(_read(folder))
    corpus = about.get("corpus") or "a corpus that is not named"
    parts = [
        _front_matter(about),
        MARK,
        f"# VAVL, trained on {corpus}",
        "[Versatile Audio-Visual Learning](https://arxiv.org/abs/2305.07216): "
        "emotion from speech, from a face, or from both. Trained and exported "
        "with vavl_sb, a plug-in for SpeechBrain.",
        "## Task\n\n" + _task(about),
        "## Use\n\n" + _example(),
        "## Training\n\n" + _training(about, corpus),
        "## Scores\n\n" + _scores(about),
        "## Licences\n\n" + _licences(folder, about, corpus),
        "## Intended use\n\n" + USE.strip(),
        "## Limits\n\n" + _limits(corpus),
    ]
    return "\n\n".join(parts) + "\n"


def _read(folder):
    """What the export tells, with its metadata beside it."""
    model = read_model(folder)
    own_face = model["visual_encoder"]["class"] not in CLASSES
    return {**model, "own_face": own_face, **model["metadata"]}


def _marked(about):
    """All that the export says, as it may stand in the card."""
    if isinstance(about, dict):
        return {
            markdown(key): _code(value) if key == "command" else _marked(value)
            for key, value in about.items()
        }
    if isinstance(about, (list, tuple)):
        return [_marked(item) for item in about]
    return markdown(about) if isinstance(about, str) else about


def _code(command):
    """A command in a code span, whose fence it cannot close."""
    command = printable(str(command))
    fence = max(re.findall("`*", command)) + "`"
    space = " " if "`" in command else ""
    return f"{fence}{space}{command}{space}{fence}"


def _front_matter(about):
    """What the hub reads."""
    content = {
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
    if about["task"] == "classification":
        content["pipeline_tag"] = "audio-classification"
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---"


def _task(about):
    """Classes or attributes, and their names."""
    labels = ", ".join(map(str, about["labels"]))
    if about["task"] == "classification":
        text = f"Classification, one of {len(about['labels'])}: {labels}."
    else:
        text = f"Regression of {labels}."
        if about.get("attribute_range"):
            low, high = about["attribute_range"]
            text = text[:-1] + f", each from {low:g} to {high:g}."
    heads = about.get("trained_heads")
    if heads:
        text += f" Heads that were trained: {', '.join(heads)}."
    return text


def _example():
    """How to run it."""
    return (
        "```python\n"
        "from vavl_sb.inference import EmotionRecognizer\n\n"
        'model = EmotionRecognizer.from_hparams("REPO_ID")  # or a folder\n'
        'print(model.predict_file("clip.mp4"))\n'
        "```\n\n"
        "Tensors are safetensors; nothing in here is pickled."
    )


def _training(about, corpus):
    """Corpus and protocol, as far as they are known."""
    run = {**about, **(about.get("run") or {})}
    lines = [f"- Corpus: {corpus}"]
    if run.get("also_train"):
        lines.append(f"- Trained with it: {_words(run['also_train'])}")
    speakers = about.get("train_speakers")
    if speakers:
        lines.append(f"- Speakers in training: {len(speakers)}")
    for key, name in (
        ("partition", "Partition"),
        ("seed", "Seed"),
        ("label_source", "Labels"),
        ("withhold_audio", "Training clips whose sound was withheld"),
        ("withhold_visual", "Training clips whose face was withheld"),
        ("audio_speeds", "Sound is heard at these speeds too, in percent"),
        ("speed_changes", "Training clips also at this speed, in percent"),
        ("mixup", "Mixup"),
        ("feature_whitening", "Features whitened, with a shrinkage of"),
        ("feature_noise", "Noise on features in training"),
        ("feature_dropout", "Features left out in training"),
        ("pretrained_from", "Started from"),
        ("command", "Command"),
    ):
        if run.get(key) not in (None, "", [], 0):
            lines.append(f"- {name}: {_words(run[key])}")
    return "\n".join(lines)


def _words(value):
    """A setting in a line of text."""
    many = isinstance(value, (list, tuple))
    return ", ".join(map(str, value)) if many else str(value)


def _scores(about):
    """A table of the test scores, with the command that gave them."""
    test = about.get("test")
    if not test:
        return "None were recorded with this model."
    test = {head: _flat(scores) for head, scores in test.items()}
    names = [
        name
        for name in next(iter(test.values()))
        if all(isinstance(s.get(name), (int, float)) for s in test.values())
    ]
    counts = about.get("n_test") or {}
    rows = [["head", "clips", *names], ["---"] * (len(names) + 2)]
    for head, scores in test.items():
        values = [f"{scores[name]:.3f}" for name in names]
        rows.append([head, str(counts.get(head, "")), *values])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    command = {**about, **(about.get("run") or {})}.get("command")
    said = f", by {command}" if command else ""
    return f"On the test clips{said}:\n\n{table}"


def _limits(corpus):
    """Of any such model, and of one that has seen no person."""
    if not corpus.startswith(DRAWN):
        return LIMITS.strip()
    return (
        "- A program has drawn and voiced the corpus: what the model says of "
        "people means nothing.\n" + LIMITS.strip()
    )


def _flat(scores):
    """Scores by attribute, such as ccc, beside the others."""
    flat = {}
    for name, value in scores.items():
        if isinstance(value, dict):
            flat.update({f"{name} {k}": v for k, v in value.items()})
        else:
            flat[name] = value
    return flat


def _licences(folder, about, corpus):
    """Of corpus and weights."""
    given = about.get("licences") or {}
    names = about.get("encoder_names") or {}
    try:
        config = read_json(folder / "audio_encoder/config.json")
        kind = config["model_type"]
    except (OSError, ValueError, KeyError):
        kind = None
    audio, licence = AUDIO_ENCODERS.get(kind, ("a speech encoder", UNKNOWN))
    source = {m: f" ({n})" if n else "" for m, n in names.items()}
    face, visual = "EfficientNet-B2", VISUAL_LICENCE
    if names.get("visual") == GRADIENTS:
        face, visual = "oriented gradients", "nothing to license"
        source["visual"] = ""
    if about.get("own_face"):
        face, visual = "a face encoder", UNKNOWN
    also = (about.get("run") or {}).get("also_train")
    also = also if isinstance(also, list) else []
    corpora = [corpus, *also]
    lines = [
        f"- Corpus {name}: {given.get(name) or corpus_terms(name) or UNKNOWN}"
        for name in dict.fromkeys(corpora)
    ]
    return "\n".join(
        [
            *lines,
            f"- Audio encoder, {audio}{source.get('audio', '')}: "
            f"{given.get('audio') or licence}",
            f"- Visual encoder, {face}{source.get('visual', '')}: "
            f"{given.get('visual') or visual}",
            "- VAVL's own weights: what the licence of the corpus allows, and "
            "whoever shares them says; vavl_sb itself is Apache-2.0.",
        ]
    )
