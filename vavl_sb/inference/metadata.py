"""What a model's folder tells of itself, without loading the model."""

from vavl_sb.inference.hub import model_folder
from vavl_sb.training.model_file import read_model
from vavl_sb.utils.corpora import corpus_terms

UNKNOWN_TERMS = "not known here: ask whoever made the corpus"
WEIGHTS_TERMS = (
    "no licence is recorded for the weights: ask whoever trained the model; "
    "pretrained encoders in it keep their own"
)


def read_about(source: str, token: str | None = None) -> dict:
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
        ``trained_heads``, ``encoders`` (their names), ``network`` (its
        settings), ``run``, ``test``, ``n_test`` and ``licences`` (of corpus
        and weights). None where nothing was recorded.

    Raises
    ------
    EncoderError
        In one line: there is no model, or its files cannot be read.
    """
    folder = model_folder(source, token=token)
    model = read_model(folder)
    about = model["metadata"]
    plain = ("task", "labels", "attribute_range", "corpus", "trained_heads")
    return {
        "folder": str(folder),
        **{key: model[key] for key in plain},
        "encoders": about.get("encoder_names") or {},
        "network": model["network"]["arguments"],
        **{key: about.get(key) for key in ("run", "test", "n_test")},
        "licences": {
            "corpus": corpus_terms(model["corpus"]) or UNKNOWN_TERMS,
            "weights": about.get("licence") or WEIGHTS_TERMS,
        },
    }
