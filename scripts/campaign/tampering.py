"""Damaged cache entries, and run folders, model files and training states from elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from operator import methodcaller
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml  # type: ignore[import-untyped]

from scripts.campaign.files import EXECUTED
from scripts.campaign.trials import Expected, Given, Spoil, Trial

Write = Callable[[Path], object]


def trials() -> Iterator[Trial]:
    yield from _cache_entries()
    yield from _models()
    yield from _training_states()
    yield from _run_folders()
    yield from _sweeps()
    yield from _own_runs()


def _byte_changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garbage(path: Path) -> None:
    """Of the same size and with the same times: only its content tells."""
    before = path.stat()
    path.write_bytes(os.urandom(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replaced_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"")


def _emptied_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES: dict[str, Write] = {
    "a byte changed": _byte_changed,
    "cut in half": _cut,
    "garbage of the same size": _garbage,
    "empty": _emptied,
    "gone": Path.unlink,
    "a folder": _as_folder,
}


def _cache_entries() -> Iterator[Trial]:
    def entry(name: str, pattern: str, damage: Write) -> Trial:
        def spoil(given: Given) -> None:
            assert given.cache is not None
            found = sorted(path for path in given.cache.glob(pattern) if path.is_file())
            damage(found[0])

        return Trial("cache entry", name, spoil, expected="same", with_cache=True)

    files = {
        "regions' images": "regions-*/images.u8",
        "regions' masks": "regions-*/masks.u8",
        "regions' index": "regions-*/index.json",
        "maps' index": "maps-*/maps.json",
        "a map": "maps-*/photos/dent/*.png",
        "maps' quality": "map-quality-*/quality.json",
    }
    for what, pattern in files.items():
        for how, damage in DAMAGES.items():
            yield entry(f"{what}: {how}", pattern, damage)

    def whole_entry(name: str, damage: Write) -> Trial:
        def spoil(given: Given) -> None:
            assert given.cache is not None
            for place in sorted(given.cache.glob("[!.]*")):
                damage(place)

        return Trial("cache entry", name, spoil, expected="same", with_cache=True)

    def half_built(place: Path) -> None:
        place.rename(place.with_name(f".{place.name}.building"))

    yield whole_entry("all: a file instead of a folder", _replaced_by_file)
    yield whole_entry("all: an empty folder", _emptied_folder)
    yield whole_entry("all: half built by a killed process", half_built)


def _models() -> Iterator[Trial]:
    def model(
        name: str, change: Write, expected: Expected = "refused", names: str = "model.safetensors"
    ) -> Trial:
        def spoil(given: Given) -> None:
            assert given.run is not None
            change(given.run / "model.safetensors")

        return Trial("model file", name, spoil, names, expected, script="predict.py", with_run=True)

    def tensors(convert: Callable[[str, torch.Tensor], torch.Tensor]) -> Write:
        def change(path: Path) -> None:
            header, content = _opened(path)
            _save(path, header, {key: convert(key, value) for key, value in content.items()})

        return change

    def header(edit: Callable[[dict[str, Any]], object]) -> Write:
        def change(path: Path) -> None:
            stored, content = _opened(path)
            edit(stored["metadata"])
            _save(path, stored, content)

        return change

    def text(value: str) -> Write:
        def change(path: Path) -> None:
            safetensors.torch.save_file(_opened(path)[1], path, metadata={"anomalyncd": value})

        return change

    def without_header(path: Path) -> None:
        safetensors.torch.save_file(_opened(path)[1], path)

    yield model("empty", _emptied)
    yield model("cut in half", _cut)
    yield model("gone", Path.unlink)
    yield model("random bytes", lambda path: path.write_bytes(os.urandom(5000)))
    yield model("header of 2⁶² bytes", lambda path: path.write_bytes(struct.pack("<Q", 2**62)))
    yield model("no header", without_header)
    yield model("header: no JSON", text("{"))
    yield model("header: a list", text("[]"))
    yield model("header: a number", text("3"))
    yield model("header: null", text("null"))
    yield model("header: nested 100,000 deep", text("[" * 100_000))
    yield model("header: another format", text('{"format": 99}'))
    yield model("header: no metadata", text('{"format": 1}'))
    yield model("header: metadata is a list", text('{"format": 1, "metadata": []}'))
    yield model("weights: NaN", tensors(lambda _, t: torch.full_like(t, torch.nan)))
    yield model("weights: one infinite", tensors(_one_infinite))
    yield model("weights: int32", tensors(lambda _, t: t.to(torch.int32)))
    yield model("weights: float16", tensors(lambda _, t: t.half()), "either")
    yield model("weights: other shapes", tensors(lambda _, t: t.flatten()[:1].clone()))
    yield model("weights: none", lambda path: _save(path, _opened(path)[0], {}))

    def one_left_over(path: Path) -> None:
        stored, content = _opened(path)
        _save(path, stored, {**content, "more": torch.zeros(2)})

    yield model("weights: one left over", one_left_over)
    for key in (
        *("backbone", "backbone_source", "attention", "mebin", "regions", "fusion", "train"),
        *("raw_range", "head", "base_classes", "class_names", "frozen_hash"),
    ):
        yield model(f"metadata without {key}", header(methodcaller("pop", key)))
        yield model(f"metadata: {key} as an object", header(methodcaller("update", {key: {}})))
    edits: dict[str, Callable[[dict[str, Any]], object]] = {
        "head 99": lambda r: r.update(head=99),
        "head −1": lambda r: r.update(head=-1),
        "head as a list": lambda r: r.update(head=[1]),
        "no class names": lambda r: r.update(class_names=[]),
        "class names as numbers": lambda r: r.update(class_names=[1, 2, 3]),
        "a million base classes": lambda r: r.update(base_classes=["x"] * 1_000_000),
        "range of text": lambda r: r.update(raw_range=["a", "b"]),
        "range of one number": lambda r: r.update(raw_range=[1.0]),
        "range of NaN": lambda r: r.update(raw_range=[float("nan")] * 2),
        "unknown backbone": lambda r: r["backbone"].update(name="nothing"),
        "backbone without its size": lambda r: r["backbone"].pop("image_size"),
        "backbone of size 10⁹": lambda r: r["backbone"].update(image_size=10**9),
        "backbone's size as text": lambda r: r["backbone"].update(image_size="x"),
        "a weights file elsewhere": lambda r: r["backbone"].update(checkpoint="/dev/zero"),
        "a weights file over the network": lambda r: r["backbone"].update(checkpoint="//host/x"),
        "unknown setting": lambda r: r["train"].update(new=1),
        "heads: 10⁹": lambda r: r["train"].update(heads=10**9),
        "temperature 0": lambda r: r["train"].update(student_temperature=0),
        "temperature as text": lambda r: r["train"].update(student_temperature="hot"),
        "search range of text": lambda r: r["mebin"].update(search_range=["a", "b"]),
        "search range upside down": lambda r: r["mebin"].update(search_range=[200, 3]),
        "unknown binarization": lambda r: r["mebin"].update(method="magic"),
        "padding of −1": lambda r: r["regions"].update(padding=-1),
        "masked blocks as text": lambda r: r["attention"].update(masked_blocks="all"),
        "hash of other weights": lambda r: r.update(frozen_hash="0" * 32),
    }
    for name, edit in edits.items():
        yield model(f"metadata: {name}", header(edit), names="")
    yield model(
        "metadata: class names with control characters",
        header(lambda r: r.update(class_names=["\x1b]0;x\x07", "b\nc", "=1+1"])),
        "either",
    )

    def leftover(given: Given) -> None:
        (given.work / "predicted").mkdir()
        (given.work / "predicted" / "predictions.csv").write_text("half")

    yield Trial(
        *("prediction", "predictions.csv of a killed prediction", leftover, "predictions.csv"),
        *("either", "predict.py"),
        with_run=True,
    )


def _opened(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with safetensors.safe_open(path, framework="pt") as file:
        content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["anomalyncd"]), content


def _save(path: Path, header: dict[str, Any], content: dict[str, torch.Tensor]) -> None:
    path.unlink()  # what is mapped must not change
    safetensors.torch.save_file(content, path, metadata={"anomalyncd": json.dumps(header)})


def _one_infinite(name: str, tensor: torch.Tensor) -> torch.Tensor:
    changed = tensor.clone()
    changed.view(-1)[0] = torch.inf
    return changed


def _training_states() -> Iterator[Trial]:
    """A state beside a run that has no metrics yet, so that training would resume from it."""

    def state(name: str, change: Write) -> Trial:
        def spoil(given: Given) -> None:
            assert given.run is not None
            (given.run / "metrics.json").unlink()
            kept = given.run / "training.safetensors"
            shutil.copyfile(given.run / "model.safetensors", kept)
            change(kept)

        return Trial(
            *("training state", name, spoil, "training.safetensors", "either"),
            with_run=True,
            with_cache=True,
        )

    def header(value: dict[str, Any]) -> Write:
        return lambda path: _save(path, value, _opened(path)[1])

    yield state("empty", _emptied)
    yield state("cut in half", _cut)
    yield state("a folder", _as_folder)
    yield state("random bytes", lambda path: path.write_bytes(os.urandom(3000)))
    yield state("a model instead", lambda path: None)
    yield state("no fingerprint", header({"format": 1}))
    yield state("of other data", header({"format": 1, "fingerprint": "x", "epochs_done": 1}))
    yield state("of other data, without its epoch", header({"format": 1, "fingerprint": "x"}))
    yield state("fingerprint as a list", header({"format": 1, "fingerprint": []}))


def _run_folders() -> Iterator[Trial]:
    """A sound run, and beside it one that is odd: status.py, table.py and train.py meet both."""

    def beside(name: str, change: Write) -> Iterator[Trial]:
        def spoil(given: Given) -> None:
            assert given.run is not None
            odd = given.run.with_name("seed-77")
            shutil.copytree(given.run, odd)
            change(odd)

        for script in ("scripts/status.py", "scripts/table.py"):
            short = Path(script).stem
            yield Trial(
                *(f"run folder, {short}.py", name, spoil, "", "shown", script), with_run=True
            )

    def content(file: str, value: str | bytes) -> Write:
        raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        return lambda folder: (folder / file).write_bytes(raw)

    def metrics(edit: Callable[[dict[str, Any]], object]) -> Write:
        def change(folder: Path) -> None:
            figures = json.loads((folder / "metrics.json").read_text())
            edit(figures)
            (folder / "metrics.json").write_text(json.dumps(figures))

        return change

    def config(edit: Callable[[dict[str, Any]], object]) -> Write:
        def change(folder: Path) -> None:
            settings = yaml.safe_load((folder / "config.yaml").read_text())
            edit(settings)
            (folder / "config.yaml").write_text(yaml.safe_dump(settings))

        return change

    def unfinished(value: str) -> Write:
        def change(folder: Path) -> None:
            (folder / "metrics.json").unlink()
            (folder / "progress.json").write_text(value)

        return change

    changes: dict[str, Write] = {
        "config.yaml: empty": content("config.yaml", ""),
        "config.yaml: no YAML": content("config.yaml", "{a: ["),
        "config.yaml: a list": content("config.yaml", "- 1\n- 2\n"),
        "config.yaml: text": content("config.yaml", "hello"),
        "config.yaml: binary": content("config.yaml", bytes(range(256))),
        "config.yaml: gone": lambda folder: (folder / "config.yaml").unlink(),
        "config.yaml: a folder": lambda folder: _as_folder(folder / "config.yaml"),
        "config.yaml: only a detector": content("config.yaml", "detector: {kind: files, path: x}"),
        "config.yaml: nested 5,000 deep": content("config.yaml", "a: " + "[" * 5000 + "]" * 5000),
        "config.yaml: aliases that grow": content("config.yaml", _billion_laughs()),
        "config.yaml: planted code": content(
            "config.yaml", f"a: !!python/object/apply:os.system ['touch {EXECUTED}']"
        ),
        "config.yaml: environment variable": config(
            lambda c: c["detector"].update(path="${oc.env:CAMPAIGN_SECRET}")
        ),
        "config.yaml: environment variable as category": config(
            lambda c: c.update(category="${oc.env:CAMPAIGN_SECRET}")
        ),
        "config.yaml: own resolver": config(
            lambda c: c["detector"].update(path="${own_gpu:executed,1}")
        ),
        "config.yaml: control characters": config(
            lambda c: c.update(category="\x1b[31mred\x1b]0;title\x07")
        ),
        "config.yaml: markup of the table": config(lambda c: c.update(category="[red]x[/blue]")),
        "config.yaml: detector null": config(lambda c: c.update(detector=None)),
        "config.yaml: detector as text": config(lambda c: c.update(detector="files")),
        "config.yaml: unknown detector": config(lambda c: c["detector"].update(kind="odd")),
        "config.yaml: seed as a list": config(lambda c: c.update(seed=[1])),
        "config.yaml: no dataset": config(lambda c: c.pop("dataset")),
        "config.yaml: dataset as text": config(lambda c: c.update(dataset="folder")),
        "config.yaml: category as a number": config(lambda c: c.update(category=3)),
        "config.yaml: unknown setting": config(lambda c: c["train"].update(new=1)),
        "config.yaml: train null": config(lambda c: c.update(train=None)),
        "config.yaml: keys that are no text": content("config.yaml", "1: 2\n[3, 4]: 5\n"),
        "metrics.json: empty": content("metrics.json", ""),
        "metrics.json: a list": content("metrics.json", "[]"),
        "metrics.json: null": content("metrics.json", "null"),
        "metrics.json: {}": content("metrics.json", "{}"),
        "metrics.json: binary": content("metrics.json", bytes(range(256))),
        "metrics.json: a folder": lambda folder: _as_folder(folder / "metrics.json"),
        "metrics.json: nested 100,000 deep": content("metrics.json", "[" * 100_000),
        "metrics.json: scores as text": metrics(lambda m: m["scores"].update(image="high")),
        "metrics.json: score as text": metrics(lambda m: m["scores"]["image"].update(nmi="high")),
        "metrics.json: score null": metrics(lambda m: m["scores"]["image"].update(nmi=None)),
        "metrics.json: NaN": metrics(lambda m: m["scores"]["image"].update(nmi=float("nan"))),
        "metrics.json: 1e308": metrics(lambda m: m["scores"]["image"].update(nmi=1e308)),
        "metrics.json: no F1": metrics(lambda m: m["scores"]["image"].pop("f1")),
        "metrics.json: more scores": metrics(lambda m: m["scores"]["image"].update(odd=[1])),
        "metrics.json: no detection": metrics(lambda m: m.pop("detection")),
        "metrics.json: detection as a list": metrics(lambda m: m.update(detection=[])),
        "metrics.json: AUPRO as text": metrics(lambda m: m["detection"].update(aupro="x")),
        "metrics.json: no recall": metrics(lambda m: m.pop("normal_recall")),
        "progress.json: empty": unfinished(""),
        "progress.json: a list": unfinished("[]"),
        "progress.json: a number": unfinished("3"),
        "progress.json: nested 100,000 deep": unfinished("[" * 100_000),
        "progress.json: failed as a list": unfinished('{"failed": [1], "at": 3}'),
        "progress.json: failed with control characters": unfinished('{"failed": "\\u001b[31mx"}'),
        "progress.json: time as text": unfinished('{"stage": "train", "at": "now"}'),
        "progress.json: a unit alone": unfinished('{"unit": "epoch"}'),
        "progress.json: format in the unit": unfinished('{"unit": "{0}", "done": 1, "total": 2}'),
        "progress.json: seconds of 1e308": unfinished(
            '{"unit": "epoch", "done": 1, "total": 2, "seconds_left": 1e308, "at": 1}'
        ),
        "all: a link to itself": _linked_to_itself,
        "all: an empty folder": _emptied_folder,
        "all: a file": _replaced_by_file,
    }  # fmt: skip
    for name, change in changes.items():
        yield from beside(name, change)


def _linked_to_itself(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder.name)


def _billion_laughs() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    return "\n".join(lines)


def _sweeps() -> Iterator[Trial]:
    def sweep(name: str, value: str) -> Iterator[Trial]:
        def spoil(given: Given) -> None:
            folder = given.work / "out" / "sweeps" / "2001-01-01_00-00-00"
            folder.mkdir(parents=True)
            (folder / "jobs.json").write_text(value)

        for script in ("scripts/status.py", "scripts/table.py"):
            short = Path(script).stem
            yield Trial(
                *(f"jobs.json, {short}.py", name, spoil, "", "shown", script), with_run=True
            )

    yield from sweep("empty", "")
    yield from sweep("a number", "3")
    yield from sweep("an object", '{"a": 1}')
    yield from sweep("a list of numbers", "[1, 2]")
    yield from sweep("a job without a folder", "[{}]")
    yield from sweep("a folder as a number", '[{"folder": 3}]')
    yield from sweep("a folder with a null byte", '[{"folder": "a\\u0000b"}]')
    yield from sweep("a folder elsewhere", '[{"folder": "../../../../../../etc"}]')
    yield from sweep("settings as text", '[{"folder": "x", "settings": "y", "detector": "z"}]')
    yield from sweep(
        "settings of a stranger", '[{"folder": "x", "settings": {"a": 1}, "detector": 3}]'
    )
    yield from sweep("failure as a list", '[{"failed": [], "overrides": {}}]')
    yield from sweep("nested 100,000 deep", "[" * 100_000)


def _own_runs() -> Iterator[Trial]:
    """The command of a run whose own folder has been tampered with."""

    def own(
        name: str, spoil: Spoil, names: str = "", expected: Expected = "either", **more: Any
    ) -> Trial:
        return Trial("own run folder", name, spoil, names, expected, with_run=True, **more)

    def written(file: str, value: str) -> Spoil:
        def spoil(given: Given) -> None:
            assert given.run is not None
            (given.run / file).write_text(value)

        return spoil

    yield own("metrics.json: empty", written("metrics.json", ""), "metrics.json")
    yield own("metrics.json: a list", written("metrics.json", "[]"), "metrics.json")
    yield own("metrics.json: {}", written("metrics.json", "{}"), "metrics.json")
    yield own(
        "metrics.json: scores as text", written("metrics.json", '{"scores": "x"}'), "metrics.json"
    )
    yield own("config.yaml: empty", written("config.yaml", ""))

    def without_metrics(given: Given) -> None:
        assert given.run is not None
        (given.run / "metrics.json").unlink()

    def progress_as_folder(given: Given) -> None:
        without_metrics(given)
        assert given.run is not None
        (given.run / "progress.json").mkdir()

    def file_instead(given: Given) -> None:
        assert given.run is not None
        shutil.rmtree(given.run)
        given.run.write_text("mine")

    def lock_as_folder(given: Given) -> None:
        without_metrics(given)
        assert given.run is not None
        lock = given.run.with_name(f".{given.run.name}.lock")
        lock.unlink(missing_ok=True)
        lock.mkdir()

    def changed_image(given: Given) -> None:
        """Same names and settings, other content: the old scores must not come back."""
        from PIL import Image

        path = given.product.photos / "dent" / "1.png"
        Image.open(path).rotate(180).save(path)

    yield own("metrics.json: gone", without_metrics, expected="same", with_cache=True)
    yield own("progress.json: a folder", progress_as_folder, "progress.json")
    yield own("a file instead", file_instead, "seed-")
    yield own("its lock: a folder", lock_as_folder, "seed-")
    yield own("an image has changed since", changed_image, expected="finished")
