"""What counts as an exported file is the same for every verb."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from anomalyncd.cli import main
from anomalyncd.prediction.examiner import files_of
from anomalyncd.storage.exported import is_exported


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_folder_with_the_name_of_an_exported_file_is_a_run(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules: list[str] = []

    def imported(name: str) -> SimpleNamespace:
        modules.append(name.rpartition(".")[2])
        return SimpleNamespace(main=lambda: 0)

    monkeypatch.setattr(main, "import_module", imported)
    file, folder = tmp_path / f"file{suffix}", tmp_path / f"run{suffix}"
    file.touch()
    folder.mkdir()
    assert is_exported(file) and files_of(str(file))[0] == file
    assert not is_exported(folder) and files_of(str(folder)) == (folder / "model.safetensors",)
    for word in (str(file), str(folder), f"run={folder}", str(tmp_path / f"none{suffix}")):
        main.main(["predict", word])
    assert modules == ["predict_file", "predict", "predict", "predict_file"]
