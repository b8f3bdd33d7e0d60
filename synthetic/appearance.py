"""Appearance of a speaker: colours, shapes and position in the frame."""

from dataclasses import dataclass

import numpy as np

SKINS = (
    (255, 219, 196),
    (236, 190, 158),
    (203, 150, 114),
    (176, 122, 88),
    (143, 95, 66),
)
HAIRS = ((28, 24, 24), (84, 56, 36), (122, 82, 48), (176, 134, 80))
EYES = ((70, 46, 30), (78, 104, 70), (84, 120, 150))


@dataclass(frozen=True)
class Appearance:
    """Appearance of one speaker, the same in all of the speaker's clips.

    Arguments
    ---------
    skin, hair, iris, shirt, wall : tuple of int
        Colours, RGB in 0..255.
    hair_length : float
        Lower end of the hair beside the face, in head units (the mouth is at
        50); 0 for short hair.
    width, jaw : float
        Half the width of the head in head units (56..66), and the width of
        the jaw relative to it (0.68..0.9).
    eye_size, brow_weight, lip_weight, nose : float
        Sizes relative to the mean speaker (about 0.85..1.25).
    light : tuple of float
        Direction to the light (x, y, z); z points to the camera.
    scale : float
        Size of the head in the frame (0.9..1.15).
    centre : tuple of float
        Position of the head in a frame of 480 x 360 pixels.
    """

    skin: tuple
    hair: tuple
    iris: tuple
    shirt: tuple
    wall: tuple
    hair_length: float
    width: float
    jaw: float
    eye_size: float
    brow_weight: float
    lip_weight: float
    nose: float
    light: tuple
    scale: float
    centre: tuple


def draw_appearance(rng, female):
    """Draws the appearance of one speaker at random.

    Arguments
    ---------
    rng : numpy.random.Generator
        Source of random numbers.
    female : bool
        Longer hair, larger eyes, fuller lips, narrower jaw, lighter brows.

    Returns
    -------
    Appearance

    Example
    -------
    >>> 0.68 <= draw_appearance(np.random.default_rng(0), True).jaw <= 0.9
    True
    """

    def one_of(colours):
        colour = np.array(colours[rng.integers(len(colours))])
        jittered = colour * rng.uniform(0.93, 1.07)
        return tuple(int(c) for c in np.clip(jittered, 0, 255))

    male = 1 - female
    return Appearance(
        skin=one_of(SKINS),
        hair=one_of(HAIRS),
        iris=one_of(EYES),
        shirt=tuple(int(c) for c in rng.integers(25, 215, 3)),
        wall=tuple(int(c) for c in rng.integers(105, 170, 3)),
        hair_length=float(rng.uniform(20, 130) if female else 0),
        width=float(rng.uniform(56, 63) + 3 * male),
        jaw=float(rng.uniform(0.68, 0.8) + 0.1 * male),
        eye_size=float(rng.uniform(0.92, 1.12) + 0.06 * female),
        brow_weight=float(rng.uniform(0.85, 1.1) + 0.15 * male),
        lip_weight=float(rng.uniform(0.85, 1.1) + 0.15 * female),
        nose=float(rng.uniform(0.85, 1.2)),
        light=(rng.uniform(-0.4, 0.4), rng.uniform(-0.6, -0.2), 1.0),
        scale=float(rng.uniform(0.92, 1.12)),
        centre=(float(rng.uniform(215, 265)), float(rng.uniform(158, 178))),
    )
