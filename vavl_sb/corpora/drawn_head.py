"""The parts of a drawn talker that do not move: skull, skin, hair, body.

A head is a height field (half an ellipsoid with a nose, sockets, cheeks and a
chin) lit by one lamp with the Lambert and Blinn-Phong terms, so that its
shading is that of a solid thing. :mod:`vavl_sb.corpora.drawn_face` draws what
moves (brows, eyes, mouth) onto it, frame by frame.

Coordinates are "head units": one unit is one pixel of the frame for a head of
scale 1, x runs to the right and y downwards from the middle of the face.

Authors
 * The vavl_sb authors 2026
"""

import numpy as np
from PIL import Image

# Canvas of a head in head units, and pixels of the canvas per head unit.
CANVAS = (264, 336)
SUPERSAMPLE = 2

EYE = (27.0, -19.0)  # centre of the eyes: x is +/-
MOUTH_Y = 50.0


def canvas_grid():
    """Head coordinates of the pixels of the head's canvas.

    Returns
    -------
    x, y : numpy.ndarray
        Float arrays of the canvas's shape, in head units.

    Example
    -------
    >>> x, y = canvas_grid()
    >>> x.shape == (CANVAS[1] * SUPERSAMPLE, CANVAS[0] * SUPERSAMPLE)
    True
    >>> bool(abs(x.mean()) < 1e-3)
    True
    """
    width, height = (n * SUPERSAMPLE for n in CANVAS)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return (
        (x + 0.5) / SUPERSAMPLE - CANVAS[0] / 2,
        (y + 0.5) / SUPERSAMPLE - CANVAS[1] / 2,
    )


def _blob(x, y, cx, cy, sx, sy):
    return np.exp(-(((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2) / 2)


def _pair(x, y, cx, cy, sx, sy):
    return _blob(x, y, -cx, cy, sx, sy) + _blob(x, y, cx, cy, sx, sy)


def _outline(x, y, look):
    """Squared radius: 1 on the outline of skull and jaw, less inside."""
    taper = 1 - (1 - look.jaw) * np.clip((y + 8) / 98, 0, 1) ** 1.2
    return (x / (look.width * taper)) ** 2 + (np.abs(y) / 96) ** 2.3


def _height(x, y, look):
    rho = _outline(x, y, look)
    z = 60 * np.sqrt(np.clip(1 - rho, 0, None))
    nose = look.nose
    ridge = np.clip((y + 30) / 50, 0, 1) * (y < 24) * np.exp(-((x / 6.5) ** 2))
    z = z + 9 * nose * ridge
    z += 9 * nose * _blob(x, y, 0, 18, 8 * nose, 6)
    z += 5 * nose * _pair(x, y, 11 * nose, 21, 4.5, 4.5)
    z -= 9 * _pair(x, y, EYE[0], EYE[1] + 1, 13, 9)
    z += 4 * _pair(x, y, 25, -36, 16, 5)
    z += 4.5 * _pair(x, y, 36, 16, 14, 13)
    z += 5 * _blob(x, y, 0, 80, 15, 10)
    z += 4 * _blob(x, y, 0, MOUTH_Y, 24, 15)
    z -= 1.5 * _blob(x, y, 0, 33, 4, 6)
    return z, rho


def _shade(z, look, colour):
    """Lambert and Blinn-Phong light on a coloured height field."""
    dy, dx = np.gradient(z, 1 / SUPERSAMPLE)
    norm = np.sqrt(dx**2 + dy**2 + 1)
    lamp = np.array(look.light)
    half = (lamp + (0, 0, 1)) / np.linalg.norm(lamp + (0, 0, 1))
    diffuse = np.clip((-dx * lamp[0] - dy * lamp[1] + lamp[2]) / norm, 0, 1)
    gloss = np.clip((-dx * half[0] - dy * half[1] + half[2]) / norm, 0, 1)
    light = look.ambient + 1.12 * (1 - look.ambient) * diffuse
    lit = colour * light[..., None] * np.array(look.tint)
    return lit + 26 * gloss[..., None] ** 40


def _to_image(array):
    return Image.fromarray(np.clip(array, 0, 255).astype(np.uint8))


def _paste(image, colour, mask):
    """Pastes a colour or picture where `mask` (0..1 array) is."""
    image.paste(colour, (0, 0), _to_image(mask * 255))


def _strands(rng, shape, look):
    """Hair: its colour under streaks that run down and a soft gloss."""
    rows, columns = shape
    noise = rng.normal(size=(rows // 24 + 2, columns)).astype(np.float32)
    streaks = Image.fromarray(noise).resize(
        (columns, rows), Image.Resampling.BICUBIC
    )
    streaks = np.asarray(streaks)
    streaks = (streaks + np.roll(streaks, 1, 1) + np.roll(streaks, 2, 1)) / 3
    gloss = np.exp(-(((np.arange(rows) / rows - 0.2) / 0.1) ** 2))[:, None]
    level = 1 + 0.16 * streaks + 0.35 * gloss
    return _to_image(np.array(look.hair) * level[..., None])


def _hair_masks(x, y, rho, look, rng):
    """Masks (0..1) of the hair behind the head and of that before it."""

    def soft(distance, width=2.0):
        return np.clip(0.5 + distance / width, 0, 1)

    style = look.style
    wave = 2.5 * np.sin(x / 7 + rng.uniform(0, 6)) + 1.5 * np.sin(x / 3.1)
    part = rng.uniform(-9, 9)
    # The hairline: high on the forehead, falling steeply at the temples.
    high, fall = {
        "receding": (-84, 80),
        "crop": (-70, 55),
        "short": (-66, 62),
        "curly": (-66, 62),
    }.get(style, (-70, 85))
    power = 1.7 if style == "receding" else 3.2
    line = high + fall * (np.abs(x - part) / 62) ** power + 0.4 * wave
    # Thickness over the skull, which thins out towards the ears.
    thick = {"receding": 0.07, "crop": 0.1, "curly": 0.5}.get(style, 0.22)
    thick = thick * np.clip((-2 - y) / 52, 0, 1) ** 0.7
    cap = soft((1 + thick - rho) * 40) * soft(line - y, 5)
    cap *= soft(-2 - y, 10)
    back = np.zeros_like(cap)
    if style in ("bob", "long"):
        low = 62 if style == "bob" else 132
        side = look.width * 1.22 + 2.5 * np.sin(y / 19)
        round_top = (
            1.26 - (x / look.width) ** 2 - (np.clip(y, None, 0) / 96) ** 2
        )
        back = soft(side - np.abs(x), 4) * soft(low + wave - y, 12)
        back *= soft(round_top * 40)
        back = np.maximum(back, soft((1.2 - rho) * 40) * (y < 0))
        # The neck is before it: two strands fall over the shoulders.
        neck = soft(look.width * 0.62 - np.abs(x), 4) * soft(y - 62, 20)
        back *= 1 - neck
    elif style == "curly":
        turn = np.arctan2(y + 26, x)
        curls = 0.05 * np.sin(17 * turn) + 0.03 * np.sin(41 * turn + part)
        ball = np.hypot(x / look.width / 1.12, (y + 30) / 92)
        back = soft((1.03 + curls - ball) * 60)
    elif style == "bun":
        back = soft(25 - np.hypot(x, y + 110))
    return cap, back


def render_head(look, rng):
    """The head without what moves, and where it covers what is behind.

    Arguments
    ---------
    look : Look
        The talker.
    rng : numpy.random.Generator
        Source of chance for hair strands, parting and freckles.

    Returns
    -------
    head : PIL.Image.Image
        RGB picture of the canvas.
    cover : PIL.Image.Image
        8-bit mask of the canvas, 255 where the head is.

    Example
    -------
    >>> from vavl_sb.corpora.look import draw_look
    >>> rng = np.random.default_rng(0)
    >>> head, cover = render_head(draw_look(rng, False), rng)
    >>> head.size == cover.size
    True
    """
    x, y = canvas_grid()
    z, rho = _height(x, y, look)
    skin = np.ones(x.shape + (3,), np.float32) * np.array(look.skin)
    blush = 0.5 * _pair(x, y, 36, 18, 15, 12) + 0.4 * _blob(x, y, 0, 18, 9, 7)
    skin *= 1 - blush[..., None] * np.array([0.02, 0.17, 0.15])
    beard = _blob(x, y, 0, 72, 44, 24) + 0.6 * _blob(x, y, 0, 34, 20, 6)
    skin *= 1 - look.stubble * np.clip(beard, 0, 1)[..., None] * 0.75
    grain = rng.normal(0, 1.5, x.shape)
    face = _to_image(_shade(z, look, skin) + grain[..., None])

    cap, back = _hair_masks(x, y, rho, look, rng)
    strands = _strands(rng, x.shape, look)
    head = strands.point(lambda value: int(value * 0.62))
    ear = 1 - _pair_distance(x, y, look.width - 1, -4, 10, 19)
    ears = np.clip(ear * 12, 0, 1)
    ear_skin = (
        np.array(look.skin) * (0.62 + 0.25 * np.clip(ear, 0, 1))[..., None]
    )
    _paste(head, _to_image(ear_skin), ears)
    skull = np.clip((1 - rho) * 60, 0, 1)
    _paste(head, face, skull)
    _paste(head, strands, cap)
    cover = np.maximum.reduce([skull, ears, cap, back])
    return head, _to_image(cover * 255)


def _pair_distance(x, y, cx, cy, rx, ry):
    """Squared radius of the nearer of two mirrored ellipses."""
    return ((np.abs(x) - cx) / rx) ** 2 + ((y - cy) / ry) ** 2


def render_backdrop(look, rng, size=(480, 360)):
    """Wall, neck and shoulders: all of a frame but the head.

    Arguments
    ---------
    look : Look
        The talker.
    rng : numpy.random.Generator
        Source of chance for the folds of the wall's cloth.
    size : tuple of int
        Width and height of the frame in pixels.

    Returns
    -------
    PIL.Image.Image
        RGB picture of `size`.

    Example
    -------
    >>> from vavl_sb.corpora.look import draw_look
    >>> rng = np.random.default_rng(0)
    >>> render_backdrop(draw_look(rng, False), rng).size
    (480, 360)
    """
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    unit = height / 360
    cx, cy = (c * unit for c in look.centre)
    fall = 1.08 + 0.3 * look.light[0] * (x - cx) / width - 0.18 * y / height
    folds = np.sin(
        x / (30 * unit) + 0.6 * np.sin(y / (90 * unit)) + rng.uniform(0, 6)
    )
    wall = np.array(look.wall) * (fall + 0.025 * folds)[..., None]
    wall += rng.normal(0, 0.7, x.shape)[..., None]
    frame = _to_image(wall)

    # From here on in head units.
    x, y = (x - cx) / (look.scale * unit), (y - cy) / (look.scale * unit)
    lean = look.light[0]
    slope = np.clip((np.abs(x) - 30) / 95, 0, 1)
    top = 118 + 34 * slope**1.6 + 14 * np.clip(np.abs(x) / 118 - 1, 0, None) * 9
    shade = 0.86 + 0.25 * lean * x / 130 - 0.22 * slope
    collar = np.exp(-(((top + 4 - y) / 2.5) ** 2)) * 0.25
    shirt = np.array(look.shirt) * (shade - collar)[..., None]
    neck_w = look.width * 0.62 + 10 * np.clip((y - 96) / 30, 0, 1) ** 2
    around = np.clip(1 - (x / neck_w) ** 2, 0, 1)
    shadow = 0.5 + 0.5 * np.clip((y - 86) / 40, 0, 1)
    light = (0.45 + 0.5 * np.sqrt(around) + 0.25 * lean * x / neck_w) * shadow
    neck = np.array(look.skin) * light[..., None]
    scoop = top + 14 * np.clip(1 - (x / 46) ** 2, 0, 1)
    _paste(
        frame,
        _to_image(neck),
        np.clip((neck_w - np.abs(x)) * 0.8, 0, 1) * (y > 40),
    )
    _paste(frame, _to_image(shirt), np.clip((y - scoop) * 0.8, 0, 1))
    return frame
