"""Folders on disk → samples and, separately, their labels. Only this module parses paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from anomalyncd.config import (
    MAX_MEGAPIXELS,
    BaseConfig,
    CustomBaseConfig,
    CustomDatasetConfig,
    DatasetConfig,
    DemoConfig,
    DrawnBaseConfig,
    EmbeddedBaseConfig,
    FolderBaseConfig,
    FolderConfig,
    MtdConfig,
    MvtecConfig,
)
from anomalyncd.data import demo, photographs
from anomalyncd.data.custom import require_sound
from anomalyncd.data.folders import (
    and_more,
    existing,
    files_in,
    first_images_below,
    images_in,
    readable_inputs,
    same_name,
    subfolders,
)
from anomalyncd.data.images import OTHER_SUFFIXES, SUFFIXES, read_header
from anomalyncd.errors import InputError
from anomalyncd.runtime.plugins import call_target
from anomalyncd.storage.cache import Cache
from anomalyncd.types import UNLABELLED, Dataset, Labels, Sample

EMBEDDED_BASE = Path(__file__).parent / "base_set"  # by scripts/make_base_set.py


@dataclass(frozen=True)
class _TypeFolder:
    """The images of one type (a kind of defect, or defect-free) with their masks, by stem."""

    name: str
    folder: Path  # of the images
    images: dict[str, Path]
    masks: dict[str, Path]


def load(
    config: DatasetConfig,
    category: str,
    cache: Cache,
    path_key: str = "dataset.path",
    max_megapixels: int = MAX_MEGAPIXELS,
    left_out: Sequence[Path] = (),
) -> Dataset:
    """Find the images of one product.

    Args:
        config: where they are, and how their folders are read.
        category: the product's name.
        cache: for the demo product.
        path_key: the setting named in messages about a wrong path.
        max_megapixels: limit for each image.
        left_out: folders of results, which are not read if they lie inside a pile.

    Raises:
        InputError: a folder is missing, empty or unreadable, or holds a broken link; two images
            have the same name; or an image has an unsupported format or is too large.
    """
    drawn = _drawn_product(config, cache) if isinstance(config, DemoConfig) else None
    with readable_inputs():
        match config:
            case DemoConfig():
                assert drawn is not None
                dataset = _load_mvtec(drawn, config)
            case MvtecConfig():
                dataset = _load_mvtec(existing(Path(config.path) / category, "category"), config)
            case MtdConfig():
                dataset = _load_mtd(existing(Path(config.path), "dataset.path"), config)
            case FolderConfig():
                folder = existing(Path(config.path), path_key)
                load_folder = _load_pile if config.subfolders == "pile" else _load_folder
                dataset = load_folder(folder, config, max_megapixels, left_out)
            case CustomDatasetConfig():
                dataset = _custom("dataset", config)
            case _:
                raise InputError(f"dataset.kind={config.kind}: expected one of configs/dataset")
    return with_headers_read(dataset, max_megapixels)


def load_base(
    config: BaseConfig, cache: Cache, max_megapixels: int = MAX_MEGAPIXELS
) -> Dataset | None:
    """Find the labelled base set; None for base=none.

    Raises:
        InputError: as in `load`, or an image has no mask.
    """
    match config:
        case DrawnBaseConfig():
            settings = {"seed": config.seed, "per_class": config.per_class}
            key = {**settings, "drawing": demo.VERSION}
            root = cache.entry("demo-base", key, lambda at: demo.draw_base(at, **settings))
        case EmbeddedBaseConfig():
            root = EMBEDDED_BASE
        case FolderBaseConfig():
            root = Path(config.path)
        case CustomBaseConfig():
            return with_headers_read(_require_masks(_custom("base", config)), max_megapixels)
        case _:
            return None
    with readable_inputs():
        images = existing(existing(root, "base.path") / "images", "base.path")
        types = [
            _TypeFolder(
                folder.name, folder, images_in(folder), images_in(root / "masks" / folder.name)
            )
            for folder in subfolders(images)
        ]
    dataset = _assemble(types, images, normal=None, unscored=())
    return with_headers_read(_require_masks(dataset, root / "masks"), max_megapixels)


def count_base(config: BaseConfig) -> int:
    """The number of images of a base set, without drawing or checking it; 0 if not known."""
    match config:
        case DrawnBaseConfig():
            return config.per_class * len(demo.BASE_CLASSES)
        case EmbeddedBaseConfig():
            return len(photographs.find(EMBEDDED_BASE / "images").images)
        case FolderBaseConfig():
            images = Path(config.path, "images")
            return len(photographs.find(images).images) if images.is_dir() else 0
    return 0


def _require_masks(dataset: Dataset, folder: Path | None = None) -> Dataset:
    for sample in dataset.samples:
        if sample.truth_mask is None:
            expected = f"expected {folder / sample.id}.png. " if folder else ""
            raise InputError(
                f"{sample.image}: no mask; {expected}"
                "A base set needs a mask for each image (a filled box is enough)"
            )
    if dataset.labels is None:
        raise InputError("the base set has no labels; expected a class for each image")
    return dataset


def _custom(key: str, config: CustomDatasetConfig | CustomBaseConfig) -> Dataset:
    expected = "module:function, which takes its options and returns an anomalyncd.types.Dataset"
    dataset = call_target(f"{key}.target", config.target, config.options, expected)
    return require_sound(dataset, f"{key}.target={config.target}")


def _drawn_product(config: DemoConfig, cache: Cache) -> Path:
    settings = {
        "seed": config.seed,
        "train": config.train,
        "good": config.good,
        "per_class": config.per_class,
        "combined": config.combined,
    }
    key = {**settings, "drawing": demo.VERSION}
    return cache.entry("demo", key, lambda at: demo.draw(at, **settings))


def _load_mvtec(root: Path, config: DatasetConfig) -> Dataset:
    test = existing(root / "test", "dataset.path")
    types = [
        _TypeFolder(
            folder.name,
            folder,
            images_in(folder),
            images_in(root / "ground_truth" / folder.name, "_mask"),
        )
        for folder in subfolders(test)
        if folder.name not in config.leave_out
    ]
    train = images_in(root / "train" / "good")
    return _assemble(types, root, normal="good", unscored=config.unscored, train=train.values())


def _load_mtd(root: Path, config: MtdConfig) -> Dataset:
    types = [
        _TypeFolder(
            folder.name,
            folder / "Imgs",
            images_in(folder / "Imgs", suffixes=(".jpg",)),
            images_in(folder / "Imgs", suffixes=(".png",)) if folder.name != "MT_Free" else {},
        )
        for folder in subfolders(root)
        if folder.name.startswith("MT_") and folder.name not in config.leave_out
    ]
    if not types:
        raise InputError(f"{root}: no MT_<class> folders; expected the MTD release as it is")
    train: dict[str, Path] = {}
    if config.train_list is not None:
        listed = _training_names(root / config.train_list)
        for index, folder in enumerate(types):
            if folder.name == "MT_Free":
                train = {stem: path for stem, path in folder.images.items() if path.name in listed}
                rest = {stem: path for stem, path in folder.images.items() if stem not in train}
                types[index] = _TypeFolder(folder.name, folder.folder, rest, {})
    return _assemble(types, root, normal="MT_Free", unscored=config.unscored, train=train.values())


def _training_names(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="utf-8").split())
    except PermissionError:
        raise  # it exists; `readable_inputs` reports it
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: no list of the defect-free training images (DifferNet's 761 names); put it "
            "there, or count all of MT_Free as test images with dataset.train_list=null"
        ) from error


def _load_folder(
    root: Path, config: FolderConfig, max_megapixels: int, left_out: Sequence[Path]
) -> Dataset:
    good = () if config.good is None else _known_good(Path(config.good))
    loose = images_in(root)
    classes = [
        _TypeFolder(folder.name, folder, images_in(folder), {})
        for folder in subfolders(root)
        if folder.name not in config.leave_out
    ]
    images = [*loose.values(), *(path for folder in classes for path in folder.images.values())]
    skipped = _skipped(config, [*images, *good], max_megapixels)
    good = tuple(path for path in good if path not in skipped)
    for found in (loose, *(folder.images for folder in classes)):
        for stem in [stem for stem, path in found.items() if path in skipped]:
            del found[stem]
    samples = tuple(Sample(id=stem, image=path) for stem, path in loose.items())
    folders = [root, *(folder.folder for folder in classes)]
    if not any(folder.images for folder in classes):
        return _complete(Dataset(samples, None, good), root, folders, skipped)
    dataset = _assemble(classes, root, normal=config.normal, unscored=config.unscored)
    assert dataset.labels is not None
    targets = np.concatenate([np.full(len(samples), UNLABELLED), dataset.labels.targets])
    labels = Labels(dataset.labels.classes, targets, dataset.labels.normal)
    return _complete(Dataset(samples + dataset.samples, labels, good), root, folders, skipped)


def _load_pile(
    root: Path, config: FolderConfig, max_megapixels: int, left_out: Sequence[Path]
) -> Dataset:
    good_folder = None if config.good is None else existing(Path(config.good), "dataset.good")
    inside = [*left_out, *([good_folder] if good_folder else [])]
    pile = photographs.find(root, inside, config.leave_out)
    if pairs := pile.same_names():
        raise InputError(same_name(*pairs[0]))
    good = photographs.find(good_folder, left_out).images if good_folder else []
    if good_folder and not good:
        raise InputError(f"{good_folder}: no images; dataset.good=… expects known-good photographs")
    skipped = _skipped(config, [*pile.images, *good], max_megapixels)
    samples = tuple(Sample(pile.name(path), path) for path in pile.images if path not in skipped)
    if not samples:
        raise InputError(_no_images(root, pile.others))
    warnings = (*pile.warnings(), *photographs.unreadable_warnings(skipped))
    return Dataset(samples, None, tuple(p for p in good if p not in skipped), warnings)


def _skipped(config: FolderConfig, images: Sequence[Path], max_megapixels: int) -> dict[Path, str]:
    """The images that are left out because they cannot be read, with the reasons."""
    return photographs.unreadable(images, max_megapixels) if config.unreadable == "skip" else {}


def _known_good(folder: Path) -> tuple[Path, ...]:
    """The photographs right in a folder.

    Raises:
        InputError: there are none.
    """
    found = tuple(images_in(existing(folder, "dataset.good")).values())
    if not found:
        raise InputError(
            f"{folder}: no images; dataset.good=… expects known-good photographs right in it"
        )
    return found


def _assemble(
    types: Sequence[_TypeFolder],
    root: Path,
    *,
    normal: str | None,
    unscored: Iterable[str],
    train: Iterable[Path] = (),
) -> Dataset:
    """Combine the types into samples and labels; the normal class first, the others by name."""
    folders = [folder.folder for folder in types]
    types = [folder for folder in types if folder.images]
    names = sorted((folder.name for folder in types), key=lambda name: (name != normal, name))
    classes = [name for name in names if name not in set(unscored)]
    samples, targets = [], []
    for folder in types:
        missing = sorted(folder.images.keys() - folder.masks.keys()) if folder.masks else []
        if missing and folder.name != normal:
            raise InputError(
                f"{folder.images[missing[0]]}: no truth mask, though other images of "
                f"{folder.name} have one; add it (an empty one if there is no defect)"
            )
        for stem, path in folder.images.items():
            samples.append(Sample(f"{folder.name}/{stem}", path, folder.masks.get(stem)))
            targets.append(classes.index(folder.name) if folder.name in classes else UNLABELLED)
    labels = Labels(tuple(classes), np.array(targets, np.int64), 0 if normal in classes else None)
    return _complete(Dataset(tuple(samples), labels, tuple(train)), root, folders)


def _complete(
    dataset: Dataset, root: Path, folders: Iterable[Path], skipped: dict[Path, str] | None = None
) -> Dataset:
    """The dataset, with warnings about pictures in or below its folders that are not read.

    Raises:
        InputError: it is empty.
    """
    folders = list(folders)
    found = Counter(path.suffix.lower() for folder in folders for path in files_in(folder))
    if not dataset.samples:
        deeper = first_images_below(root)
        instead = f"; there are images deeper, in {deeper}" if deeper else ""
        raise InputError(_no_images(root, found) + instead)
    warnings = list(photographs.unreadable_warnings(skipped or {}))
    others = Counter({suffix: found[suffix] for suffix in OTHER_SUFFIXES if found[suffix]})
    if others:
        shown = photographs.listed(others)
        warnings.append(f"{root}: {shown} not read; convert them to PNG or JPEG to use them")
    warnings += [
        f"{deeper}: its images are not read, since they are deeper than {folder}; move them there "
        "to use them"
        for folder in folders
        if folder != root and (deeper := first_images_below(folder))
    ]
    return replace(dataset, warnings=tuple(warnings))


def _no_images(root: Path, found: Counter[str]) -> str:
    instead = f"; found {photographs.listed(found)}" if found else ""
    return f"{root}: no images; expected files ending in {', '.join(SUFFIXES)}{instead}"


def one_photograph(path: Path, max_megapixels: int) -> Dataset:
    """A dataset of one image without labels, named by its file.

    Raises:
        InputError: as `with_headers_read`.
    """
    return with_headers_read(Dataset((Sample(path.stem, path),), None), max_megapixels)


def with_headers_read(dataset: Dataset, max_megapixels: int = MAX_MEGAPIXELS) -> Dataset:
    """Check the header of each file; the dataset, with warnings that follow from the headers.

    Raises:
        InputError: a file has an unsupported format, or too many pixels.
    """

    def pages_of(path: Path, what: str) -> int:
        return read_header(path, what, max_megapixels).pages

    images = [*(sample.image for sample in dataset.samples), *dataset.train]
    masks = [sample.truth_mask for sample in dataset.samples if sample.truth_mask is not None]
    with ThreadPoolExecutor() as pool:
        pages = list(pool.map(pages_of, images, ["image"] * len(images)))
        list(pool.map(pages_of, masks, ["mask"] * len(masks)))
    with_more: dict[Path, list[Path]] = {}
    for path, count in zip(images, pages, strict=True):
        if count > 1:
            with_more.setdefault(path.parent, []).append(path)
    warnings = tuple(
        f"{paths[0]}{and_more(paths, 'file')}: more than one page in a file; only the first is used"
        for paths in with_more.values()
    )
    return replace(dataset, warnings=dataset.warnings + warnings)
