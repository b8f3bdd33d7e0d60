"""A drawn talking face: expression, blinks, sway and lips that follow speech.

What does not move is rendered once a talker (see
:mod:`vavl_sb.corpora.drawn_head`); what moves is drawn onto a copy of it for
each frame (:mod:`vavl_sb.corpora.drawn_features`), and the head is set into
the backdrop through a mesh that turns it, drops its jaw and leans it.

Authors
 * The vavl_sb authors 2026
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vavl_sb.corpora.drawn_features import FACE_AXES, FeatureBrush
from vavl_sb.corpora.drawn_head import (
    CANVAS,
    SUPERSAMPLE,
    render_backdrop,
    render_head,
)

_GRID = (5, 7)  # cells of the mesh, across and down


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
    >>> from vavl_sb.corpora.look import draw_look
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
        self.brush = FeatureBrush(look)

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
        values = track.expression[index].tolist()
        face = dict(zip(FACE_AXES, values, strict=True))
        canvas = self.head.copy()
        gap = self.brush.draw(
            canvas,
            self.offset,
            face,
            mouth=float(track.mouth[index]),
            rounding=float(track.rounding[index]),
            blink=float(track.blink[index]),
            gaze=track.gaze[index],
        )
        frame = self.backdrop.copy()
        self._set_in(frame, canvas, track, index, 0.62 * gap)
        return frame

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
