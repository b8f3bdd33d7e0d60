"""The command line of a recipe, checked before anything is made of it.

SpeechBrain joins the options to a YAML text; what is wrong with one shows as
an error of the YAML reader, many calls later.

Authors
 * The vavl_sb authors 2026
"""

import difflib

import speechbrain as sb
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vavl_sb.utils.errors import VAVLError


def parse_arguments(arguments):
    """What ``speechbrain.parse_arguments`` gives, of options that can be.

    Arguments
    ---------
    arguments : list of str
        Command line without the program's name.

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
        a value is no YAML, one that must be given is not, or the file cannot
        be read.

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
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
    try:
        with open(hparams_file, encoding="utf-8") as file:
            known = _top_level(file.read(), hparams_file)
    except OSError as error:
        raise VAVLError(
            f"{hparams_file}: cannot be read ({error.strerror}); give a file "
            "such as hparams/vavl_cls.yaml"
        ) from None
    given = _top_level(overrides, "the options")
    for key in given:
        if key not in known:
            raise VAVLError(f"--{key}: no such option{_nearest(key, known)}")
    for key, node in known.items():
        if node.tag == "!PLACEHOLDER" and not _has_value(given.get(key)):
            raise VAVLError(f"--{key}: must be given, such as --{key} FOLDER")
    return hparams_file, run_opts, overrides


def _top_level(text, where):
    """Keys of a YAML text, and the nodes that they have."""
    try:
        root = YAML().compose(text)
    except YAMLError as error:
        reason = " ".join(str(error).split())[:200]
        raise VAVLError(f"{where}: cannot be read as YAML ({reason})") from None
    return {} if root is None else {k.value: node for k, node in root.value}


def _has_value(node):
    """Whether something stands behind an option."""
    return node is not None and node.value not in ("", "null", "~")


def _nearest(key, known):
    """The option that was meant, perhaps."""
    found = difflib.get_close_matches(key, known, n=1)
    return f" (the nearest: --{found[0]})" if found else ""
