"""A page of the reference for each room of the package, with all its modules."""

from __future__ import annotations

from pathlib import Path

from import_graph import module_graph

# In the order in which a run goes through them; rooms that are not named here follow by name.
ORDER = (
    *("config", "types", "errors", "experiment", "run", "api", "anomaly_maps"),
    *("inputs", "data", "detectors", "regions", "models", "training", "inference", "evaluation"),
    *("results", "storage", "runtime", "anomalib", "preparation", "cli"),
)
AS_WRITTEN = ("config", "types")  # tables of fields, whose comments say what each is


def write(folder: Path, package: Path) -> None:
    """Write one page for each room; what is up to date stays as it is, so that builds are quick.

    Args:
        folder: of the pages.
        package: the package's folder.
    """
    rooms: dict[str, list[str]] = {}
    for module in module_graph(package):
        if module not in ("__init__", "__main__"):
            rooms.setdefault(module.split("/")[0], []).append(module)
    folder.mkdir(exist_ok=True)
    wanted = {}
    for number, room in enumerate(sorted(rooms, key=_place)):
        wanted[folder / f"{number:02d}_{room}.md"] = _page(room, sorted(rooms[room]))
    for old in set(folder.glob("*.md")) - wanted.keys():
        old.unlink()
    for path, text in wanted.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _place(room: str) -> tuple[int, str]:
    return (ORDER.index(room) if room in ORDER else len(ORDER), room)


def _page(room: str, modules: list[str]) -> str:
    if room in AS_WRITTEN:
        source = f"```{{literalinclude}} ../../anomalyncd/{room}.py\n:language: python\n```"
        return f"# {room}\n\n{source}\n"
    parts = [f"# {room}"]
    for module in modules:
        name = "anomalyncd." + module.replace("/", ".")
        heading = [f"## {name}"] if len(modules) > 1 else []
        parts += [*heading, f"```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```"]
    return "\n\n".join(parts) + "\n"
