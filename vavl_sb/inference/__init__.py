"""Trained models applied to clips."""

from vavl_sb.inference.emotion import Emotion, EmotionRecognizer
