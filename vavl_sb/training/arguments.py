"""Parses and checks the command line of a recipe.

SpeechBrain and HyperPyYAML silently accept mistakes that start another run than
the user meant, such as an option given twice.
"""

import difflib
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import speechbrain as sb
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import YAMLError
from speechbrain.utils.run_opts import RunOptions

from vavl_sb.utils.errors import VAVLError

INCLUDE = "!include:"


def parse_arguments(
    arguments: Sequence[str], later: Collection[str] = ()
) -> tuple[str, RunOptions, str]:
    """As ``speechbrain.parse_arguments``, but checks the options against the
    YAML.

    Keys of an included file are options, too; their overrides are written below
    the key that includes the file, as HyperPyYAML requires. Placeholders in
    ``later`` need no value. Returns the YAML's path, run options, and overrides
    as YAML for ``load_hyperpyyaml``. Raises a VAVLError if no YAML file has an
    option's key, an option is given twice, a boolean is not True or False, a
    word belongs to no option, or a required option is missing.

    Example
    -------
    >>> path = getfixture("tmp_path") / "vavl.yaml"
    >>> _ = path.write_text("data_folder: !PLACEHOLDER\\nlr: 0.1\\n")
    >>> parse_arguments([str(path), "--data_folder", "a", "--lrr=1"])
    Traceback (most recent call last):
    ...
    vavl_sb.utils.errors.VAVLError: --lrr: no such option (the nearest: --lr)
    """
    options = [
        word.partition("=")[0] for word in arguments if word.startswith("--")
    ]
    for option in options:
        if options.count(option) > 1:
            raise VAVLError(f"{option}: stands twice; give it once")
    hparams_file, run_opts, text = sb.parse_arguments(list(arguments))
    _refuse_stray(arguments)
    own, included = read_keys(hparams_file)
    reached = {key: node for nodes in included.values() for key, node in nodes}
    known = {**reached, **own}
    given = _load(text, "the options") or {}
    for key, value in given.items():
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f" (the nearest: --{nearest[0]})" if nearest else ""
            raise VAVLError(f"--{key}: no such option{hint}")
        # YAML 1.2 reads "no" as a string, which is true in Python.
        if isinstance(known[key], bool) and not isinstance(value, bool):
            raise VAVLError(f"--{key}: must be True or False, not {value}")
        if isinstance(value, str) and re.search("<.*>", value):
            raise VAVLError(
                f"--{key}: must not have < and >, which HyperPyYAML reads "
                f"as a reference: {value}"
            )
    if type(given.get("labels")) is CommentedSeq:
        # As strings, even if YAML would read numbers or null.
        given["labels"] = YAML(typ="base", pure=True).load(text)["labels"]
    _refuse_labels({**own, **given}.get("labels"))
    for key, node in own.items():
        needed = _tag(node) == "!PLACEHOLDER" and key not in later
        if needed and given.get(key) in (None, ""):
            raise VAVLError(f"--{key}: must be given, such as --{key} FOLDER")
    return hparams_file, run_opts, _below_includes(given, own, included)


def _refuse_labels(labels):
    """Raises an error if a label is not a string, empty, or repeated."""
    for label in labels if isinstance(labels, list) else ():
        if not isinstance(label, str) or not label or labels.count(label) > 1:
            raise VAVLError(
                f"labels: must be names, all different; {label!r} is no name "
                "or stands twice (put quotes around a number or null)"
            )


def read_keys(yaml_file: str) -> tuple[dict, dict]:
    """Returns the keys of a YAML file, and those of the files that it includes.

    The first dict maps top-level keys to ruamel.yaml's nodes, the second maps
    each key that includes a file to the items of that file.
    """
    own = _read(yaml_file)
    included = {
        key: _read(Path(yaml_file).parent / _tag(node)[len(INCLUDE) :])
        for key, node in own.items()
        if _tag(node).startswith(INCLUDE)
    }
    return own, {key: list(nodes.items()) for key, nodes in included.items()}


def _read(path):
    """Reads the nodes of a YAML file, by key."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VAVLError(
            f"{path}: cannot be read ({getattr(error, 'strerror', 'not text')})"
            "; give a file such as hparams/vavl_cls.yaml"
        ) from None
    nodes = _load(text, path)
    if not isinstance(nodes, dict):
        raise VAVLError(f"{path}: has no keys; give hparams/vavl_cls.yaml")
    return nodes


def _load(text, where):
    """Parses YAML with ruamel.yaml, which keeps tags."""
    try:
        return YAML().load(text)
    except YAMLError as error:
        reason = " ".join(str(error).split())[:200]
        raise VAVLError(f"{where}: cannot be read as YAML ({reason})") from None


def _tag(node):
    """Returns a node's tag; "" for none."""
    tag = getattr(node, "tag", None)
    return (tag.value if tag is not None else None) or ""


def _below_includes(given, own, included):
    """Writes overrides as YAML, those of included files below the including
    key."""
    for include, nodes in included.items():
        below = {
            key: given.pop(key)
            for key, _ in nodes
            if key in given and key not in own
        }
        if below:
            given[include] = {**(given.get(include) or {}), **below}
    text = io.StringIO()
    if given:
        YAML().dump(given, text)
    return text.getvalue()


def _refuse_stray(arguments):
    """Raises an error for words that are neither an option nor a value."""
    # SpeechBrain would append them to the previous value.
    _, words = RunOptions._create_parser().parse_known_args(arguments)
    for before, word in zip(["", *words], words):
        follows = before.startswith("--") and "=" not in before
        if not word.startswith("--") and not follows:
            raise VAVLError(
                f"{word}: is neither an option (--name value) nor a value; put "
                "quotes around a value with spaces"
            )
