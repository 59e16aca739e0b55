"""Where a run keeps its results: a folder that follows from what the run computes.

So jobs never collide, a finished run is recognised, and a broken one finds what it had done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from anomalyncd.cache import digest
from anomalyncd.config import Config
from anomalyncd.errors import InputError

# What a run computes does not depend on these.
_PRESENTATION = ("tracker", "device", "output_root", "cache_root", "rerun", "quiet", "debug")


class RunFolder:
    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of(cls, config: Config) -> RunFolder:
        """<output_root>/<dataset>/<category>/<detector>/<backbone>-<base>-<hash>/seed-<n>"""
        settings = {k: v for k, v in asdict(config).items() if k not in _PRESENTATION}
        seed = settings.pop("seed")
        variant = f"{config.backbone.name}-{config.base.kind}-{digest(settings)[:8]}"
        root = Path(config.output_root, config.dataset.kind, config.category)
        return cls(root / config.detector.label / variant / f"seed-{seed}")

    @property
    def finished(self) -> bool:
        return (self.root / "metrics.json").exists()  # written last

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.root / "metrics.json").read_text(encoding="utf-8"))

    def path(self, name: str) -> Path:
        return self.root / name

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for one process at a time.

        Raises:
            InputError: it cannot be written, or another process holds it.
        """
        lock = FileLock(self.root / ".lock", timeout=0)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise InputError(
                f"{self.root}: another process computes this run; wait for it, or change a setting"
            ) from None
        except OSError as error:
            raise InputError(
                f"{self.root}: cannot be written ({error.strerror}); set output_root=… elsewhere"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def set_aside(self) -> Path:
        """Rename a finished run's folder, so that it can be computed again without loss."""
        number = 1
        while (aside := self.root.with_name(f"{self.root.name}.old-{number}")).exists():
            number += 1
        self.root.rename(aside)
        return aside

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        temporary = self.root / f".{name}.part"
        try:
            temporary.write_text(text, encoding="utf-8", newline="")
            os.replace(temporary, self.root / name)
        finally:
            temporary.unlink(missing_ok=True)

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
