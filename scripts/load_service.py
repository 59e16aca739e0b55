"""Load on a service: requests per second, latency, errors and memory at 1, 8 and 64 connections.

    anomalyncd serve FILE --port 8000
    python -m scripts.load_service PHOTOGRAPH [--address http://127.0.0.1:8000] [--seconds 20]

Each connection sends the photograph again as soon as it is answered. After a refusal (429) it waits
for the seconds that the answer names, at most 1 s. Client and service share the machine. With a
key, set ANOMALYNCD_API_KEY as for the service.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

_CONNECTIONS = (1, 8, 64)
_PAUSE = 1.0  # seconds after a refusal, at most


@dataclass
class Measured:
    """What some connections saw."""

    seconds: list[float] = field(default_factory=list)  # of requests that were answered with 200
    statuses: Counter[str] = field(default_factory=Counter)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--address", default="http://127.0.0.1:8000")
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    table = Table(title=f"{given.photograph.name}, {given.seconds:g} s each")
    for title in ("connections", "answers/s", "p50, ms", "p99, ms", "statuses", "memory, MB"):
        table.add_column(title, justify="right")
    for connections in _CONNECTIONS:
        begun = time.perf_counter()
        found, memory = asyncio.run(_measured(given, connections))
        took = time.perf_counter() - begun
        half, most = np.percentile(found.seconds, [50, 99]) if found.seconds else (0, 0)
        table.add_row(
            str(connections),
            f"{len(found.seconds) / took:.2f}",
            f"{1e3 * half:.0f}",
            f"{1e3 * most:.0f}",
            ", ".join(f"{status}: {count}" for status, count in sorted(found.statuses.items())),
            f"{memory:.0f}",
        )
    Console().print(table)


async def _measured(given: argparse.Namespace, connections: int) -> tuple[Measured, float]:
    """Statuses and durations, and the service's memory in MB when all has been answered."""
    key = os.environ.get("ANOMALYNCD_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=connections + 1)
    content = given.photograph.read_bytes()
    found = Measured()
    async with httpx.AsyncClient(
        base_url=given.address, headers=headers, limits=limits, timeout=60
    ) as client:
        end = time.perf_counter() + given.seconds
        await asyncio.gather(
            *(_connection(client, content, end, found) for _ in range(connections))
        )
        text = (await client.get("/metrics")).text
    (memory,) = re.findall(r"^process_resident_memory_bytes (\S+)", text, re.M)
    return found, float(memory) / 1e6


async def _connection(
    client: httpx.AsyncClient, content: bytes, end: float, found: Measured
) -> None:
    while (begun := time.perf_counter()) < end:
        try:
            answer = await client.post(
                "/predict", content=content, headers={"Content-Type": "application/octet-stream"}
            )
        except httpx.HTTPError as error:
            found.statuses[type(error).__name__] += 1
            continue
        found.statuses[str(answer.status_code)] += 1
        if answer.status_code == 200:
            found.seconds.append(time.perf_counter() - begun)
        else:
            await asyncio.sleep(min(float(answer.headers.get("Retry-After", 1)), _PAUSE))


if __name__ == "__main__":
    main()
