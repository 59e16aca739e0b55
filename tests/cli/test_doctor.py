"""What `anomalyncd doctor` reports about a machine that does not work."""

from __future__ import annotations

import pytest

from anomalyncd.cli import doctor


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("CUDA error:\nno kernel image"), "RuntimeError: CUDA error: no kernel image"),
        (ImportError("no torch"), "ImportError: no torch; install anomalyncd again"),
    ],
)
def test_broken_software_is_reported_in_one_line(
    error: Exception,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr(doctor, "_device", broken)
    monkeypatch.setattr("sys.argv", ["doctor"])
    assert doctor.main() == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"problem: {message}"
