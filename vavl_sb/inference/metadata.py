"""What a model's folder tells of itself, without loading the model.

Authors
 * The vavl_sb authors 2026
"""

from vavl_sb.inference.hub import model_folder
from vavl_sb.inference.loading import HPARAMS, read_plain
from vavl_sb.utils.corpora import corpus_terms
from vavl_sb.utils.errors import EncoderError
from vavl_sb.utils.files import read_json

ABOUT = "about.json"

UNKNOWN_TERMS = "not known here: ask whoever made the corpus"
WEIGHTS_TERMS = (
    "no licence is recorded for the weights: ask whoever trained the model; "
    "pretrained encoders in it keep their own"
)


def read_about(source, token=None):
    """Task, labels, encoders, corpus, scores and licence notes of a model.

    Arguments
    ---------
    source : str or Path
        As for ``EmotionRecognizer.from_hparams``.
    token : str
        Likewise, for a hub id.

    Returns
    -------
    dict
        ``folder``, ``task``, ``labels``, ``attribute_range``, ``corpus``,
        ``trained_heads``, ``encoders`` (name, or None where the export is
        older than the record), ``network`` (its settings), ``run``, ``test``,
        ``n_test`` (None likewise) and ``licences`` (of corpus and weights).

    Raises
    ------
    EncoderError
        In one line: there is no model, or its files cannot be read.
    """
    folder = model_folder(source, token=token)
    plain = read_plain(folder / HPARAMS)
    about = _read_json(folder / ABOUT)
    names = about.get("encoder_names") or {}
    heads = ["audio", "visual", "audiovisual"]
    return {
        "folder": str(folder),
        "task": plain.get("task"),
        "labels": plain.get("labels"),
        "attribute_range": plain.get("attribute_range"),
        "corpus": plain.get("corpus"),
        "trained_heads": plain.get("trained_heads") or heads,
        "encoders": {m: names.get(m) for m in ("audio", "visual")},
        "network": plain.get("vavl"),
        "run": about.get("run"),
        "test": about.get("test"),
        "n_test": about.get("n_test"),
        "licences": {
            "corpus": corpus_terms(plain.get("corpus")) or UNKNOWN_TERMS,
            "weights": about.get("licence") or WEIGHTS_TERMS,
        },
    }


def _read_json(path):
    """A JSON object; {} where there is no file."""
    if not path.is_file():
        return {}
    try:
        found = read_json(path)
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise EncoderError(f"{path}: is no JSON object; export the model again")
    heads = found.get("test")
    heads = list(heads.values()) if isinstance(heads, dict) else [heads]
    parts = [found.get(name) for name in ("encoder_names", "run", "n_test")]
    scores = [head.get("ccc") for head in heads if isinstance(head, dict)]
    if not all(
        p is None or isinstance(p, dict) for p in parts + heads + scores
    ):
        raise EncoderError(f"{path}: is no record; export the model again")
    return found
