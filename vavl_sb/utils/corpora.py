"""What a model says of the corpus that it was trained on."""

from pathlib import Path

# Stands in every corpus that vavl_sb has drawn, in whatever layout.
SYNTHETIC = "synthetic.json"
DRAWN = "a synthetic corpus in the layout of "


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
