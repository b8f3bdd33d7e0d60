"""Name of the corpus that a model was trained on."""

from pathlib import Path

# A file in every synthetic corpus.
SYNTHETIC = "synthetic.json"
DRAWN = "a synthetic corpus in the layout of "


def corpus_name(name: str, folder: str | Path) -> str:
    """Returns the name of a corpus for a model's card, marked if the corpus in
    the folder is synthetic.

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
