"""A collection in a folder: Qdrant's own engine inside this process, exact and without a service.

`qdrant-client`'s local mode is not used: it keeps its points as pickles, which run as code when
they are read, and this folder may come from another machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qdrant_edge import (
    CountRequest,
    Distance,
    EdgeConfig,
    EdgeShard,
    EdgeVectorParams,
    FieldCondition,
    Filter,
    MatchValue,
    Point,
    Query,
    QueryRequest,
    UpdateOperation,
)

from anomalyncd.errors import InputError
from anomalyncd.search.collection import Entry, Similar, Wanted, entry_of
from anomalyncd.storage.run_folder import hold

_AT_ONCE = 1000  # entries that are written together
_CONFIG = "edge_config.json"  # a folder with this file is a collection


class EmbeddedCollection:
    """One process at a time uses it. Every entry is compared, so neighbours are exact."""

    def __init__(self, folder: Path, width: int) -> None:
        """
        Args:
            folder: of the collection; made if it does not exist.
            width: of the features.

        Raises:
            InputError: another process uses it, it cannot be written, it is damaged, or it holds
                features of another width or something else.
        """
        self._folder = folder
        self._open = ExitStack()
        busy = "another process uses this collection; try again when it has finished"
        self._open.enter_context(hold(folder, busy, "set search.path=… to another folder"))
        try:
            params = EdgeVectorParams(size=width, distance=Distance.Cosine)
            self._shard = self._opened(EdgeConfig(vectors=params))
        except BaseException:
            self._open.close()
            raise
        self._open.callback(self._shard.close)

    def _opened(self, config: EdgeConfig) -> EdgeShard:
        has_content = self._folder.exists() and any(self._folder.iterdir())
        if has_content and not (self._folder / _CONFIG).is_file():
            raise InputError(
                f"{self._folder}: holds other files; set search.path=… to a new folder"
            )
        with self._explained():
            if has_content:
                return EdgeShard.load(str(self._folder), config)
            return EdgeShard.create(str(self._folder), config)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the engine has no error types of its own
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{self._folder}: not a collection of these features, or damaged ({reason}); set "
                "search.path=… to a new folder: it is filled again from the runs"
            ) from error

    def add(self, entries: Sequence[Entry], features: NDArray[np.float32]) -> None:
        for start in range(0, len(entries), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            points = [
                Point(id=entry.id, vector=row.tolist(), payload=entry.payload())
                for entry, row in zip(entries[part], features[part], strict=True)
            ]
            with self._explained():
                self._shard.update(UpdateOperation.upsert_points(points))
        self._shard.flush()

    def count(self, values: dict[str, str]) -> int:
        with self._explained():
            return self._shard.count(CountRequest(exact=True, filter=_filter(values)))

    def remove_others(self, run: str, version: str) -> None:
        others = Filter(must=[_equals("run", run)], must_not=[_equals("version", version)])
        with self._explained():
            self._shard.update(UpdateOperation.delete_points_by_filter(others))
            self._shard.flush()

    def nearest(self, feature: NDArray[np.float32], top: int, wanted: Wanted) -> list[Similar]:
        request = QueryRequest(
            limit=top,
            query=Query.Nearest(feature.tolist()),
            with_payload=True,
            filter=_filter(wanted.values()),
        )
        with self._explained():
            found = self._shard.query(request)
        where = str(self._folder)
        return [Similar(entry_of(point.payload, where), float(point.score)) for point in found]

    def close(self) -> None:
        self._open.close()


def _filter(values: dict[str, str]) -> Filter | None:
    return Filter(must=[_equals(key, value) for key, value in values.items()]) if values else None


def _equals(key: str, value: str) -> FieldCondition:
    return FieldCondition(key=key, match=MatchValue(value=value))
