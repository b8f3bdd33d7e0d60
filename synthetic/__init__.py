"""A synthetic talking-face corpus, generated from a seed without downloads.

It has the file names and tables of a real corpus, so that the recipe of that
corpus runs on it unchanged. From the root of the repository::

    python -m synthetic OUTPUT --layout crema-d --speakers 12 --seed 0

Voice and face both express a clip's emotion, neither always clearly
(:mod:`synthetic.performance`). A clip depends only on the seed and its name: a
corpus of fewer speakers has the same files, byte for byte.
"""

from synthetic.generate import generate_corpus
