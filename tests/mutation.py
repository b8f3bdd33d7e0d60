"""Broken media: clips to break, ways to break them, and a safe place to read.

``python tests/mutation.py < LIST`` reads each file of a list (one JSON list on
a line: path, "frames" or "faces") in a process of its own, with limits on its
memory and its processor time, and prints a JSON line for each.
"""

import collections
import json
import os
import resource
import select
import subprocess
import sys

import numpy as np

# A file of a few kilobytes is done in far less, however broken.
CPU_SECONDS = 20
# Above what the process holds with torch and the detector loaded.
MEMORY = {"frames": 400 * 2**20, "faces": 800 * 2**20}
# A stop that is not the file's fault: a machine busy with other things.
WALL_SECONDS = 300


def sources(folder, real_data=None):
    """Small clips in every container, and a few real ones."""
    import soundfile
    from small_clips import CONTAINERS, sine, write

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 9, 12, 3)).astype(np.uint8)
    images = images.repeat(16, axis=1).repeat(16, axis=2)  # 144 x 192
    images = list(images.repeat(4, axis=0))
    found = [folder / name for name in CONTAINERS]
    for path, (*codecs, rate, options) in zip(found, CONTAINERS.values()):
        write(path, images, sine(1, rate), None, codecs, rate, options=options)
    for name in ("sound.wav", "sound.flac", "sound.ogg", "sound.mp3"):
        soundfile.write(folder / name, sine(1, 16000), 16000)
        found.append(folder / name)
    if real_data is not None:
        found += sorted((real_data / "crema_d_mini").rglob("*.flv"))[:3]
        found += sorted((real_data / "crema_d_mini").rglob("*.wav"))[:1]
        found += sorted((real_data / "ravdess_clips").glob("*.mp4"))[:1]
    return found


def flip_bits(data, rng):
    """A few bits, most of them in the header."""
    for _ in range(rng.integers(1, 33)):
        end = min(len(data), 2048) if rng.random() < 0.7 else len(data)
        data[rng.integers(end)] ^= 1 << rng.integers(8)


def cut(data, rng):
    """The rest is missing."""
    del data[rng.integers(len(data)) :]


def _block(data, rng):
    size = int(rng.integers(1, max(2, len(data) // 4)))
    return int(rng.integers(len(data) - size + 1)), size


def swap_blocks(data, rng):
    """Two blocks stand in each other's place."""
    start, size = _block(data, rng)
    other = int(rng.integers(len(data) - size + 1))
    first, second = data[start : start + size], data[other : other + size]
    data[start : start + size] = second
    data[other : other + size] = first


def zero_block(data, rng):
    """A block that was never written."""
    start, size = _block(data, rng)
    data[start : start + size] = bytes(size)


def append_random(data, rng):
    """Something else follows."""
    data += rng.bytes(int(rng.integers(1, 20000)))


def claim_much(data, rng):
    """Some numbers of the header are the highest, or the lowest, there are."""
    values = (b"\xff", b"\xff\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff")
    values += (bytes(4), b"\xff\xff\xff\x7f", b"\x00\x01", b"\x01\x00\x00\x00")
    for _ in range(rng.integers(1, 5)):
        value = values[rng.integers(len(values))]
        start = int(rng.integers(max(1, min(len(data), 1024) - 4)))
        data[start : start + len(value)] = value


MUTATIONS = (
    *(flip_bits, cut, swap_blocks, zero_block, append_random, claim_much),
)


def make_broken(folder, count, real_data=None):
    """So many broken copies of all sources in turn, in each way."""
    (folder / "whole").mkdir(parents=True)
    whole = sources(folder / "whole", real_data)
    broken = []
    for seed in range(count):
        # Each way meets each source, in an order that soon has all of them.
        source = whole[(seed + seed // len(MUTATIONS)) % len(whole)]
        way = MUTATIONS[seed % len(MUTATIONS)]
        data = bytearray(source.read_bytes())
        way(data, np.random.default_rng(seed))
        broken.append(folder / f"{seed:03}_{way.__name__}_{source.name}")
        broken[-1].write_bytes(data)
    return broken


def read_bounded(jobs):
    """Reads files, each in a process of its own with limits.

    Takes pairs of a file and "frames" or "faces". Gives a dict each: ``file``,
    ``outcome`` ("decoded", "refused" or what went wrong), ``error`` (the text
    of the refusal), ``seconds`` of processor time and ``memory`` (MiB on top
    of what the process had).
    """
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(here)
    path = os.pathsep.join([root, here, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, os.path.abspath(__file__)],
        input="".join(json.dumps([str(p), use]) + "\n" for p, use in jobs),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


def summary(results):
    """How often each outcome was, and the most that a file took."""
    outcomes = collections.Counter(r["outcome"] for r in results)
    counts = ", ".join(f"{n} {what}" for what, n in outcomes.most_common())
    slow = max(r["seconds"] for r in results)
    large = max(r["memory"] for r in results)
    return f"{counts}; at most {slow:.1f} s and {large:.0f} MiB"


def _read(path, tracker):
    """All that the package does with a file on its way to features; the text
    of the error that is meant for users, or None."""
    from vavl_sb.faces.tracker import CropBatch
    from vavl_sb.media.reader import AudioChunk, FrameBatch, decode, probe
    from vavl_sb.utils.errors import VAVLError

    def checked():
        last = -np.inf
        for item in decode(path, frame_rate=10.0):
            if isinstance(item, AudioChunk):
                assert np.isfinite(item.samples).all()
                assert np.abs(item.samples).max(initial=0) <= 1
                assert len(item.samples) <= 16000
            elif isinstance(item, FrameBatch):
                assert np.isfinite(item.times).all()
                assert (np.diff(item.times, prepend=last) >= 0).all()
                last = item.times[-1]
            yield item

    def track():
        for item in tracker.track(checked()):
            if isinstance(item, CropBatch):
                assert item.crops.shape[1:] == (3, 224, 224)

    def measure():
        info = probe(path)
        for value in (info.duration, info.audio_duration, info.video_duration):
            assert 0 <= value <= 86400, value

    found = None
    for use in (measure, track):
        try:
            use()
        except VAVLError as error:
            found = str(error)
            assert "\n" not in found and str(path) in found, found
    return found


def _child(path, tracker, use, pipe):
    """Reads a file within limits and tells how it went."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 2))
    before = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[5]) * resource.getpagesize()
    # Twice what is accepted: what asks for more fails, and is seen to.
    limit = held + 2 * MEMORY[use]
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        error = _read(path, tracker)
        outcome = "decoded" if error is None else "refused"
    except BaseException as fault:
        outcome = f"{type(fault).__name__}: {fault}"
        error = None
    after = resource.getrusage(resource.RUSAGE_SELF)
    taken = 1024 * (after.ru_maxrss - before.ru_maxrss)
    if taken > MEMORY[use]:
        outcome = f"took too much memory, then {outcome}"
    result = {
        "outcome": outcome,
        "error": error,
        "seconds": after.ru_utime + after.ru_stime,
        "memory": taken / 2**20,
    }
    os.write(pipe, json.dumps(result).encode())


def _in_a_child(path, tracker, use):
    """Forks, waits, and gives what the child says or how it died."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            _child(path, tracker, use, theirs)
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        # Too long in the processor ends the child; asleep, this.
        if not select.select([pipe], [], [], WALL_SECONDS)[0]:
            os.kill(pid, 9)
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    died = {
        "outcome": f"the process died of signal {os.WTERMSIG(status)}",
        "error": None,
        "seconds": CPU_SECONDS,
        "memory": 0,
    }
    return json.loads(text) if text else died


def main():
    """Reads what standard input lists; see the module's docstring."""
    import torch

    from vavl_sb.faces.tracker import FaceTracker

    torch.set_num_threads(1)
    jobs = [json.loads(line) for line in sys.stdin]
    trackers = {"frames": FaceTracker(detector=None)}
    if any(use == "faces" for _, use in jobs):
        trackers["faces"] = FaceTracker()
        trackers["faces"].load()
    import av  # noqa: F401  # Once, not in each child.

    for path, use in jobs:
        result = _in_a_child(path, trackers[use], use)
        print(json.dumps({"file": path, "use": use, **result}), flush=True)


if __name__ == "__main__":
    main()
