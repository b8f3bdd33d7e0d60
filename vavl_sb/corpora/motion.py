"""How a drawn face moves while it speaks: lips, expression, blinks and sway.

Authors
 * The vavl_sb authors 2026
"""

import functools

import numpy as np

from vavl_sb.corpora.drawn_face import FaceTrack
from vavl_sb.corpora.phones import HOP, SAMPLE_RATE


def _drift(rng, seconds, frames, scale, period):
    """Slow movement: a random curve through a knot every `period` seconds."""
    knots = int(seconds / period) + 4
    values = rng.normal(0, scale, knots)
    at = np.linspace(1, knots - 2, frames)
    left = at.astype(int)
    t = at - left
    t = t * t * (3 - 2 * t)
    return (1 - t) * values[left] + t * values[np.minimum(left + 1, knots - 1)]


def animate(clip, performance, utterance, times):
    """What the face does while the sentence is spoken.

    The expression rises to its height within the first third of a second; the
    mouth follows the loudness of the voice and the phones' own openings.

    Arguments
    ---------
    clip : Clip
        The clip.
    performance : Performance
        How it is acted.
    utterance : Utterance
        What is said.
    times : numpy.ndarray
        ``(n,)`` seconds of the frames.

    Returns
    -------
    FaceTrack
        Of n frames.

    Example
    -------
    >>> from vavl_sb.corpora.acting import Clip, perform
    >>> from vavl_sb.corpora.render import render_voice
    >>> clip = Clip(1001, "happy", "DFA", "XX", seed=0)
    >>> times = np.arange(15) / 15
    >>> track = animate(clip, perform(clip), render_voice(clip), times)
    >>> track.expression.shape, track.mouth.shape
    ((15, 7), (15,))
    """
    rng, frames = clip.chance("face"), len(times)
    seconds = len(utterance.samples) / SAMPLE_RATE
    control = (np.arange(len(utterance.f0)) + 0.5) * HOP / SAMPLE_RATE

    blocks = utterance.samples.reshape(-1, HOP).astype(float)
    loud = np.sqrt((blocks**2).mean(axis=1))
    window = np.hanning(15) / np.hanning(15).sum()
    loud = np.convolve(loud, window, mode="same")
    loud = np.sqrt(loud / max(np.quantile(loud, 0.95), 1e-6))
    opening = np.clip(loud, 0, 1.1) * (0.45 + 0.55 * utterance.jaw)
    mouth = np.interp(times, control, np.clip(opening - 0.12, 0, 1))

    rise = np.clip(times / 0.35, 0, 1)
    height = 0.45 + 0.55 * rise * rise * (3 - 2 * rise)
    height = height + _drift(rng, seconds, frames, 0.05, 0.4)
    expression = height[:, None] * performance.face
    blink = np.zeros(frames)
    for moment in rng.uniform(0, seconds + 2.0, 2):
        blink = np.maximum(
            blink, np.clip(1.6 - np.abs(times - moment) / 0.06, 0, 1)
        )
    drift = functools.partial(_drift, rng, seconds, frames)
    nod = 2.0 * mouth * rng.uniform(0, 1)
    return FaceTrack(
        expression=expression,
        mouth=mouth,
        rounding=np.interp(times, control, utterance.rounding),
        blink=blink,
        gaze=np.stack([drift(1.0, 0.5), drift(0.6, 0.5)], axis=1),
        turn=np.stack(
            [
                rng.normal(0, 2.5) + drift(2.5, 0.7),
                rng.normal(0, 1.5) + drift(1.5, 0.7) + nod,
            ],
            axis=1,
        ),
        lean=rng.normal(0, 0.03) + drift(0.03, 0.6),
        sway=np.stack([drift(3.0, 0.6), drift(2.0, 0.6)], axis=1),
    )
