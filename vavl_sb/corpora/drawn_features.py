"""The moving parts of a drawn face: brows, eyes, nose, mouth and wrinkles.

All shapes are functions of seven expression axes, after the action units (AU)
of the Facial Action Coding System (Ekman & Friesen, 1978) given with each.

Authors
 * The vavl_sb authors 2026
"""

import numpy as np
from PIL import ImageDraw

from vavl_sb.corpora.drawn_head import EYE, MOUTH_Y, SUPERSAMPLE

# Axis: about -1..1, 0 at rest.
FACE_AXES = (
    "brow_raise",  # AU 2 up, AU 4 down
    "brow_inner",  # AU 1: inner ends up; down with AU 4
    "eye_open",  # AU 5 open, AU 7 and 44 narrow
    "smile",  # AU 12 corners up (with AU 6), AU 15 corners down
    "stretch",  # AU 20: wide mouth; pursed below 0 (AU 18)
    "gap",  # AU 25 and 26: mouth held open
    "sneer",  # AU 9 and 10: nose wrinkled, upper lip raised
)

_U = np.linspace(-1, 1, 17)
_T = np.linspace(0, 1, 7)
_BEND = np.stack([(1 - _T) ** 2, 2 * _T * (1 - _T), _T**2], axis=1)


def _bend(start, mid, end):
    """Quadratic Bezier curve through seven points."""
    return _BEND @ np.array([start, mid, end])


class _Pen:
    """Draws shapes given in head units on a part of the head's canvas."""

    def __init__(self, image, offset):
        self.draw = ImageDraw.Draw(image, "RGBA")
        self.offset = offset

    def _pixels(self, points):
        return ((points + self.offset) * SUPERSAMPLE).ravel().tolist()

    def fill(self, points, colour):
        self.draw.polygon(self._pixels(points), colour)

    def ellipse(self, cx, cy, rx, ry, colour):
        box = np.array([[cx - rx, cy - ry], [cx + rx, cy + ry]])
        self.draw.ellipse(self._pixels(box), colour)

    def frame(self, cx, cy, rx, ry, colour):
        box = np.array([[cx - rx, cy - ry], [cx + rx, cy + ry]])
        self.draw.rounded_rectangle(
            self._pixels(box), radius=18, outline=colour, width=4
        )

    def line(self, points, colour, width, strength):
        """A soft line: two strokes, the inner one narrower."""
        alpha = int(170 * min(strength, 1.0))
        if alpha < 4:
            return
        pixels = self._pixels(np.asarray(points, float))
        for share in (1.0, 0.5):
            self.draw.line(
                pixels,
                (*colour, alpha),
                width=max(1, round(width * share * SUPERSAMPLE)),
            )


def _between(upper, lower):
    """Closed polygon between two curves of equal direction."""
    return np.concatenate([upper, lower[::-1]])


def _curve(x, y):
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    return points


class FeatureBrush:
    """Draws the moving parts of one talker's face.

    Arguments
    ---------
    look : Look
        The talker.

    Example
    -------
    >>> from PIL import Image
    >>> from vavl_sb.corpora.look import draw_look
    >>> brush = FeatureBrush(draw_look(np.random.default_rng(0), True))
    >>> canvas = Image.new("RGB", (528, 672), (220, 180, 150))
    >>> calm = dict.fromkeys(FACE_AXES, 0.0)
    >>> middle = np.array([132.0, 168.0])
    >>> shut = brush.draw(canvas, middle, calm)
    >>> brush.draw(canvas, middle, calm, mouth=1.0) > shut
    True
    """

    def __init__(self, look):
        self.look = look
        skin = np.array(look.skin, float)
        self.crease = tuple((skin * (0.42, 0.34, 0.32)).astype(int).tolist())
        self.shade = tuple((skin * (0.62, 0.52, 0.5)).astype(int).tolist())
        lip = 0.55 * skin + 0.45 * np.array([186, 66, 76])
        self.lip = tuple(lip.astype(int).tolist())
        self.lip_dark = tuple((lip * 0.78).astype(int).tolist())
        self.lip_light = tuple(np.minimum(lip * 1.16, 255).astype(int).tolist())
        hair = np.array(look.hair, float)
        brow = hair * min(0.62, 90 / hair.max())
        self.brow = tuple(brow.astype(int).tolist())
        white = 236 * (look.ambient + 0.9 * (1 - look.ambient))
        self.white = (int(white), int(white * 0.985), int(white * 0.97))

    def draw(
        self,
        canvas,
        offset,
        face,
        mouth=0.0,
        rounding=0.0,
        blink=0.0,
        gaze=(0.0, 0.0),
    ):
        """Draws all moving parts.

        Arguments
        ---------
        canvas : PIL.Image.Image
            RGB picture of the head; changed in place.
        offset : numpy.ndarray
            ``(2,)``, what leads from head units to those of the canvas.
        face : dict
            Value of each of ``FACE_AXES``, about -1..1.
        mouth, rounding : float
            Opening of the mouth and rounding of the lips by speech, 0..1.
        blink : float
            0 open .. 1 shut.
        gaze : sequence of float
            Shift of the iris (x, y) in head units, about -3..3.

        Returns
        -------
        float
            How far the lips are apart, in head units.
        """
        pen = _Pen(canvas, offset)
        self._wrinkles(pen, face)
        for side in (-1, 1):
            self._eye(pen, side, face, blink, gaze)
            self._brow(pen, side, face)
        self._nose(pen, face)
        gap = self._mouth(pen, face, mouth, rounding)
        if self.look.glasses:
            self._glasses(pen)
        return gap

    def _eye(self, pen, side, face, blink, gaze):
        size = self.look.eye_size
        cx, cy = side * EYE[0], EYE[1]
        wide = 16.5 * size
        gape = size * (7.6 + 4.6 * face["eye_open"]) * (1 - blink)
        gape = max(gape, 0.4)
        droop = 1.6 * side * _U * max(face["brow_inner"], 0)
        frown = -2.0 * side * _U * min(face["brow_inner"], 0)
        x = cx + wide * _U
        upper = _curve(
            x, cy + droop - np.maximum(gape * (1 - _U**2) ** 0.7 + frown, 0.2)
        )
        lower = _curve(x, cy + droop + 0.72 * gape * (1 - _U**2) ** 0.8)
        pen.fill(_between(upper, lower), self.white)
        # The iris is cut by the lids: its part between the two curves.
        ix, iy, radius = cx + gaze[0], cy + gaze[1], 7.8 * size
        for colour, r in (
            (tuple(int(c * 0.55) for c in self.look.iris), radius),
            (self.look.iris, radius * 0.84),
            ((14, 12, 14), radius * 0.46),
        ):
            t = r * np.linspace(-1, 1, 15)
            half = np.sqrt(np.clip(r**2 - t**2, 0, None))
            top = np.interp(ix + t, upper[:, 0], upper[:, 1])
            base = np.interp(ix + t, lower[:, 0], lower[:, 1])
            over = np.clip(iy - half, top, base)
            under = np.clip(iy + half, top, base)
            pen.fill(
                _between(_curve(ix + t, over), _curve(ix + t, under)),
                colour,
            )
        if gape > 3.5:
            pen.ellipse(ix - 2.1, iy - 2.5, 1.2, 1.2, (255, 255, 255, 230))
        pen.line(lower, self.crease, 1.2, 0.45)
        pen.line(upper, (24, 18, 18), 2.6, 1.0)
        fold = upper + (0.0, -4.2 - 0.8 * face["eye_open"])
        pen.line(fold[2:-2], self.crease, 1.4, 0.5)

    def _brow(self, pen, side, face):
        base = -42.0 - 8.0 * face["brow_raise"]
        t = np.linspace(0, 1, 9)
        knit = 3.0 * max(-face["brow_raise"], 0)
        x = side * (11.5 - knit + 35.5 * t)
        slope = -12.5 * face["brow_inner"] * (1 - t) ** 1.3
        slope += 5.0 * face["brow_inner"] * t
        arch = -5.0 * np.sin(np.pi * np.clip(t * 0.92 + 0.12, 0, 1)) + 3.5 * t
        y = base + slope + arch + 3.0
        thick = self.look.brow_weight * (6.8 * (1 - 0.7 * t**1.6))
        thick[0] *= 0.72
        upper, lower = _curve(x, y - thick / 2), _curve(x, y + thick / 2)
        pen.fill(_between(upper, lower), (*self.brow, 235))
        pen.line(_curve(x, y), self.brow, 5.0 * self.look.brow_weight, 0.25)

    def _wrinkles(self, pen, face):
        raised, frown = face["brow_raise"], -face["brow_inner"]
        x = np.linspace(-30, 30, 11)
        for row in (-48.5, -55.5):
            arc = _curve(x, row - 4 * raised + 0.004 * x**2)
            pen.line(arc, self.shade, 2.4, 0.75 * raised)
        knit = max(frown, 0) + max(-raised, 0)
        for side in (-1, 1):
            pinch = [(side * 5.5, -46), (side * 4.2, -38), (side * 5.0, -31)]
            pen.line(pinch, self.crease, 2.4, 0.5 * knit)
            under = _U[2:-2]
            bag = _curve(
                side * EYE[0] + 13 * under,
                EYE[1] + 17 - 2.2 * face["smile"] - 0.9 * under**2,
            )
            pen.line(bag, self.shade, 2.6, 0.2 + 0.5 * face["smile"])

    def _nose(self, pen, face):
        nose, sneer = self.look.nose, max(face["sneer"], 0)
        lift = 3.2 * sneer
        for side in (-1, 1):
            cx, cy = side * 5.6 * nose, 24.5 - lift
            pen.ellipse(cx, cy, 3.2, 1.8, (*self.crease, 210))
            wing = 12.5 * nose + 1.6 * sneer
            edge = [
                (side * (wing - 1.5), 13 - lift),
                (side * wing, 19 - lift),
                (side * (wing - 2.5), 25 - lift),
            ]
            pen.line(edge, self.shade, 2.2, 0.65)
            for row in (-20, -13, -6):
                fold = [(side * 1.5, row + 2.5), (side * 8.5, row - 2.5)]
                pen.line(fold, self.crease, 2.2, 0.85 * sneer)
            cut = [(side * 13, -6), (side * 18, 3), (side * 20, 13)]
            pen.line(cut, self.shade, 3.0, 0.7 * sneer)

    def _mouth(self, pen, face, opening, rounding):
        """Draws the mouth; returns how far it is open, in head units."""
        smile, sneer = face["smile"], max(face["sneer"], 0)
        wide = 1 + 0.24 * face["stretch"] + 0.2 * max(smile, 0)
        wide = 24.0 * wide * (1 - 0.22 * rounding)
        gap = max(9.0 * face["gap"], 0.0) + 16.0 * opening + 0.8
        blunt = 2 + 2.2 * max(face["stretch"] - max(smile, 0), 0)
        bow = 1 - np.abs(_U) ** blunt
        corner = (
            MOUTH_Y - (12.5 if smile > 0 else 11.0) * smile * np.abs(_U) ** 1.7
        )
        middle = 2.0 * smile
        raised = 5.5 * sneer * (1 - _U**2) + 3.0 * sneer * np.exp(
            -((np.abs(_U) - 0.5) ** 2) / 0.05
        )
        x = wide * _U
        top = corner + (middle - 0.36 * gap) * bow - raised
        low = corner + (middle + 0.64 * gap) * bow - 0.25 * raised
        low = np.maximum(low, top)
        lips = self.look.lip_weight
        dip = 1 - 0.3 * np.exp(-((_U / 0.16) ** 2))
        round_off = (1 - _U**2) ** 0.6
        above = top - 5.2 * lips * (1 - 0.25 * max(smile, 0)) * round_off * dip
        below = low + 7.2 * lips * (1 - 0.2 * max(smile, 0)) * round_off
        outer = x * 1.06

        for side in (-1, 1):
            start = (side * 13 * self.look.nose, 21 - 3 * sneer)
            end = (side * (wide + 6), corner[0] + 1)
            mid = (side * (wide + 8.5), 0.5 * (start[1] + end[1]) - 1)
            fold = 0.12 + 0.62 * max(smile, 0.9 * sneer, 0)
            fold += 0.25 * max(-smile, 0)
            pen.line(_bend(start, mid, end), self.shade, 3.2, fold)
            if smile < 0:
                fall = [
                    (side * wide, corner[0]),
                    (side * (wide + 4), corner[0] + 8),
                ]
                pen.line(fall, self.shade, 2.6, -0.8 * smile)
        pen.fill(_between(_curve(outer, above), _curve(x, top)), self.lip_dark)
        pen.fill(_between(_curve(x, low), _curve(outer, below)), self.lip)
        shine = slice(4, 13)
        pen.line(
            _curve(x, 0.55 * low + 0.45 * below)[shine],
            self.lip_light,
            3.0 * lips,
            0.6,
        )
        hole = low - top
        if hole.max() > 1.4:
            self._inside(pen, x, top, low, max(smile, sneer, 0))
        pen.line(_curve(x, top), self.crease, 1.6, 0.9)
        under = _curve(x * 0.6, below + 3.2)
        pen.line(under, self.shade, 3.0, 0.4)
        return gap

    def _inside(self, pen, x, top, low, bare):
        """Cavity, tongue and teeth between the lips."""
        hole = low - top
        cavity = _between(_curve(x, top), _curve(x, low))
        pen.fill(cavity, (58, 20, 24))
        tongue = low - 0.34 * hole * (np.abs(_U) < 0.75)
        pen.fill(_between(_curve(x, tongue), _curve(x, low)), (158, 74, 78))
        row = np.minimum((0.3 + 0.3 * bare) * hole, 6.5)
        row = row * (np.abs(_U) < 0.93)
        pen.fill(
            _between(_curve(x, top), _curve(x, top + row)),
            (238, 234, 224),
        )

    def _glasses(self, pen):
        frame = (40, 36, 40)
        for side in (-1, 1):
            cx = side * EYE[0]
            pen.frame(cx, EYE[1] + 1, 21, 16, frame)
            arm = [(cx + side * 21, EYE[1] - 4), (side * 64, EYE[1] - 6)]
            pen.line(arm, frame, 2.2, 0.9)
        bridge = [(-6.5, EYE[1] - 3), (0, EYE[1] - 5.5), (6.5, EYE[1] - 3)]
        pen.line(bridge, frame, 2.4, 1.0)
