"""Inference with trained models."""

from vavl_sb.inference.emotion import EmotionRecognizer
from vavl_sb.inference.prediction import Analysis, Emotion, TimedEmotion
from vavl_sb.inference.speakers import Speaker
