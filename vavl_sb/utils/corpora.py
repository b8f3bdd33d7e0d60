"""Corpora that recipes train on: what a model says of its own, and its terms."""

from pathlib import Path

# Stands in every corpus that vavl_sb has drawn, in whatever layout.
SYNTHETIC = "synthetic.json"
DRAWN = "a synthetic corpus in the layout of "

# A model's weights are learned from a corpus, whose terms say what one may do
# with these.
TERMS = {
    "CREMA-D": "Open Database License (ODbL) 1.0",
    "MSP-IMPROV": "academic licence of its owners: research only, no "
    "redistribution",
    "RAVDESS": "CC BY-NC-SA 4.0: no commercial use",
}


def corpus_name(name: str, folder: str | Path) -> str:
    """What a folder in the layout of a corpus is, for a model's card.

    Of a corpus that vavl_sb has drawn, that it is drawn.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> corpus_name("CREMA-D", folder)
    'CREMA-D'
    >>> (folder / "synthetic.json").touch()
    >>> corpus_name("CREMA-D", folder)
    'a synthetic corpus in the layout of CREMA-D'
    """
    return DRAWN + name if Path(folder, SYNTHETIC).is_file() else name


def corpus_terms(name: str) -> str | None:
    """On what terms a corpus is given out; None where it is not known here.

    Example
    -------
    >>> corpus_terms("a synthetic corpus in the layout of CREMA-D")
    'drawn by vavl_sb, nothing to license'
    """
    if str(name).startswith(DRAWN):
        return "drawn by vavl_sb, nothing to license"
    return TERMS.get(name)
