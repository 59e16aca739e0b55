"""Files of tensors, as other files of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from anomalyncd.storage.tensors import save_tensors


@pytest.mark.skipif(os.name != "posix", reason="the modes of files are those of POSIX")
def test_a_file_can_be_read_by_those_who_can_read_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)}, {})
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1
