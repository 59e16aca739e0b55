"""Rooms of the package and the imports between them, counted and drawn.

    python docs/import_graph.py anomalyncd                     # counts, and what each room imports
    python docs/import_graph.py anomalyncd --svg > rooms.svg   # the same, drawn

A room is a folder of the package, or a file that lies directly in it. An arrow goes from one room
to another that it imports, wherever in a file the import stands. Only the sources are read, so any
version of the package can be counted: `git archive COMMIT anomalyncd | tar -x -C ELSEWHERE`.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

WIDE, HIGH = 860, 56  # of a figure, and of a floor in it, in pixels
Graph = dict[str, set[str]]  # a room or module → those that it imports


def module_graph(package: Path) -> Graph:
    """Every module (`training/losses`; a folder's `__init__` as the folder) and its imports."""
    modules = {_module(path, package): path for path in sorted(package.rglob("*.py"))}
    return {
        name: {found for found in _imports(path, package.name, set(modules)) if found != name}
        for name, path in modules.items()
    }


def room_graph(modules: Graph) -> Graph:
    """The arrows between rooms; the public interface, `__init__`, is left out."""
    folders = {name.rpartition("/")[0] for name in modules if "/" in name}

    def room(module: str) -> str:
        return module if module in folders else module.rpartition("/")[0] or module

    rooms: Graph = {}
    for module, imported in modules.items():
        if module != "__init__":
            others = {room(other) for other in imported if other != "__init__"}
            rooms.setdefault(room(module), set()).update(others - {room(module)})
    return rooms


def circle(graph: Graph) -> set[str]:
    """What is left when all that leads to no circle is taken away; empty: there is none."""
    rest = {name: set(others) for name, others in graph.items()}
    while free := {name for name, others in rest.items() if not others & rest.keys()}:
        rest = {name: others for name, others in rest.items() if name not in free}
    return set(rest)


def counts(package: Path) -> dict[str, int]:
    """Figures of a house: files, rooms, and arrows between files and between rooms."""
    modules = module_graph(package)
    rooms = room_graph(modules)
    return {
        "files": len(modules),
        "arrows between files": sum(map(len, modules.values())),
        "rooms": len(rooms),
        "arrows between rooms": sum(map(len, rooms.values())),
        "rooms in circles": len(circle(rooms)),
        "files in circles": len(circle(modules)),
        "most files on one floor": max(
            len(list(folder.glob("*.py"))) for folder in {p.parent for p in package.rglob("*.py")}
        ),
        "lines of the longest file": max(
            len(path.read_text(encoding="utf-8").splitlines()) for path in package.rglob("*.py")
        ),
    }


def svg(rooms: Graph) -> str:
    """The rooms drawn: each stands above all that it imports."""
    floors: dict[int, list[str]] = {}
    for room in rooms:
        floors.setdefault(_floor(room, rooms), []).append(room)
    place = {}
    for floor, inside in floors.items():
        for number, room in enumerate(sorted(inside, key=lambda room: len(_beyond(rooms, {room})))):
            x = (number + 0.5) * WIDE / len(inside)
            low = number % 2 * 16 if len(inside) > 6 else 0  # so that many names have room
            place[room] = x, (max(floors) - floor) * HIGH + 24 + low
    parts = []
    for room, (x, y) in place.items():
        for other in sorted(rooms[room]):
            to_x, to_y = place[other]
            line = f'x1="{x:.0f}" y1="{y:.0f}" x2="{to_x:.0f}" y2="{to_y:.0f}"'
            parts.append(f'<line {line} stroke="#12a87c" opacity="0.35"/>')
    for room, (x, y) in place.items():
        half = len(room) * 3.4 + 6
        parts.append(
            f'<rect x="{x - half:.1f}" y="{y - 10:.0f}" width="{2 * half:.1f}" height="20" rx="4" '
            'fill="#fff" stroke="#777"/>'
            f'<text x="{x:.0f}" y="{y + 4:.0f}" font-family="sans-serif" font-size="12" '
            f'fill="#222" text-anchor="middle">{room}</text>'
        )
    size = f'viewBox="0 0 {WIDE} {max(floors) * HIGH + 56}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n' + "\n".join(parts) + "\n</svg>\n"


def _floor(room: str, rooms: Graph) -> int:
    """How many rooms stand below each other under it, at most; the graph has no circle."""
    return max((1 + _floor(other, rooms) for other in rooms[room]), default=0)


def _beyond(graph: Graph, starts: set[str]) -> set[str]:
    """All that the starts import, directly or not."""
    found: set[str] = set()
    waiting = [other for start in starts for other in graph[start]]
    while waiting:
        if (room := waiting.pop()) not in found:
            found.add(room)
            waiting += graph[room]
    return found


def _module(path: Path, package: Path) -> str:
    name = path.relative_to(package).with_suffix("").as_posix()
    return name.removesuffix("/__init__")


def _imports(path: Path, package: str, modules: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts.pop(0) != package:
                continue
            while parts and "/".join(parts) not in modules:
                parts.pop()
            yield "/".join(parts) or "__init__"


def main() -> None:
    """Print what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path, help="the folder of the package")
    parser.add_argument("--svg", action="store_true", help="a figure, not counts")
    options = parser.parse_args()
    rooms = room_graph(module_graph(options.package))
    if options.svg:
        print(svg(rooms), end="")
        return
    for name, count in counts(options.package).items():
        print(f"{count:5}  {name}")
    for room in sorted(rooms, key=lambda room: (len(_beyond(rooms, {room})), room)):
        print(f"{room}: {', '.join(sorted(rooms[room])) or '–'}")


if __name__ == "__main__":
    main()
