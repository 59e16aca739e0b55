"""A file is complete or absent, whatever happens while it is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from anomalyncd.errors import InputError
from anomalyncd.storage.atomic import atomic_write


def test_a_file_is_replaced_in_one_step_once_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    replace, fsync = os.replace, os.fsync

    def watched_replace(draft: Path, path: Path) -> None:
        steps.append(("replace", path.read_text(), draft.read_text()))
        replace(draft, path)

    def watched_fsync(file: int) -> None:
        steps.append(("fsync",))
        fsync(file)

    monkeypatch.setattr(os, "replace", watched_replace)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path) as draft:
        draft.write_text("new")
        assert draft.parent == path.parent, "a rename within one file system"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert steps[:2] == [("fsync",), ("replace", "old", "new")]
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_draft(
    error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_write(path) as draft:
            draft.write_text("half")
            raise error

    with pytest.raises(InputError if error is OSError else error):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
