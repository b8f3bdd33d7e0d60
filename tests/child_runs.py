"""Scripts such as train.py in a child process, which can be told to kill itself.

A server process imports torch and SpeechBrain once, and forks a child for each
run: a start costs a tenth of what it costs a new Python.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["recipe_train", "synthetic"])


def draw_nothing(patch=setattr):
    """Leaves out what takes most of a small run: its pictures, and a list of
    the packages that are installed."""
    import speechbrain

    from vavl_sb.training import plots

    for name in ("confusion", "learning_curves", "reliability_diagram"):
        patch(plots, name, lambda *args: None)
    logger = speechbrain.utils.logger
    patch(logger, "get_environment_description", lambda: "left out in tests")


def start(cwd, words, log, draws=False, **killing):
    """Starts a script in a session of its own, with this environment."""
    words = [str(word) for word in words]
    # The server imports from where this process does, or nothing, silently.
    paths = os.pathsep.join(filter(None, sys.path))
    with mock.patch.dict(os.environ, PYTHONPATH=paths):
        forkserver.ensure_running()
    process = CONTEXT.Process(
        target=_run, args=(cwd, words, log, dict(os.environ), draws, killing)
    )
    process.start()
    # A test that fails leaves no training behind.
    atexit.register(process.kill)
    return process


def run(cwd, words, log, timeout=600, **options):
    """As :func:`start`, and waits."""
    process = start(cwd, words, log, **options)
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"{log}: no end after {timeout} s")
    return process.exitcode


def members(session):
    """Processes of a session that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except OSError:
            continue
        state, _, _, its = text.rsplit(")", 1)[1].split()[:4]
        if int(its) == session and state != "Z":
            found.append(int(entry.name))
    return found


class Steps:
    """Counts what a process does that a kill could come between.

    A step is a file that is opened for writing, renamed, made or removed below
    the watched folders, half a file of a checkpoint, and a batch."""

    CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
    WRITES = os.O_WRONLY | os.O_RDWR

    def __init__(self, watched=(), kill_at=None, trace=None):
        self.watched = tuple(str(folder) for folder in watched)
        self.kill_at, self.count = kill_at, 0
        self.trace = None if trace is None else open(trace, "w")

    def install(self):
        """Begins to count."""
        import torch

        from vavl_sb.training.brain import EmotionBrain

        self.save, torch.save = torch.save, self.half_saved
        self.before(EmotionBrain, "on_fit_batch_start", "train batch")
        self.before(EmotionBrain, "evaluate_batch", "evaluate batch")
        sys.addaudithook(self.audit)

    def step(self, name):
        """One step, before it is taken."""
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1
        if self.trace:
            print(name, file=self.trace, flush=True)

    def before(self, kind, name, words):
        """Makes a method's calls steps."""
        method = getattr(kind, name)

        def call(*args, **kwargs):
            self.step(words)
            return method(*args, **kwargs)

        setattr(kind, name, call)

    def half_saved(self, state, path, *args):
        """torch.save, between whose halves a kill can come."""
        self.save(state, path, *args)
        if self.count == self.kill_at:
            os.truncate(path, os.path.getsize(path) // 2)
        self.step(f"half of {path}")

    def audit(self, event, arguments):
        """Python's audit hook."""
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & self.WRITES:
                return
        elif event in self.CHANGES:
            path = arguments[0]
        else:
            return
        # shutil.rmtree names files by their folder's number.
        removed = event in ("os.remove", "os.rmdir") and arguments[1] >= 0
        if removed or str(path).startswith(self.watched):
            self.step(f"{event} {path}")


def _run(cwd, words, log, environment, draws, killing):
    """What the child does."""
    # As at a terminal: a shell's background jobs start with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    # As in a Python of its own: data loaders fork.
    multiprocessing.set_start_method("fork", force=True)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    paths = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:0] = [os.path.dirname(os.path.realpath(words[0])), *paths]
    sys.argv = words
    if not draws:
        draw_nothing()
    if killing:
        Steps(**killing).install()
    runpy.run_path(words[0], run_name="__main__")
