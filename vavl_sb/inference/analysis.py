"""One pass over a clip: the whole clip's answer, and all that is asked besides.

Every way to ask a model about a file ends here: the clip's emotion, the
emotion over time, the face crops that were used and where the time went come
out of the same pass, in memory that does not grow with the clip.

Authors
 * The vavl_sb authors 2026
"""

from dataclasses import dataclass, field

import numpy as np

from vavl_sb.features.chunks import read_pieces
from vavl_sb.inference.prediction import check_modality, choose, mean_outputs
from vavl_sb.inference.sliding_windows import FeatureWindows, spans
from vavl_sb.media.demuxing import check_file
from vavl_sb.media.reader import probe
from vavl_sb.utils.errors import EncoderError, MediaError
from vavl_sb.utils.logger import get_logger
from vavl_sb.utils.profiler import Stopwatch

logger = get_logger(__name__)

# A clip of so many seconds at most is taken whole, as in training, where only
# the rarest clip is longer. No window may be longer either.
WHOLE = 30.0

# A longer clip is taken in pieces of so many seconds, about as long as the
# longest clips of the corpora: benchmarks/README.md has the memory.
PIECE = 6.0

STAGES = ("decode", "faces", "audio encoder", "visual encoder", "heads")
WORDS = {"audio": "sound", "visual": "picture"}


@dataclass
class TimedEmotion:
    """What a model says about a window of a clip.

    Arguments
    ---------
    start, end : float
        Seconds from the start of the clip.
    emotion : vavl_sb.inference.emotion.Emotion
        None where the window has neither sound nor a face, or lacks what the
        modality that was asked for needs.
    """

    start: float
    end: float
    emotion: object = None


@dataclass
class Analysis:
    """All that one pass over a clip tells.

    Arguments
    ---------
    emotion : vavl_sb.inference.emotion.Emotion
        Of the whole clip.
    duration : float
        Seconds.
    timeline : list of TimedEmotion
        In order of time.
    crops : list of (float, np.ndarray)
        Time, and a face as the visual encoder saw it: uint8 (H, W, 3), RGB.
    profile : dict
        Stage to the seconds that it took: "decode", "faces", "audio
        encoder", "visual encoder" and "heads".
    """

    emotion: object
    duration: float
    timeline: list = field(default_factory=list)
    crops: list = field(default_factory=list)
    profile: dict = field(default_factory=dict)


class CropSample:
    """Keeps a few crops, evenly over a clip whose length is not known.

    Arguments
    ---------
    count : int
        At most so many in the end.

    Example
    -------
    >>> import torch
    >>> sample = CropSample(3)
    >>> sample.add(torch.zeros(9, 3, 2, 2, dtype=torch.uint8), np.arange(9.0))
    >>> [time for time, _ in sample.chosen()]
    [0.0, 4.0, 8.0]
    """

    def __init__(self, count):
        self.count = count
        self.step, self.seen, self.kept = 1, 0, []

    def add(self, crops, times):
        """Takes crops in, in order of time.

        Arguments
        ---------
        crops : torch.Tensor
            uint8, shape (n, 3, H, W).
        times : np.ndarray
            Seconds, shape (n,).
        """
        for crop, time in zip(crops, times.tolist(), strict=True):
            if self.count > 0 and self.seen % self.step == 0:
                picture = crop.permute(1, 2, 0).contiguous().cpu().numpy()
                self.kept.append((time, picture))
            self.seen += 1
            # Twice as many as are wanted, and then every other of them.
            if len(self.kept) > 4 * self.count:
                self.kept = self.kept[::2]
                self.step *= 2

    def chosen(self):
        """The crops to show.

        Returns
        -------
        list of (float, np.ndarray)
            Time and picture, uint8 (H, W, 3).
        """
        count = min(self.count, len(self.kept))
        if count == 0:
            return []
        places = np.linspace(0, len(self.kept) - 1, count)
        return [self.kept[int(place)] for place in places.round()]


def analyze_file(
    model,
    path,
    modality="auto",
    audio_path=None,
    window=None,
    hop=None,
    crops=0,
):
    """What a model says about a clip.

    Arguments
    ---------
    model : vavl_sb.inference.emotion.EmotionRecognizer
        The model.
    path, modality, audio_path
        As for ``EmotionRecognizer.predict_file``.
    window, hop : float
        Seconds of the timeline's windows; None for no timeline.
    crops : int
        How many crops to keep.

    Returns
    -------
    Analysis

    Raises
    ------
    MediaError, VAVLError
        In one line: what is wrong with the clip or with the arguments.
    """
    check_modality(modality)
    path = str(path)
    wav = path if audio_path is None else str(audio_path)
    infos = {}
    for file in (path, wav):
        check_file(file)
        infos[file] = infos.get(file) or probe(file)
    duration = max(info.duration for info in infos.values())
    if window is not None:
        window = spans(duration, window, hop, WHOLE)
    has = {"audio": infos[wav].has_audio, "visual": infos[path].has_video}

    def one_pass(sound, picture):
        run = _Pass(model, path, duration, modality, window, crops)
        expected = [
            name
            for name, used in (("audio", sound), ("visual", picture))
            if used and has[name]
        ]
        return run.read(sound, picture, expected)

    try:
        done = one_pass(wav, path)
    except (MediaError, EncoderError) as error:
        done = _without_the_fault(one_pass, wav, path, modality, error)
    return done.result()


def _without_the_fault(one_pass, wav, path, modality, error):
    """A pass over the one stream that is whole, where that is enough.

    Arguments
    ---------
    one_pass : callable
        From (wav, video) to a :class:`_Pass`.
    wav, path : str
        Files of sound and picture.
    modality : str
        What was asked for.
    error : VAVLError
        Why both together cannot be read.
    """
    if modality == "audiovisual":
        raise error
    good, faults = {}, {}
    for name, files in (("audio", (wav, None)), ("visual", (None, path))):
        try:
            good[name] = one_pass(*files)
        except (MediaError, EncoderError) as fault:
            faults[name] = fault
    if modality in faults:
        raise faults[modality]
    heard = [name for name, run in good.items() if run.outputs]
    if len(faults) != 1 or heard != list(good):
        raise error
    (lost,) = faults
    logger.warning(
        "%s: answering without its %s (%s)", path, WORDS[lost], faults[lost]
    )
    return good[heard[0]]


class _Pass:
    """One reading of a clip, from its first packet to its last."""

    def __init__(self, model, path, duration, modality, window, crops):
        self.model, self.path, self.modality = model, path, modality
        self.duration = duration
        self.watch = Stopwatch(STAGES)
        self.windows = self._windows(window) if window else None
        self.sample = CropSample(crops)
        self.outputs, self.timeline = [], []
        self.has = set()

    def _windows(self, window):
        """What cuts the timeline's windows out of the clip."""
        encoder = self.model.hparams.feature_extractor

        def encode(samples):
            with self.watch("audio encoder"):
                return encoder.encode_audio(samples, self.path)

        frame_rate = encoder.audio_encoder.frame_rate
        return FeatureWindows(window, self.duration, frame_rate, encode)

    def read(self, wav, video, expected):
        """Reads the clip; gives itself."""
        # A frame may begin at the very end: twice as much surely is one piece.
        length = 2 * WHOLE if self.duration <= WHOLE else PIECE
        pieces = read_pieces(
            self.model.hparams.feature_extractor,
            wav,
            video,
            length,
            self.duration,
            expected,
            self.watch,
            self.sample.add,
        )
        for piece in pieces:
            for name in ("audio", "visual"):
                if getattr(piece.features, name) is not None:
                    self.has.add(name)
            outputs = self._ask(piece.features)
            if outputs:
                self.outputs.append((piece.end - piece.start, outputs))
            if self.windows is not None:
                self._add(self.windows.add(piece))
        if self.windows is not None:
            self._add(self.windows.finish())
        return self

    def _ask(self, features):
        """What each head says; {} where there is nothing to ask about."""
        if features.audio is None and features.visual is None:
            return {}
        with self.watch("heads"):
            return self.model.outputs(features)

    def _add(self, windows):
        """Adds windows to the timeline."""
        for start, end, features in windows:
            outputs = self._ask(features)
            head = choose([(end - start, outputs)], self.modality)
            emotion = self.model.say(head, outputs) if head else None
            self.timeline.append(TimedEmotion(start, end, emotion))

    def result(self):
        """The analysis, or an error that says what the clip lacks."""
        head = choose(self.outputs, self.modality)
        if head is None:
            raise MediaError(
                f"{self.path}: {self.model.why_no_answer(self.modality, self.has)}"
            )
        return Analysis(
            emotion=self.model.say(head, mean_outputs(self.outputs)),
            duration=self.duration,
            timeline=self.timeline,
            crops=self.sample.chosen(),
            profile=dict(self.watch.seconds),
        )
