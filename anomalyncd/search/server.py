"""A collection on a Qdrant server, for more regions than one process should hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from anomalyncd.errors import InputError
from anomalyncd.search.collection import Entry, Similar, Wanted, entry_of

API_KEY = "QDRANT_API_KEY"  # environment variable
_AT_ONCE = 256  # entries of one request


class ServerCollection:
    """Made on the server if it does not exist; other collections there are not touched."""

    def __init__(self, url: str, name: str, width: int) -> None:
        """
        Args:
            url: of the server.
            name: of the collection.
            width: of the features.

        Raises:
            InputError: the server cannot be reached, refuses, or its collection of this name has
                another width.
        """
        self._where = f"search.url={url}, collection {name}"
        self._name = name
        with self._explained():
            self._client = client(url)
            if not self._client.collection_exists(name):
                params = models.VectorParams(size=width, distance=models.Distance.COSINE)
                self._client.create_collection(name, vectors_config=params)
            stored = self._client.get_collection(name).config.params.vectors
        found = stored.size if isinstance(stored, models.VectorParams) else None
        if found != width:
            raise InputError(f"{self._where}: its features have {found} values; expected {width}")

    def add(self, entries: Sequence[Entry], features: NDArray[np.float32]) -> None:
        for start in range(0, len(entries), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            points = [
                models.PointStruct(id=entry.id, vector=row.tolist(), payload=entry.payload())
                for entry, row in zip(entries[part], features[part], strict=True)
            ]
            with self._explained():
                self._client.upsert(self._name, points, wait=True)

    def count(self, values: dict[str, str]) -> int:
        with self._explained():
            return self._client.count(self._name, _filter(values), exact=True).count

    def remove_others(self, run: str, version: str) -> None:
        others = models.Filter(must=[_equals("run", run)], must_not=[_equals("version", version)])
        with self._explained():
            self._client.delete(self._name, models.FilterSelector(filter=others), wait=True)

    def nearest(self, feature: NDArray[np.float32], top: int, wanted: Wanted) -> list[Similar]:
        with self._explained():
            found = self._client.query_points(
                self._name,
                query=feature.tolist(),
                limit=top,
                query_filter=_filter(wanted.values()),
                with_payload=True,
            )
        return [
            Similar(entry_of(point.payload, self._where), float(point.score))
            for point in found.points
        ]

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (QdrantException, ApiException, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(
                f"{self._where}: {reason}; check that the server runs and, if it wants a key, that "
                f"{API_KEY} is set"
            ) from error


def client(url: str) -> QdrantClient:
    """A connection to a server; nothing is sent before the first request."""
    return QdrantClient(url=url, api_key=os.environ.get(API_KEY), check_compatibility=False)


def _filter(values: dict[str, str]) -> models.Filter | None:
    conditions = [_equals(key, value) for key, value in values.items()]
    return models.Filter(must=list(conditions)) if conditions else None


def _equals(key: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))
