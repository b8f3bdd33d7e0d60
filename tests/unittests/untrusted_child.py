"""Loads hostile variants of a model under an audit hook; run by a test.

``python untrusted_child.py MODEL SCRATCH SEED COUNT`` prints one JSON object:
what a good model makes Python open, import and call, and each variant that
made it do anything else.
"""

import json
import random
import shutil
import sys
from pathlib import Path

from vavl_sb.inference import EmotionRecognizer
from vavl_sb.utils.errors import VAVLError

WATCHED = ("import", "open", "exec", "compile", "subprocess.Popen")
FAMILIES = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.")
HOSTILE = [
    *("os.system", "subprocess.Popen", "builtins.eval", "torch.load"),
    *("!!python/object/apply:os.system ['touch boom']", "<corpus>", "&a *a"),
    *("(!!python/object/apply:os.system ['touch boom'])", "!new:os.system"),
    *("../elsewhere", "/etc/hostname", "imagenet", "openai/whisper-tiny"),
    *("../model/vavl.safetensors", "audio_encoder/../../elsewhere", "."),
    *("audio_encoder\x00", "AUDIO_ENCODER", "hyperparams.yaml", "", "\x1b[2J"),
    *(None, True, False, -1, 0, 1, 7, 2**31, 2**63, 10**400, -0.0, 1e308),
    *([], {}, [[]], {"class": "VAVL", "arguments": {}}, ["happy", "happy"]),
    *({"!new": "os.system"}, {"__class__": "os.system"}, [None] * 5),
]
RAW = ["NaN", "-Infinity", "1e999", '"\\ud800"', "[" * 5000 + "]" * 5000, "{"]
KEYS = ["device", "jit", "e", "<x>", "source", "weights", "class", "__init__"]


def places(value, path=()):
    """Paths to all that a JSON value holds."""
    yield path
    pairs = value.items() if isinstance(value, dict) else ()
    pairs = enumerate(value) if isinstance(value, list) else pairs
    for key, inner in pairs:
        yield from places(inner, (*path, key))


def mutate(text, rng):
    """A JSON text with one to three of its places changed."""
    model = json.loads(text)
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(list(places(model))[1:])
        holder = model
        for key in path[:-1]:
            holder = holder[key]
        kind = rng.random()
        if kind < 0.1 and isinstance(holder, dict):
            del holder[path[-1]]
        elif kind < 0.3 and isinstance(holder, dict):
            holder[rng.choice(KEYS)] = rng.choice(HOSTILE)
        elif kind < 0.4:
            holder[path[-1]] = "@raw@"
        else:
            holder[path[-1]] = rng.choice(HOSTILE)
    return json.dumps(model).replace('"@raw@"', rng.choice(RAW))


def main(folder, scratch, seed, count):
    """Prints what happened; see the module."""
    folder, scratch, rng = Path(folder), Path(scratch), random.Random(int(seed))
    EmotionRecognizer.from_hparams(folder)
    seen = []

    def hook(event, arguments):
        if event in WATCHED or event.startswith(FAMILIES):
            seen.append((event, str(arguments[0])[:300]))

    sys.addaudithook(hook)
    copy = shutil.copytree(folder, scratch / "model")
    seen.clear()
    EmotionRecognizer.from_hparams(copy)
    good, text = sorted(set(seen)), (copy / "model.json").read_text()
    faults, loaded = [], 0
    for _ in range(int(count)):
        variant = mutate(text, rng)
        (copy / "model.json").write_text(variant)
        seen.clear()
        try:
            EmotionRecognizer.from_hparams(copy)
            loaded += 1
        except VAVLError as error:
            if "\n" in str(error):
                faults.append([variant, "an error of two lines"])
        except Exception as error:
            faults.append([variant, f"{type(error).__name__}: {error}"])
        # Python reads sources to show them, and SpeechBrain its own once.
        more = {e for e in seen if not e[1].endswith((".py", ".pyc"))}
        faults += [[variant, event] for event in sorted(more - set(good))]
    print(json.dumps({"good": good, "faults": faults, "loaded": loaded}))


if __name__ == "__main__":
    main(*sys.argv[1:])
