"""Motion of a speaking face: lips, expression, blinks and sway."""

import numpy as np

from synthetic.phones import HOP, SAMPLE_RATE, smooth


def animate(utterance, expression, times, rng):
    """Animates the face for a sentence.

    The expression reaches its peak after a third of a second; the mouth follows
    the loudness of the voice and the jaw openings of the phones.

    Arguments
    ---------
    utterance : Utterance
        The spoken sentence.
    expression : numpy.ndarray
        Shape (6,): values of ``face.AXES`` at the peak of the expression.
    times : numpy.ndarray
        Shape (n,): times of the frames in seconds.
    rng : numpy.random.Generator
        Source of random numbers.

    Returns
    -------
    list of dict
        Arguments of :meth:`synthetic.face.FacePainter.paint`, for each frame.

    Example
    -------
    >>> from synthetic.voice import draw_voice, speak
    >>> rng = np.random.default_rng(0)
    >>> utterance = speak("DFA", draw_voice(rng, True), {}, rng)
    >>> len(animate(utterance, np.zeros(6), np.arange(15) / 15, rng))
    15
    """
    control = (np.arange(len(utterance.f0)) + 0.5) * HOP / SAMPLE_RATE
    power = (utterance.samples.astype(float).reshape(-1, HOP) ** 2).mean(axis=1)
    loudness = smooth(np.sqrt(power), 13)
    loudness = np.sqrt(loudness / max(np.quantile(loudness, 0.95), 1e-6))
    opening = np.clip(loudness, 0, 1.1) * (0.45 + 0.55 * utterance.jaw)
    rise = np.clip(times / 0.35, 0, 1)
    height = 0.45 + 0.55 * rise**2 * (3 - 2 * rise)

    def drift(scale):
        """Slow random movement."""
        knots = np.arange(-0.5, control[-1] + 1, 0.5)
        return np.interp(times, knots, rng.normal(0, scale, len(knots)))

    blink = np.zeros(len(times))
    for moment in rng.uniform(0, control[-1] + 2, 2):
        shut = np.clip(1.6 - np.abs(times - moment) / 0.06, 0, 1)
        blink = np.maximum(blink, shut)
    tracks = {
        "expression": (height + drift(0.05))[:, None] * expression,
        "mouth": np.interp(times, control, np.clip(opening - 0.12, 0, 1)),
        "blink": blink,
        "lean": rng.normal(0, 0.03) + drift(0.03),
        "sway": np.stack([drift(3.0), drift(2.0)], axis=1),
    }
    return [
        {name: track[frame] for name, track in tracks.items()}
        for frame in range(len(times))
    ]
