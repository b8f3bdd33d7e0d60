"""Versatile Audio-Visual Learning (VAVL) for SpeechBrain.

VAVL (https://arxiv.org/abs/2305.07216) is one network that recognises emotion
from speech, from a face, or from both. It can be trained on clips that lack
one of the two.
"""

__version__ = "0.2.0"
