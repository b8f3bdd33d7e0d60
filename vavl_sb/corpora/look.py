"""What a drawn talker looks like: colours, shapes and place in the frame.

Authors
 * The vavl_sb authors 2026
"""

from dataclasses import dataclass

import numpy as np

SKINS = (
    (255, 219, 196),
    (248, 208, 180),
    (236, 190, 158),
    (222, 171, 136),
    (203, 150, 114),
    (176, 122, 88),
    (143, 95, 66),
    (112, 74, 53),
)
HAIRS = (
    (28, 24, 24),
    (48, 34, 28),
    (84, 56, 36),
    (122, 82, 48),
    (176, 134, 80),
    (150, 74, 40),
    (150, 148, 146),
)
EYES = ((70, 46, 30), (96, 70, 40), (78, 104, 70), (84, 120, 150))
STYLES = ("short", "crop", "receding", "bob", "long", "curly", "bun")


@dataclass(frozen=True)
class Look:
    """What one talker looks like; the same in all of the talker's clips.

    Arguments
    ---------
    skin, hair, iris, shirt, wall : tuple of int
        Colours, RGB in 0..255.
    style : str
        One of ``STYLES``.
    width, jaw : float
        Half the width of the head in head units (56..66), and the width of
        the jaw relative to it (0.68..0.9).
    eye_size, brow_weight, lip_weight, nose : float
        Sizes relative to the mean talker (about 0.8..1.25).
    light : tuple of float
        Direction towards the lamp, unit vector (x, y, z), z to the camera.
    tint : tuple of float
        Colour of the light, RGB factors around 1.
    ambient : float
        Share of the light that has no direction (0.4..0.65).
    scale : float
        Size of the head in the frame (0.9..1.15).
    centre : tuple of float
        Place of the head in a 480x360 frame, in pixels.
    glasses, stubble : float
        Strength of either, 0 for none.
    tilt : float
        Habitual lean of the head to a shoulder, radians.
    """

    skin: tuple
    hair: tuple
    iris: tuple
    shirt: tuple
    wall: tuple
    style: str
    width: float
    jaw: float
    eye_size: float
    brow_weight: float
    lip_weight: float
    nose: float
    light: tuple
    tint: tuple
    ambient: float
    scale: float
    centre: tuple
    glasses: float
    stubble: float
    tilt: float


def draw_look(rng, female):
    """Draws the look of one talker at random.

    Arguments
    ---------
    rng : numpy.random.Generator
        Source of chance.
    female : bool
        Shifts the odds of hair style, jaw, brows and stubble.

    Returns
    -------
    Look

    Example
    -------
    >>> look = draw_look(np.random.default_rng(0), female=True)
    >>> look.stubble, 0.68 <= look.jaw <= 0.9
    (0.0, True)
    """

    def colour(choices, spread):
        chosen = np.array(choices[rng.integers(len(choices))], float)
        jittered = chosen * rng.uniform(1 - spread, 1 + spread)
        return tuple(int(c) for c in np.clip(jittered, 0, 255))

    light = np.array([rng.uniform(-0.55, 0.55), rng.uniform(-0.7, -0.25), 1.0])
    wall_grey = rng.integers(115, 160)
    warmth = rng.uniform(-0.05, 0.05)
    styles = (
        ("bob", "long", "bun", "curly", "short")
        if female
        else ("short", "crop", "receding", "curly", "short")
    )
    return Look(
        skin=colour(SKINS, 0.04),
        hair=colour(HAIRS, 0.15),
        iris=colour(EYES, 0.1),
        shirt=tuple(int(c) for c in rng.integers(25, 215, 3)),
        wall=colour((wall_grey + rng.integers(-22, 23, 3),), 0.0),
        style=styles[rng.integers(len(styles))],
        width=float(rng.uniform(56, 63) + (0.0 if female else 3.0)),
        jaw=float(rng.uniform(0.68, 0.8) + (0.0 if female else 0.1)),
        eye_size=float(rng.uniform(0.92, 1.12) + (0.06 if female else 0.0)),
        brow_weight=float(rng.uniform(0.85, 1.1) + (0.0 if female else 0.15)),
        lip_weight=float(rng.uniform(0.85, 1.1) + (0.15 if female else 0.0)),
        nose=float(rng.uniform(0.85, 1.2)),
        light=tuple(light / np.linalg.norm(light)),
        tint=(1.0 + warmth, 1.0, 1.0 - warmth),
        ambient=float(rng.uniform(0.46, 0.62)),
        scale=float(rng.uniform(0.92, 1.12)),
        centre=(float(rng.uniform(215, 265)), float(rng.uniform(158, 178))),
        glasses=float(rng.random() < 0.15),
        stubble=float(0.0 if female else max(0.0, rng.uniform(-0.3, 0.45))),
        tilt=float(rng.normal(0, 0.03)),
    )
