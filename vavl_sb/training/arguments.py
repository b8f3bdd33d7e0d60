"""The command line of a recipe, checked before anything is made of it.

SpeechBrain joins the options to a YAML text; what is wrong with one shows as
an error of the YAML reader, many calls later.

Authors
 * The vavl_sb authors 2026
"""

import contextlib
import dataclasses
import difflib
import io
import re

import speechbrain as sb
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode
from speechbrain.utils.run_opts import RunOptions

from vavl_sb.utils.errors import VAVLError

YAML_TAG = "tag:yaml.org,2002:"
KINDS = {
    "bool": ("True or False", ("bool",)),
    "int": ("a number", ("int", "float")),
    "float": ("a number", ("int", "float")),
    "seq": ("a list such as [a, b]", ("seq",)),
}
# A number or a file; one folder or several.
OF_ANY_KIND = ("partition", "also_train")
# The least that a number may be, which may not be null; those must be whole.
WHOLE = {
    **dict.fromkeys(("batch_size", "number_of_epochs"), 1),
    **dict.fromkeys(("seed", "num_workers", "early_stopping_patience"), 0),
    **dict.fromkeys(("d_model", "projection_dim", "encoder_layers"), 1),
}
LEAST = {**WHOLE, **dict.fromkeys(("lr", "lr_final", "lr_audio_encoder"), 0)}


def parse_arguments(arguments, later=()):
    """What ``speechbrain.parse_arguments`` gives, of options that can be.

    Arguments
    ---------
    arguments : list of str
        Command line without the program's name.
    later : collection of str
        Keys that get their value later, and so need none here.

    Returns
    -------
    hparams_file : str
        The YAML file.
    run_opts : dict
        Run options.
    overrides : str
        YAML, for ``load_hyperpyyaml``.

    Raises
    ------
    VAVLError
        In one line: an option stands twice, the hparams file has no such key,
        a value is missing, no YAML or of another kind than the file's, a word
        belongs to no option, an option that must be given is not, or the file
        cannot be read.

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
    with _one_line():
        hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
    _refuse_stray(arguments)
    run_opts = _one_interval(run_opts)
    try:
        with open(hparams_file, encoding="utf-8") as file:
            known = _top_level(file.read(), hparams_file)
    except OSError as error:
        raise VAVLError(
            f"{hparams_file}: cannot be read ({error.strerror}); give a file "
            "such as hparams/vavl_cls.yaml"
        ) from None
    except UnicodeDecodeError:
        raise VAVLError(
            f"{hparams_file}: is no text in UTF-8; give a file such as "
            "hparams/vavl_cls.yaml"
        ) from None
    given = _top_level(overrides, "the options")
    for key, node in given.items():
        if key not in known:
            raise VAVLError(f"--{key}: no such option{_nearest(key, known)}")
        usual_tag = known[key].tag
        if (
            _is_null(node.tag)
            and node.value == ""
            and not _is_null(usual_tag)
            and usual_tag != "!PLACEHOLDER"
        ):
            raise VAVLError(f"--{key}: has no value; give one, or leave it out")
        _check_kind(key, node, known)
    for key, node in known.items():
        if key in later or node.tag != "!PLACEHOLDER":
            continue
        if not _has_value(given.get(key)):
            raise VAVLError(f"--{key}: must be given, such as --{key} FOLDER")
    return hparams_file, run_opts, overrides


@contextlib.contextmanager
def _one_line():
    """A run option that cannot be: one line, without argparse's usage."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            yield
    except SystemExit as stop:
        _, error, reason = told.getvalue().rpartition("error: ")
        if not (stop.code and error):
            raise
        raise VAVLError(" ".join(reason.split())) from None


def _check_kind(key, node, known):
    """Refuses a value of another kind than the hparams file has.

    A word in place of a number would be told of much later, and "no" for False
    never: YAML takes it for a text, and Python a text for True.
    """
    usual = known[key]
    reference = re.fullmatch(r"<(\w+)>", str(usual.value))
    if usual.tag == "!ref" and reference:
        usual = known.get(reference[1], usual)
    words, kinds = KINDS.get(usual.tag.removeprefix(YAML_TAG), (None, ()))
    found = node.tag.removeprefix(YAML_TAG)
    if words is None or node.tag.startswith("!") or key in OF_ANY_KIND:
        return
    # Null switches much off.
    if found == "null" and key not in LEAST:
        return
    value = node.value if isinstance(node, ScalarNode) else f"a {found}"
    if found not in kinds:
        raise VAVLError(f"--{key}: must be {words}, not {value}")
    if key in LEAST:
        _check_least(key, node, value)


def _check_least(key, node, value):
    """Refuses a number that is too small or has to be whole."""
    whole = "whole " if key in WHOLE else ""
    integer = node.tag.endswith(":int")
    if (whole and not integer) or YAML().load(value) < LEAST[key]:
        raise VAVLError(
            f"--{key}: must be a {whole}number, {LEAST[key]} or more, not "
            f"{value}"
        )


def _refuse_stray(arguments):
    """Refuses words that are neither an option nor the value of one."""
    # SpeechBrain would join them to the value before.
    _, rest = RunOptions._create_parser().parse_known_args(arguments)
    for before, word in zip(["", *rest], rest):
        follows = before.startswith("--") and "=" not in before
        if not word.startswith("--") and not follows:
            raise VAVLError(
                f"{word}: is neither an option (--name value) nor a value; put "
                "quotes around a value with spaces"
            )


def _one_interval(run_opts):
    """Checkpoints by steps are instead of those that the YAML has by time."""
    steps, given = run_opts.ckpt_interval_steps, run_opts.overridden_args
    if steps <= 0 or "ckpt_interval_minutes" in given:
        return run_opts
    return dataclasses.replace(
        run_opts,
        ckpt_interval_minutes=0,
        overridden_args={*given, "ckpt_interval_minutes"},
    )


def _top_level(text, where):
    """Keys of a YAML text, and the nodes that they have."""
    try:
        root = YAML().compose(text)
    except YAMLError as error:
        reason = " ".join(str(error).split())[:200]
        raise VAVLError(f"{where}: cannot be read as YAML ({reason})") from None
    if root is None:
        return {}
    if not isinstance(root, MappingNode):
        raise VAVLError(
            f"{where}: no options stand there (name: value); give a file such "
            "as hparams/vavl_cls.yaml"
        )
    return {str(key.value): node for key, node in root.value}


def _is_null(tag):
    """Whether a node's tag is that of null, or of nothing at all."""
    return tag == f"{YAML_TAG}null"


def _has_value(node):
    """Whether something stands behind an option."""
    return node is not None and node.value not in ("", "null", "~")


def _nearest(key, known):
    """The option that was meant, perhaps."""
    found = difflib.get_close_matches(key, known, n=1)
    return f" (the nearest: --{found[0]})" if found else ""
