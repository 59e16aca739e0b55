"""Folder layouts of the datasets: find their files in the user's folder, group them for checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from anomalyncd.data.folders import entries, subfolders
from anomalyncd.data.images import SUFFIXES
from anomalyncd.errors import InputError

_DEPTH = 3  # levels of folders around a dataset in an archive
BASE_CLASSES = ("ablation", "breakdown", "fracture", "groove")  # of AeBAD-S, the paper's base set


@dataclass(frozen=True)
class Group:
    """Images that are counted together, each with the mask that it needs."""

    name: str
    pairs: list[tuple[Path, Path | None]]  # None: needs no mask


@dataclass(frozen=True)
class Layout:
    # (root, given) → file or folder, by its path in the prepared folder. `given` is what the user
    # passed, for messages: the root itself, or the archive that was unpacked into it.
    find: Callable[[Path, Path], dict[str, Path]]
    groups: Callable[[Path], list[Group]]  # of the prepared folder


def _find_mvtec(root: Path, given: Path) -> dict[str, Path]:
    categories = _search(root, _is_category)
    if not categories:
        raise InputError(
            f"{given}: no MVTec AD category; expected <category>/test and <category>/ground_truth"
        )
    return {folder.name: folder for folder in categories}


def _mvtec_groups(root: Path) -> list[Group]:
    groups = []
    for category in filter(_is_category, _subfolders(root)):
        truth = category / "ground_truth"
        defects: list[tuple[Path, Path | None]] = [
            (image, truth / kind.name / f"{image.stem}_mask.png")
            for kind in _subfolders(category / "test")
            if kind.name != "good"
            for image in _images(kind)
        ]
        groups += [
            _unmasked(f"{category.name}/train/good", category / "train" / "good"),
            _unmasked(f"{category.name}/test/good", category / "test" / "good"),
            Group(f"{category.name}/test/defects", defects),
        ]
    return groups


def _is_category(folder: Path) -> bool:
    return (folder / "test").is_dir() and (folder / "ground_truth").is_dir()


def _find_mtd(root: Path, given: Path) -> dict[str, Path]:
    holders = _search(root, lambda folder: (folder / "MT_Free" / "Imgs").is_dir())
    if len(holders) != 1:
        raise InputError(f"{given}: {len(holders)} folders that hold MT_Free/Imgs; expected one")
    found = {path.name: path for path in holders[0].glob("MT_*") if (path / "Imgs").is_dir()}
    return found | {path.name: path for path in holders[0].glob("mtd_train_filenames.txt")}


def _mtd_groups(root: Path) -> list[Group]:
    groups = []
    for folder in sorted(root.glob("MT_*")):
        images = [path for path in _images(folder / "Imgs") if path.suffix == ".jpg"]
        masked = folder.name != "MT_Free"
        pairs = [(image, image.with_suffix(".png") if masked else None) for image in images]
        groups.append(Group(folder.name, pairs))
    return groups


def _find_aebad(root: Path, given: Path) -> dict[str, Path]:
    """AeBAD-S's defective test images, uncropped: the run itself crops their regions.

    The domains (`same`, `view`, …) are folders in the archive; their names become part of the file
    name.
    """
    holders = _search(root, lambda folder: _is_category(folder) and _has_base_classes(folder))
    if len(holders) != 1:
        raise InputError(
            f"{given}: {len(holders)} copies of AeBAD-S; expected one folder that holds "
            f"test/<class> and ground_truth/<class> for {', '.join(BASE_CLASSES)}"
        )
    found = {}
    for ours, theirs in (("images", "test"), ("masks", "ground_truth")):
        for name in BASE_CLASSES:
            top = holders[0] / theirs / name
            for path in sorted(top.rglob("*.png")):
                if not path.name.startswith("."):
                    found["/".join((ours, name, "_".join(path.relative_to(top).parts)))] = path
    return found


def _has_base_classes(folder: Path) -> bool:
    return all((folder / "test" / name).is_dir() for name in BASE_CLASSES)


def _base_groups(root: Path) -> list[Group]:
    return [
        Group(
            folder.name,
            [(image, root / "masks" / folder.name / image.name) for image in _images(folder)],
        )
        for folder in _subfolders(root / "images")
    ]


MVTEC = Layout(_find_mvtec, _mvtec_groups)
MTD = Layout(_find_mtd, _mtd_groups)
AEBAD = Layout(_find_aebad, _base_groups)


def _search(root: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """The wanted folders, at or below the root; wanted folders are not searched further."""

    def walk(folder: Path, depth: int) -> Iterator[Path]:
        if wanted(folder):
            yield folder
        elif depth:
            for below in _subfolders(folder):
                yield from walk(below, depth - 1)

    return list(walk(root, _DEPTH))


def _subfolders(folder: Path) -> list[Path]:
    return subfolders(folder) if folder.is_dir() else []


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in entries(folder) if path.suffix.lower() in SUFFIXES]


def _unmasked(name: str, folder: Path) -> Group:
    return Group(name, [(image, None) for image in _images(folder)])
