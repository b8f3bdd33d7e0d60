"""Renders the static parts of a speaker: skull, skin, hair and body.

A head is a height field (half an ellipsoid with a nose, sockets, cheeks and a
chin) shaded by one light. :mod:`synthetic.face` draws the moving parts (brows,
eyes, mouth) onto it.

Coordinates are "head units": one unit is one pixel of a frame of 480 x 360 for
a head of scale 1; x points right and y down from the centre of the face.
"""

import numpy as np
from PIL import Image

# Canvas of a head in head units, and pixels of the canvas per head unit.
CANVAS = (264, 336)
SUPERSAMPLE = 2

EYE = (27.0, -19.0)  # centre of the eyes: x is +/-
MOUTH_Y = 50.0
AMBIENT = 0.54  # share of ambient light


def _canvas_grid():
    """Returns head coordinates (x, y) of the pixels of the canvas."""
    width, height = (n * SUPERSAMPLE for n in CANVAS)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return (
        (x + 0.5) / SUPERSAMPLE - CANVAS[0] / 2,
        (y + 0.5) / SUPERSAMPLE - CANVAS[1] / 2,
    )


def _blob(x, y, cx, cy, sx, sy):
    """Computes a Gaussian bump."""
    return np.exp(-(((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2) / 2)


def _pair(x, y, cx, cy, sx, sy):
    """Computes two Gaussian bumps, left and right."""
    return _blob(np.abs(x), y, cx, cy, sx, sy)


def _soft(distance, width=2.0):
    """Computes a mask with an edge of the given width: 0 below, 1 above."""
    return np.clip(0.5 + distance / width, 0, 1)


def _to_image(array):
    return Image.fromarray(np.clip(array, 0, 255).astype(np.uint8))


def _paste(image, colour, mask):
    """Pastes an image through `mask` (0..1)."""
    image.paste(colour, (0, 0), _to_image(mask * 255))


def _outline(x, y, appearance):
    """Computes a squared radius: 1 on the outline of skull and jaw, less
    inside."""
    taper = 1 - (1 - appearance.jaw) * np.clip((y + 8) / 98, 0, 1) ** 1.2
    return (x / (appearance.width * taper)) ** 2 + (np.abs(y) / 96) ** 2.3


def _height(x, y, rho, nose):
    """Computes the height of the face above the canvas, in head units."""
    z = 60 * np.sqrt(np.clip(1 - rho, 0, None))
    ridge = np.clip((y + 30) / 50, 0, 1) * (y < 24) * np.exp(-((x / 6.5) ** 2))
    z += 9 * nose * ridge
    z += 9 * nose * _blob(x, y, 0, 18, 8 * nose, 6)
    z -= 9 * _pair(x, y, EYE[0], EYE[1] + 1, 13, 9)  # sockets
    z += 4 * _pair(x, y, 25, -36, 16, 5)
    z += 4.5 * _pair(x, y, 36, 16, 14, 13)  # cheeks
    z += 5 * _blob(x, y, 0, 80, 15, 10)  # chin
    z += 4 * _blob(x, y, 0, MOUTH_Y, 24, 15)
    return z


def _shade(z, light, colour):
    """Applies Lambertian shading to a coloured height field."""
    dy, dx = np.gradient(z, 1 / SUPERSAMPLE)
    lamp = np.array(light) / np.linalg.norm(light)
    facing = (lamp[2] - dx * lamp[0] - dy * lamp[1]) / np.sqrt(
        dx**2 + dy**2 + 1
    )
    lit = AMBIENT + 1.12 * (1 - AMBIENT) * np.clip(facing, 0, 1)
    return np.array(colour) * lit[..., None]


def render_head(appearance, rng):
    """Renders the static parts of the head.

    Arguments
    ---------
    appearance : Appearance
        Appearance of the speaker.
    rng : numpy.random.Generator
        Source of random numbers for hair and grain.

    Returns
    -------
    head : PIL.Image.Image
        RGB image of the canvas.
    cover : PIL.Image.Image
        8-bit mask of the canvas, 255 where the head is.
    """
    x, y = _canvas_grid()
    rho = _outline(x, y, appearance)
    face = _shade(
        _height(x, y, rho, appearance.nose), appearance.light, appearance.skin
    )
    face += rng.normal(0, 1.5, x.shape)[..., None]
    streaks = 1 + 0.12 * np.sin(x / 2.1 + 3 * rng.random() + y / 40)
    strands = _to_image(np.array(appearance.hair) * streaks[..., None])

    wave = 2.5 * np.sin(x / 7 + rng.uniform(0, 6))
    hairline = -68 + 70 * (np.abs(x) / 62) ** 3 + 0.4 * wave
    crown = _soft((1.2 - rho) * 40)  # hair extends beyond the skull
    cap = crown * _soft(hairline - y, 5) * _soft(-2 - y, 10)
    side = appearance.width * 1.2 - np.abs(x)
    behind = _soft(side, 4) * _soft(appearance.hair_length + wave - y, 12)
    behind *= (appearance.hair_length > 0) * np.where(y < 0, crown, 1)
    skull = _soft((1 - rho) * 60)
    ear = ((np.abs(x) - appearance.width) / 9) ** 2 + ((y + 4) / 18) ** 2
    ears = _soft((1 - ear) * 12)

    head = strands.point(lambda value: int(value * 0.62))
    _paste(head, _to_image(0 * face + np.array(appearance.skin) * 0.75), ears)
    _paste(head, _to_image(face), skull)
    _paste(head, strands, cap)
    cover = np.maximum.reduce([skull, ears, cap, behind])
    return head, _to_image(cover * 255)


def render_backdrop(appearance, rng, size):
    """Renders wall, neck and shoulders.

    Arguments
    ---------
    appearance : Appearance
        Appearance of the speaker.
    rng : numpy.random.Generator
        Source of random numbers for the grain of the wall.
    size : tuple of int
        Width and height of the frame in pixels.

    Returns
    -------
    PIL.Image.Image
        RGB image of `size`.
    """
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    unit = height / 360
    fall = 1.08 - 0.2 * y / height + rng.normal(0, 0.005, x.shape)
    frame = _to_image(np.array(appearance.wall) * fall[..., None])

    scale = appearance.scale * unit  # below in head units
    x = (x - appearance.centre[0] * unit) / scale
    y = (y - appearance.centre[1] * unit) / scale
    neck = appearance.width * 0.62
    light = 0.4 + 0.4 * np.sqrt(np.clip(1 - (x / neck) ** 2, 0, 1))
    skin = _to_image(np.array(appearance.skin) * light[..., None])
    _paste(frame, skin, _soft(neck - np.abs(x)) * (y > 40))
    slope = np.clip((np.abs(x) - 30) / 95, 0, 1)
    shoulders = 118 + 34 * slope**1.6 + 14 * np.clip(1 - (x / 46) ** 2, 0, 1)
    cloth = np.array(appearance.shirt) * (0.9 - 0.25 * slope[..., None])
    _paste(frame, _to_image(cloth), _soft(y - shoulders))
    return frame
