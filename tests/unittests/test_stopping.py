"""Locks, signals and writes that are whole or not there."""

import errno
import os
import resource
import signal
import time

import pytest
import torch

from vavl_sb.utils.errors import VAVLError, exit_on_error
from vavl_sb.utils.files import write_folder
from vavl_sb.utils.lock import hold_folder
from vavl_sb.utils.signals import Terminated, sigterm_raises
from vavl_sb.utils.weights import save_tensors


def in_child(work):
    """Forks; the child works and then waits. Returns it when it is ready."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            word = b"ready"
            try:
                work()
            except VAVLError as error:
                word = str(error).encode()
            os.write(write, word)
            time.sleep(60)
        finally:
            os._exit(0)
    os.close(write)
    return child, os.read(read, 1000).decode()


def end(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_the_second_run_is_refused_and_a_kill_leaves_no_lock(tmp_path):
    folder = tmp_path / "out"
    child, word = in_child(lambda: hold_folder(folder))
    assert word == "ready"
    with pytest.raises(VAVLError) as error:
        hold_folder(folder)
    line = str(error.value)
    assert str(folder) in line and str(child) in line and "\n" not in line
    end(child)
    hold_folder(folder)
    hold_folder(folder)  # Its own it may have twice.
    # And now the other way round; a link is no other folder.
    (tmp_path / "link").symlink_to(folder)
    child, word = in_child(lambda: hold_folder_anew(tmp_path / "link"))
    end(child)
    assert str(os.getpid()) in word


def hold_folder_anew(folder):
    """As a process that did not inherit what this one holds."""
    from vavl_sb.utils import lock

    lock._HELD.clear()
    hold_folder(folder)


def test_workers_that_outlive_a_killed_run_hold_no_lock(tmp_path):
    read, write = os.pipe()

    def run():
        hold_folder(tmp_path / "out")
        worker, _ = in_child(lambda: None)
        os.write(write, str(worker).encode())

    child, _ = in_child(run)
    worker = int(os.read(read, 100))
    end(child)
    os.kill(worker, 0)  # It is still there.
    try:
        hold_folder(tmp_path / "out")
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.fixture
def attended():
    """SIGINT as at a terminal: a shell's background jobs start without it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_signal_is_one_line_and_a_status(number, status, caplog, attended):
    handler = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop, exit_on_error():
        signal.raise_signal(number)
    assert stop.value.code == status
    (record,) = caplog.records
    assert "the same command resumes" in record.getMessage()
    assert signal.getsignal(number) is handler


def test_a_full_disk_is_one_line(caplog):
    with pytest.raises(SystemExit) as stop, exit_on_error():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/file")
    assert stop.value.code == 1
    (record,) = caplog.records
    assert "/a/file" in record.getMessage()
    with pytest.raises(IsADirectoryError), exit_on_error():
        open("/", "w")


@pytest.mark.parametrize("there_before", [False, True])
def test_an_export_is_whole_or_not_there(tmp_path, there_before):
    folder = tmp_path / "inference"
    if there_before:
        folder.mkdir()
        (folder / "old").write_text("old")
        (folder / "weights").write_text("old")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ZeroDivisionError), write_folder(folder) as part:
        part.mkdir()
        (part / "weights").write_text("half")
        assert folder.exists() == there_before
        raise ZeroDivisionError
    assert sorted(os.listdir(tmp_path)) == before
    # A kill leaves the part behind; the next export removes it.
    (tmp_path / ".inference.part").mkdir()
    (tmp_path / ".inference.part" / "rest").write_text("half")
    with write_folder(folder) as part:
        part.mkdir()
        (part / "weights").write_text("whole")
    assert os.listdir(tmp_path) == ["inference"]
    assert os.listdir(folder) == ["weights"]
    assert (folder / "weights").read_text() == "whole"


def test_a_stop_between_the_renames_keeps_what_was_there(tmp_path, monkeypatch):
    folder, rename = tmp_path / "inference", os.rename
    folder.mkdir()
    (folder / "weights").write_text("old")

    def stopped(source, target):
        rename(source, target)
        if str(target).endswith(".old"):
            monkeypatch.setattr(os, "rename", rename)
            raise Terminated

    monkeypatch.setattr(os, "rename", stopped)
    with pytest.raises(Terminated), write_folder(folder) as part:
        part.mkdir()
    assert os.listdir(tmp_path) == ["inference"]
    assert (folder / "weights").read_text() == "old"
    # A kill there leaves the old one beside it: the next finds it.
    os.rename(folder, tmp_path / ".inference.old")
    with pytest.raises(ZeroDivisionError), write_folder(folder):
        raise ZeroDivisionError
    assert (folder / "weights").read_text() == "old"


def test_weights_that_find_no_room_are_one_line(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(VAVLError, match="weights: cannot be written.*free"):
            save_tensors({"a": torch.ones(1000)}, tmp_path / "weights")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_an_object_is_deleted_is_not_lost(number):
    class Deleted:
        def __del__(self):
            signal.raise_signal(number)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as stop, sigterm_raises():
            one = Deleted()
            del one  # Python drops what is raised here.
            time.sleep(10)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.type is (
        Terminated if number == signal.SIGTERM else KeyboardInterrupt
    )


def test_a_worker_that_is_stopped_as_it_is_forked_says_nothing(capfd):
    with exit_on_error():
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 143
    assert "stopped" not in "".join(capfd.readouterr())
