"""Draws the moving parts of a face, frame by frame.

All shapes are functions of six expression axes, based on action units (AU) of
the Facial Action Coding System (Ekman & Friesen, 1978). Coordinates are those
of :mod:`synthetic.head`.
"""

import numpy as np
from PIL import Image, ImageDraw

from synthetic.head import (
    CANVAS,
    EYE,
    MOUTH_Y,
    SUPERSAMPLE,
    render_backdrop,
    render_head,
)

# Values of about -1..1; 0 is neutral.
AXES = (
    "brow_raise",  # AU 2 up, AU 4 down
    "brow_inner",  # AU 1: inner ends up; down with AU 4
    "eye_open",  # AU 5 open, AU 7 and 44 narrow
    "smile",  # AU 12 corners up (with AU 6), AU 15 corners down
    "gap",  # AU 25 and 26: mouth held open
    "sneer",  # AU 9 and 10: nose wrinkled, upper lip raised
)

_U = np.linspace(-1, 1, 17)
NECK = 100.0  # pivot of the head below its centre, in head units


class _Pen:
    """Draws shapes in head units on the head's canvas."""

    def __init__(self, image):
        self.draw = ImageDraw.Draw(image, "RGBA")

    def _pixels(self, x, y):
        points = np.stack(np.broadcast_arrays(x, y), axis=1)
        points = (points + np.array(CANVAS) / 2) * SUPERSAMPLE
        return points.ravel().tolist()

    def fill(self, x, upper, lower, colour):
        """Fills the area between two curves."""
        x, y = np.r_[x, x[::-1]], np.r_[upper, lower[::-1]]
        self.draw.polygon(self._pixels(x, y), colour)

    def line(self, x, y, colour, width, strength=1.0):
        """Draws a line with opacity `strength` (0..1)."""
        alpha = int(230 * min(strength, 1.0))
        if alpha > 4:
            width = round(width * SUPERSAMPLE)
            pixels = self._pixels(np.asarray(x, float), np.asarray(y, float))
            self.draw.line(pixels, (*colour, alpha), width, joint="curve")


class FacePainter:
    """Draws the frames of one speaker.

    Arguments
    ---------
    appearance : Appearance
        Appearance of the speaker.
    rng : numpy.random.Generator
        Source of random numbers for hair and grain.
    size : tuple of int
        Width and height of a frame in pixels, 4:3.

    Example
    -------
    >>> from synthetic.appearance import draw_appearance
    >>> rng = np.random.default_rng(0)
    >>> painter = FacePainter(draw_appearance(rng, True), rng)
    >>> painter.paint([0, 0, 0, 1.0, 0, 0]).size
    (480, 360)
    """

    def __init__(self, appearance, rng, size=(480, 360)):
        self.appearance = appearance
        self.size = size
        self.backdrop = render_backdrop(appearance, rng, size)
        self.head, self.cover = render_head(appearance, rng)
        skin, hair = np.array(appearance.skin), np.array(appearance.hair)
        lip = 0.55 * skin + 0.45 * np.array([186, 66, 76])

        def colour(values):
            return tuple(int(c) for c in np.clip(values, 0, 255))

        self.crease = colour(skin * (0.5, 0.42, 0.4))
        self.lip, self.lip_dark = colour(lip), colour(lip * 0.78)
        # Dark on any skin, so that video compression does not remove it.
        self.brow = colour(0.35 * np.minimum(hair, skin))

    def paint(self, expression, mouth=0.0, blink=0.0, lean=0.0, sway=(0, 0)):
        """Draws one frame.

        Arguments
        ---------
        expression : sequence of float
            Values of ``AXES``, about -1..1.
        mouth : float
            Opening of the mouth by speech, 0..1.
        blink : float
            0 open .. 1 shut.
        lean : float
            Radians, clockwise.
        sway : sequence of float
            Shift of the head (x, y) in head units.

        Returns
        -------
        PIL.Image.Image
            RGB, of the painter's size.
        """
        face = dict(zip(AXES, expression, strict=True))
        canvas = self.head.copy()
        pen = _Pen(canvas)
        self._creases(pen, face)
        for side in (-1, 1):
            self._eye(pen, side, face, blink)
            self._brow(pen, side, face)
        self._mouth(pen, face, mouth)
        frame = self.backdrop.copy()
        place = self._placement(lean, np.array(sway))
        how = (Image.Transform.AFFINE, place, Image.Resampling.BILINEAR)
        cover = self.cover.transform(self.size, *how)
        frame.paste(canvas.transform(self.size, *how), (0, 0), cover)
        return frame

    def _placement(self, lean, sway):
        """Returns the affine map from pixels of the frame to the canvas."""
        unit = self.size[1] / 360
        scale = self.appearance.scale * unit
        centre = np.array(self.appearance.centre) * unit + scale * sway
        turn = np.array(
            [[np.cos(lean), np.sin(lean)], [-np.sin(lean), np.cos(lean)]]
        )
        neck = np.array([0, NECK])
        shift = neck - turn @ (centre / scale + neck) + np.array(CANVAS) / 2
        matrix = np.column_stack([turn / scale, shift]) * SUPERSAMPLE
        return matrix.ravel().tolist()

    def _eye(self, pen, side, face, blink):
        """Draws white, iris, pupil and lids of an eye."""
        size = self.appearance.eye_size
        x = side * EYE[0] + 16.5 * size * _U
        gape = size * (8.0 + 4.8 * face["eye_open"]) * (1 - blink)
        gape = max(gape, 0.4)
        # Lids slant with the brows.
        slant = 1.8 * side * _U * face["brow_inner"]
        upper = EYE[1] + slant - gape * (1 - _U**2) ** 0.7
        lower = EYE[1] + slant + 0.72 * gape * (1 - _U**2) ** 0.8
        pen.fill(x, upper, lower, (232, 229, 225))
        for colour, radius in (
            (self.appearance.iris, 7.8 * size),
            ((14, 12, 14), 3.6 * size),
        ):
            # Clipped by the lids.
            half = np.sqrt(1 - _U**2) * radius
            across = side * EYE[0] + radius * _U
            top = np.maximum(EYE[1] - half, np.interp(across, x, upper))
            low = np.minimum(EYE[1] + half, np.interp(across, x, lower))
            pen.fill(across, np.minimum(top, low), low, colour)
        pen.line(x, upper, (24, 18, 18), 2.6)
        pen.line(x, lower, self.crease, 1.2, 0.4)

    def _brow(self, pen, side, face):
        """Draws a brow, thick at its inner end."""
        t = np.linspace(0, 1, 9)
        knit = 3.0 * max(-face["brow_raise"], 0)
        x = side * (11.5 - knit + 35.5 * t)
        slope = face["brow_inner"] * (5.0 * t - 13.0 * (1 - t) ** 1.3)
        arch = 3.5 * t - 5.0 * np.sin(np.pi * (0.92 * t + 0.08))
        y = -39.0 - 8.5 * face["brow_raise"] + slope + arch
        thick = self.appearance.brow_weight * 3.6 * (1 - 0.7 * t**1.6)
        pen.fill(x, y - thick, y + thick, self.brow)

    def _creases(self, pen, face):
        """Draws creases of forehead, brows, nose and cheeks."""
        nose, sneer = self.appearance.nose, max(face["sneer"], 0)
        smile, lift = face["smile"], 3.2 * sneer
        brow = np.linspace(-30, 30, 11)
        for row in (-53, -60):
            rise = row - 4 * face["brow_raise"] + 0.004 * brow**2
            pen.line(brow, rise, self.crease, 2.0, 0.6 * face["brow_raise"])
        frown = max(-face["brow_inner"], 0) + max(-face["brow_raise"], 0)
        corner = MOUTH_Y - 12 * smile
        for side in (-1, 1):
            pen.line(
                [side * 5.5, side * 4.5], [-46, -31], self.crease, 2.4,
                0.5 * frown,
            )  # fmt: skip
            pen.line(
                [side * 3, side * 8 * nose], [25 - lift, 24 - lift],
                self.crease, 3.0,
            )  # fmt: skip
            pen.line(
                side * np.array([11, 12.5, 10]) * nose,
                np.array([13, 19, 25]) - lift, self.crease, 2.2, 0.5,
            )  # fmt: skip
            for row in (-20, -12, -4):
                pen.line(
                    [side * 1.5, side * 9], [row + 3, row - 3], self.crease,
                    2.2, 0.9 * sneer,
                )  # fmt: skip
            pen.line(
                side * np.array([14 * nose, 30, 34]), [20 - lift, 34, corner],
                self.crease, 2.6, 0.1 + 0.5 * max(smile, sneer, 0),
            )  # fmt: skip

    def _mouth(self, pen, face, opening):
        """Draws lips, teeth and tongue."""
        smile, sneer = face["smile"], max(face["sneer"], 0)
        gap = 9.0 * max(face["gap"], 0) + 16.0 * opening + 0.8
        x = 24.0 * (1 + 0.2 * max(smile, 0)) * _U
        corner = MOUTH_Y + smile * (2 - 14 * np.abs(_U) ** 1.7)
        raised = 6.5 * sneer * (1 - _U**2)
        top = corner - 0.36 * gap * (1 - _U**2) - raised
        low = corner + 0.64 * gap * (1 - _U**2) - 0.25 * raised
        full = self.appearance.lip_weight * (1 - _U**2) ** 0.6
        cleft = 1 - 0.3 * np.exp(-((_U / 0.16) ** 2))
        pen.fill(x * 1.06, top - 5.2 * full * cleft, top, self.lip_dark)
        pen.fill(x * 1.06, low, low + 7.2 * full, self.lip)
        hole = low - top
        pen.fill(x, top, low, (58, 20, 24))
        middle = np.abs(_U) < 0.75
        pen.fill(x, low - 0.34 * hole * middle, low, (158, 74, 78))
        teeth = np.minimum(0.35 * hole, 6.5) * middle
        pen.fill(x, top, top + teeth, (238, 234, 224))
