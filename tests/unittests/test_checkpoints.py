"""Checkpoints under kills, damage and full disks."""

import errno
import logging
import os
import signal
import sys

import pytest
import torch

from vavl_sb.utils.checkpoints import CheckedCheckpointer
from vavl_sb.utils.errors import VAVLError
from vavl_sb.utils.seeding import RandomState


def saver_in(folder):
    """A checkpointer of a network that holds one number."""
    recoverables = {"net": torch.nn.Linear(1, 1), "random_state": RandomState()}
    return CheckedCheckpointer(folder, recoverables)


@pytest.fixture
def saver(tmp_path):
    return saver_in(tmp_path / "save")


def save(saver, number, score=0.0, **more):
    with torch.no_grad():
        saver.recoverables["net"].weight.fill_(number)
    meta = {"score": score, "epoch": number}
    saver.save_and_keep_only(meta=meta, max_keys=["score"], **more)


def recovered(saver, **wanted):
    """The number that the network holds after recovering; None for none."""
    if saver.recover_if_possible(**wanted) is None:
        return None
    return saver.recoverables["net"].weight.item()


def kept(saver):
    return sorted(c.meta["epoch"] for c in saver.list_checkpoints())


def newest(saver):
    return saver.find_checkpoint().path


def test_best_newest_and_the_one_before_are_kept(saver):
    for number, score in enumerate([0.1, 0.9, 0.2, 0.3, 0.3], 1):
        save(saver, number, score)
    assert kept(saver) == [2, 4, 5]
    assert recovered(saver) == 5 and recovered(saver, max_key="score") == 2
    # Nothing lies about that is no checkpoint.
    assert len(os.listdir(saver.checkpoints_dir)) == 3


def warnings(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path):
    path.unlink()


FILES = ["net.ckpt", "random_state.ckpt", "CKPT.yaml", "checksums.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [cut, empty, flip, remove])
def test_a_damaged_checkpoint_is_told_and_the_one_before_used(
    saver, name, damage, caplog
):
    save(saver, 1)
    save(saver, 2)
    path = newest(saver)
    damage(path / name)
    assert recovered(saver) == 1
    (line,) = warnings(caplog)
    assert str(path) in line and name in line and "\n" not in line
    assert newest(saver).name in line
    # Set aside: not looked at again, and not lost.
    caplog.clear()
    assert recovered(saver) == 1 and not warnings(caplog)
    assert path.with_name("damaged+" + path.name).is_dir()


def test_the_next_best_takes_the_place_of_a_damaged_best(saver, caplog):
    for number, score in enumerate([0.9, 0.1, 0.2], 1):
        save(saver, number, score)
    best = saver.find_checkpoint(max_key="score").path
    flip(best / "net.ckpt")
    assert recovered(saver, max_key="score") == 3
    assert best.name in caplog.text


def test_all_damaged_starts_anew(saver, caplog):
    save(saver, 1)
    cut(newest(saver) / "net.ckpt")
    assert recovered(saver) is None
    assert "there is none before it" in caplog.text


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VAVLError, match="file/save: cannot be written"):
        saver_in(tmp_path / "file" / "save")


class KillsItself:
    """Counts this process's steps below a folder; kill -9 at one of them."""

    def __init__(self, folder, moment):
        self.folder, self.left = str(folder), moment
        self.save = torch.save
        torch.save = self.half_saved
        sys.addaudithook(self.audit)

    def step(self):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event, arguments):
        names = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
        if event not in names:
            return
        # shutil.rmtree names files by their folder's number.
        removed = event in ("os.remove", "os.rmdir") and arguments[1] >= 0
        if removed or str(arguments[0]).startswith(self.folder):
            self.step()

    def half_saved(self, state, path):
        if self.left == 0:
            path.write_bytes(b"PK\x03\x04 the first bytes of a file")
        self.step()
        self.save(state, path)


def test_killed_at_every_second_step_of_saving_and_deleting(tmp_path):
    found = []
    for moment in range(0, 200, 2):
        saver = saver_in(tmp_path / str(moment))
        save(saver, 1, 0.1)
        save(saver, 2, 0.9)
        child = os.fork()
        if child == 0:
            try:
                KillsItself(saver.checkpoints_dir, moment)
                save(saver, 3, 0.5)
                save(saver, 4, 0.6)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        again = saver_in(tmp_path / str(moment))
        found.append(recovered(again))
        assert recovered(again, max_key="score") == 2
        # Whatever lay about is not taken for one, and the run goes on.
        for path in again.checkpoints_dir.iterdir():
            aside = path.name.startswith("damaged+")
            assert aside or set(FILES) == set(os.listdir(path)), path
        save(again, 5, 0.7)
        assert recovered(again) == 5
    assert sorted(found) == found and set(found) == {2, 3, 4}
    assert len(found) > 10


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        # What torch 2.9 says on a full disk.
        RuntimeError("PytorchStreamWriter failed writing file data/0: ..."),
        RuntimeError("[enforce fail at inline_container.cc:672] unexpected"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_no_half(saver, monkeypatch, error):
    save(saver, 1)

    def full(state, path):
        path.write_bytes(b"as much as there was room for")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(VAVLError, match="free space") as caught:
            save(saver, 2)
    assert str(saver.checkpoints_dir) in str(caught.value)
    assert len(os.listdir(saver.checkpoints_dir)) == 1
    assert recovered(saver) == 1


def test_other_errors_are_not_taken_for_a_full_disk(saver, monkeypatch):
    def broken(state, path):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(RuntimeError, match="CUDA"):
        save(saver, 1)
    assert os.listdir(saver.checkpoints_dir) == []
