"""A drawn talking face: expression, blinks, sway and lips that follow speech.

What does not move is rendered once a talker (see
:mod:`vavl_sb.corpora.drawn_head`); here brows, eyes, mouth and wrinkles are
drawn onto a copy of it for each frame, and the head is set into the backdrop
through a mesh that turns it, drops its jaw and leans it. All shapes are
functions of seven expression axes, after the action units of the Facial Action
Coding System (Ekman & Friesen, 1978) given with each.

Authors
 * The vavl_sb authors 2026
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vavl_sb.corpora.drawn_head import (
    CANVAS,
    EYE,
    MOUTH_Y,
    SUPERSAMPLE,
    render_backdrop,
    render_head,
)

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
_GRID = (6, 8)  # cells of the mesh, across and down


@dataclass(frozen=True)
class FaceTrack:
    """What a face does in each of its n frames.

    Arguments
    ---------
    expression : numpy.ndarray
        ``(n, 7)``, the axes of ``FACE_AXES``, about -1..1.
    mouth : numpy.ndarray
        ``(n,)``, opening of the mouth by speech, 0..1.
    rounding : numpy.ndarray
        ``(n,)``, rounding of the lips by speech, 0..1.
    blink : numpy.ndarray
        ``(n,)``, 0 open .. 1 shut.
    gaze : numpy.ndarray
        ``(n, 2)``, shift of the iris in head units (about -3..3).
    turn : numpy.ndarray
        ``(n, 2)``, shift of the features by turning and nodding, head units.
    lean : numpy.ndarray
        ``(n,)``, radians, clockwise.
    sway : numpy.ndarray
        ``(n, 2)``, shift of the head in head units.
    """

    expression: np.ndarray
    mouth: np.ndarray
    rounding: np.ndarray
    blink: np.ndarray
    gaze: np.ndarray
    turn: np.ndarray
    lean: np.ndarray
    sway: np.ndarray


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
                joint="curve" if width > 3 else None,
            )


def _between(upper, lower):
    """Closed polygon between two curves of equal direction."""
    return np.concatenate([upper, lower[::-1]])


def _curve(x, y):
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    return points


class FacePainter:
    """Paints the frames of one talker.

    Arguments
    ---------
    look : Look
        The talker.
    rng : numpy.random.Generator
        Source of chance for what no field of `look` holds (hair strands...).
    size : tuple of int
        Width and height of a frame in pixels, 4:3.

    Example
    -------
    >>> from vavl_sb.corpora.drawn_head import draw_look
    >>> rng = np.random.default_rng(0)
    >>> painter = FacePainter(draw_look(rng, True), rng)
    >>> track = still_track({"smile": 1.0})
    >>> painter.paint(track, 0).size
    (480, 360)
    """

    def __init__(self, look, rng, size=(480, 360)):
        self.look = look
        self.size = size
        self.backdrop = render_backdrop(look, rng, size)
        head, cover = render_head(look, rng)
        # Only the part of the canvas that the head covers is worked on.
        box = cover.getbbox()
        self.head, self.cover = head.crop(box), cover.crop(box)
        self.offset = np.array(CANVAS) / 2 - np.array(box[:2]) / SUPERSAMPLE
        skin = np.array(look.skin, float)
        self.crease = tuple((skin * (0.42, 0.34, 0.32)).astype(int).tolist())
        self.shade = tuple((skin * (0.62, 0.52, 0.5)).astype(int).tolist())
        lip = 0.55 * skin + 0.45 * np.array([186, 66, 76])
        self.lip = tuple(lip.astype(int).tolist())
        self.lip_dark = tuple((lip * 0.78).astype(int).tolist())
        self.lip_light = tuple(np.minimum(lip * 1.16, 255).astype(int).tolist())
        brow = np.minimum(np.array(look.hair) * 0.62, 90)
        self.brow = tuple(brow.astype(int).tolist())
        white = 236 * (look.ambient + 0.9 * (1 - look.ambient))
        self.white = (int(white), int(white * 0.985), int(white * 0.97))

    def paint(self, track, index):
        """Paints one frame.

        Arguments
        ---------
        track : FaceTrack
            What the face does.
        index : int
            Which of the track's frames.

        Returns
        -------
        PIL.Image.Image
            RGB, of the painter's size.
        """
        face = dict(zip(FACE_AXES, track.expression[index].tolist()))
        canvas = self.head.copy()
        draw = _Pen(canvas, self.offset)
        opening = float(track.mouth[index])
        self._wrinkles(draw, face)
        for side in (-1, 1):
            self._eye(draw, side, face, track.blink[index], track.gaze[index])
            self._brow(draw, side, face)
        self._nose(draw, face)
        gap = self._mouth(draw, face, opening, float(track.rounding[index]))
        if self.look.glasses:
            self._glasses(draw)
        frame = self.backdrop.copy()
        self._set_in(frame, canvas, track, index, 0.62 * gap)
        return frame

    def _eye(self, draw, side, face, blink, gaze):
        size = self.look.eye_size
        cx, cy = side * EYE[0], EYE[1]
        wide = 16.0 * size
        gape = size * (7.2 + 3.8 * face["eye_open"]) * (1 - blink)
        gape = max(gape, 0.4)
        droop = 1.6 * side * _U * max(face["brow_inner"], 0)
        frown = -2.0 * side * _U * min(face["brow_inner"], 0)
        x = cx + wide * _U
        upper = _curve(
            x, cy + droop - np.maximum(gape * (1 - _U**2) ** 0.7 + frown, 0.2)
        )
        lower = _curve(x, cy + droop + 0.72 * gape * (1 - _U**2) ** 0.8)
        draw.fill(_between(upper, lower), self.white)
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
            draw.fill(
                _between(_curve(ix + t, over), _curve(ix + t, under)),
                colour,
            )
        if gape > 3.5:
            draw.ellipse(ix - 2.1, iy - 2.5, 1.2, 1.2, (255, 255, 255, 230))
        draw.line(lower, self.crease, 1.2, 0.45)
        draw.line(upper, (24, 18, 18), 2.6, 1.0)
        fold = upper + (0.0, -4.2 - 0.8 * face["eye_open"])
        draw.line(fold[2:-2], self.crease, 1.4, 0.5)

    def _brow(self, draw, side, face):
        base = -41.0 - 7.5 * face["brow_raise"]
        t = np.linspace(0, 1, 9)
        knit = 3.0 * max(-face["brow_raise"], 0)
        x = side * (11.5 - knit + 35.5 * t)
        slope = -10.5 * face["brow_inner"] * (1 - t) ** 1.3
        slope += 4.5 * face["brow_inner"] * t
        arch = -5.0 * np.sin(np.pi * np.clip(t * 0.92 + 0.12, 0, 1)) + 3.5 * t
        y = base + slope + arch + 3.0
        thick = self.look.brow_weight * (5.4 * (1 - 0.72 * t**1.6))
        thick[0] *= 0.72
        upper, lower = _curve(x, y - thick / 2), _curve(x, y + thick / 2)
        draw.fill(_between(upper, lower), (*self.brow, 235))
        draw.line(_curve(x, y), self.brow, 4.0 * self.look.brow_weight, 0.25)

    def _wrinkles(self, draw, face):
        raised, frown = face["brow_raise"], -face["brow_inner"]
        x = np.linspace(-30, 30, 11)
        for row in (-48.5, -55.5):
            arc = _curve(x, row - 4 * raised + 0.004 * x**2)
            draw.line(arc, self.shade, 2.4, 0.75 * raised)
        knit = max(frown, 0) + max(-raised, 0)
        for side in (-1, 1):
            pinch = [(side * 5.5, -46), (side * 4.2, -38), (side * 5.0, -31)]
            draw.line(pinch, self.crease, 2.4, 0.5 * knit)
            bag = _curve(
                side * EYE[0] + 13 * _U[2:-2],
                EYE[1] + 14 - 2.2 * face["smile"] - 3.5 * _U[2:-2] ** 2 * -0.6,
            )
            bag[:, 1] -= 3.0 * (1 - _U[2:-2] ** 2) * -1
            draw.line(bag, self.shade, 2.6, 0.2 + 0.5 * face["smile"])

    def _nose(self, draw, face):
        nose, sneer = self.look.nose, max(face["sneer"], 0)
        lift = 3.2 * sneer
        for side in (-1, 1):
            cx, cy = side * 5.6 * nose, 24.5 - lift
            draw.ellipse(cx, cy, 3.2, 1.8, (*self.crease, 210))
            wing = 12.5 * nose + 1.6 * sneer
            edge = [
                (side * (wing - 1.5), 13 - lift),
                (side * wing, 19 - lift),
                (side * (wing - 2.5), 25 - lift),
            ]
            draw.line(edge, self.shade, 2.2, 0.65)
            for row in (-20, -13, -6):
                fold = [(side * 1.5, row + 2.5), (side * 8.5, row - 2.5)]
                draw.line(fold, self.crease, 2.2, 0.85 * sneer)
            cut = [(side * 13, -6), (side * 18, 3), (side * 20, 13)]
            draw.line(cut, self.shade, 3.0, 0.7 * sneer)

    def _mouth(self, draw, face, opening, rounding):
        """Draws the mouth; returns how far it is open, in head units."""
        smile, sneer = face["smile"], max(face["sneer"], 0)
        wide = 1 + 0.24 * face["stretch"] + 0.2 * max(smile, 0)
        wide = 21.5 * wide * (1 - 0.22 * rounding)
        gap = max(6.0 * face["gap"], 0.0) + 17.0 * opening + 0.8
        blunt = 2 + 2.2 * max(face["stretch"] - max(smile, 0), 0)
        bow = 1 - np.abs(_U) ** blunt
        corner = (
            MOUTH_Y - (9.5 if smile > 0 else 8.0) * smile * np.abs(_U) ** 1.7
        )
        middle = 2.0 * smile
        raised = 4.2 * sneer * (1 - _U**2) + 2.4 * sneer * np.exp(
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
            draw.line(_bend(start, mid, end), self.shade, 3.2, fold)
            if smile < 0:
                fall = [
                    (side * wide, corner[0]),
                    (side * (wide + 4), corner[0] + 8),
                ]
                draw.line(fall, self.shade, 2.6, -0.8 * smile)
        draw.fill(_between(_curve(outer, above), _curve(x, top)), self.lip_dark)
        draw.fill(_between(_curve(x, low), _curve(outer, below)), self.lip)
        shine = slice(4, 13)
        draw.line(
            _curve(x, 0.55 * low + 0.45 * below)[shine],
            self.lip_light,
            3.0 * lips,
            0.6,
        )
        hole = low - top
        if hole.max() > 1.4:
            self._inside(draw, x, top, low, max(smile, sneer, 0))
        draw.line(_curve(x, top), self.crease, 1.6, 0.9)
        under = _curve(x * 0.6, below + 3.2)
        draw.line(under, self.shade, 3.0, 0.4)
        return gap

    def _inside(self, draw, x, top, low, bare):
        """Cavity, tongue and teeth between the lips."""
        hole = low - top
        cavity = _between(_curve(x, top), _curve(x, low))
        draw.fill(cavity, (58, 20, 24))
        tongue = low - 0.34 * hole * (np.abs(_U) < 0.75)
        draw.fill(_between(_curve(x, tongue), _curve(x, low)), (158, 74, 78))
        row = np.minimum((0.3 + 0.3 * bare) * hole, 6.5)
        row = row * (np.abs(_U) < 0.93)
        draw.fill(
            _between(_curve(x, top), _curve(x, top + row)),
            (238, 234, 224),
        )

    def _glasses(self, draw):
        frame = (40, 36, 40)
        for side in (-1, 1):
            cx = side * EYE[0]
            draw.frame(cx, EYE[1] + 1, 21, 16, frame)
            arm = [(cx + side * 21, EYE[1] - 4), (side * 64, EYE[1] - 6)]
            draw.line(arm, frame, 2.2, 0.9)
        bridge = [(-6.5, EYE[1] - 3), (0, EYE[1] - 5.5), (6.5, EYE[1] - 3)]
        draw.line(bridge, frame, 2.4, 1.0)

    def _set_in(self, frame, canvas, track, index, drop):
        """Warps the head's canvas into the frame."""
        look, unit = self.look, self.size[1] / 360
        scale = look.scale * unit
        cx = look.centre[0] * unit + scale * track.sway[index, 0]
        cy = look.centre[1] * unit + scale * track.sway[index, 1]
        # Room for what lean and jaw move out of the head's own box.
        width = int(scale * (self.head.width / SUPERSAMPLE + 16))
        height = int(scale * (self.head.height / SUPERSAMPLE + 20))
        left = round(cx - scale * (self.offset[0] + 8))
        upper = round(cy - scale * (self.offset[1] + 4))
        columns = np.linspace(0, width, _GRID[0] + 1).astype(int)
        rows = np.linspace(0, height, _GRID[1] + 1).astype(int)
        x, y = np.meshgrid(columns + left - cx, rows + upper - cy)
        angle = look.tilt + track.lean[index]
        cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
        # Lean about the neck rather than about the middle of the face.
        neck = 100 * scale
        hx = cos * x + sin * (y - neck)
        hy = -sin * x + cos * (y - neck) + 100
        bulge = np.clip(1 - (hx / 72) ** 2 - (hy / 108) ** 2, 0, None)
        hx = hx - track.turn[index, 0] * bulge
        hy = hy - track.turn[index, 1] * bulge
        fall = np.clip((hy - 52) / 34, 0, 1)
        hy = hy - drop * fall * fall * (3 - 2 * fall)
        source = (np.stack([hx, hy], -1) + self.offset) * SUPERSAMPLE
        source = source.tolist()
        mesh = []
        for j in range(_GRID[1]):
            for i in range(_GRID[0]):
                box = (columns[i], rows[j], columns[i + 1], rows[j + 1])
                quad = (
                    *source[j][i],
                    *source[j + 1][i],
                    *source[j + 1][i + 1],
                    *source[j][i + 1],
                )
                mesh.append((tuple(int(n) for n in box), quad))
        how = (Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
        head = canvas.transform((width, height), *how)
        cover = self.cover.transform((width, height), *how)
        frame.paste(head, (left, upper), cover)


def _bend(start, mid, end):
    """Quadratic Bezier curve through seven points."""
    t = np.linspace(0, 1, 7)[:, None]
    start, mid, end = (np.array(p, float) for p in (start, mid, end))
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * mid + t**2 * end


def still_track(face=None, mouth=0.0, frames=1):
    """A track of a face that holds one expression, for tests and pictures.

    Arguments
    ---------
    face : dict
        Values of some of ``FACE_AXES``; the others are 0.
    mouth : float
        Opening of the mouth, 0..1.
    frames : int
        Number of frames.

    Returns
    -------
    FaceTrack

    Example
    -------
    >>> still_track({"gap": 0.5}, frames=2).expression.shape
    (2, 7)
    """
    values = [(face or {}).get(axis, 0.0) for axis in FACE_AXES]
    zero, pairs = np.zeros(frames), np.zeros((frames, 2))
    return FaceTrack(
        expression=np.tile(values, (frames, 1)),
        mouth=np.full(frames, float(mouth)),
        rounding=zero,
        blink=zero,
        gaze=pairs,
        turn=pairs,
        lean=zero,
        sway=pairs,
    )
