"""A full disk or an inaccessible folder is reported with its path and with what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from anomalyncd.cli.settings import entry
from anomalyncd.storage.cache import Cache

PREDICT = "output=…"


def reported(error: OSError, capsys: pytest.CaptureFixture, *elsewhere: str) -> str:
    with entry.one_line_errors(False, *elsewhere):
        raise error
    return capsys.readouterr().err.strip()


@pytest.fixture(autouse=True)
def no_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "failures", [])


def test_a_disk_that_is_full_while_caching_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Maps, regions, and a detector's own files: a failed write knows no path."""
    cache = Cache(tmp_path / "cache")
    with pytest.raises(OSError, match="No space left") as raised:
        cache.entry("maps", 1, lambda _: Path("/dev/full").write_bytes(b"x"))
    assert reported(raised.value, capsys) == (
        f"error: {tmp_path}/cache: No space left on device; free space or set output_root=…"
    )


def test_predict_names_its_own_setting(capsys: pytest.CaptureFixture) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "there")
    assert reported(full, capsys, PREDICT).endswith(
        "there: No space left on device; free space or set output=…"
    )
    closed = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "there")
    assert reported(closed, capsys, PREDICT).endswith("make it writable or set output=…")


def test_an_unreadable_file_is_not_reported_as_unwritable(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so `os.access` is replaced."""
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path))
    assert reported(error, capsys).endswith("make it writable or set output_root=…")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert reported(error, capsys) == f"error: {tmp_path}: Permission denied; make it readable"
