"""A talking-face corpus, drawn and voiced from a seed: no download, no people.

It is laid out as a real corpus is, so that the recipe of that corpus runs on
it unchanged. From the root of the repository::

    python -m synthetic OUTPUT --layout crema-d --speakers 12 --seed 0

Each clip shows its emotion by voice and face (:mod:`synthetic.performance`),
in neither of them always clearly. A clip depends on the seed and its own name
alone: a corpus of fewer speakers has the same files, byte for byte.
"""

from synthetic.generate import generate_corpus
