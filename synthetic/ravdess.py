"""Layout of RAVDESS: a WAV and a silent MP4 per clip, and no table.

Livingstone & Russo, "The Ryerson Audio-Visual Database of Emotional Speech and
Song (RAVDESS)", PLoS ONE 13(5):e0196391, 2018. Actors with even numbers are
women. The sentences are two of CREMA-D's. Calm and surprised, song, second
repetitions and the files with both audio and video (01-) are not generated.
"""

from synthetic.layout import Layout
from synthetic.performance import Clip

CODES = {
    "neutral": "01",
    "happy": "03",
    "sad": "04",
    "angry": "05",
    "fear": "06",
    "disgust": "07",
}
STATEMENTS = {"DFA": "01", "IWW": "02"}
INTENSITIES = {"MD": "01", "HI": "02"}  # normal and strong


def _clips(actor, seed):
    """Returns the clips of an actor: both sentences in six emotions, then again
    with strong intensity, except neutral."""
    female = int(actor) % 2 == 0
    return [
        Clip(actor, female, emotion, sentence, level, seed)
        for level in INTENSITIES
        for sentence in STATEMENTS
        for emotion in CODES
        if (emotion, level) != ("neutral", "HI")
    ]


def _files(clip):
    """Returns the paths of the audio and video files."""
    folder = f"Actor_{clip.speaker}"
    parts = ("01", CODES[clip.emotion], INTENSITIES[clip.level])
    parts += (STATEMENTS[clip.sentence], "01", clip.speaker)
    name = "-".join(parts)
    return f"{folder}/03-{name}.wav", f"{folder}/02-{name}.mp4"


LAYOUT = Layout(
    tuple(f"{number:02}" for number in range(1, 25)),
    _clips,
    _files,
    silent_video=True,
)
