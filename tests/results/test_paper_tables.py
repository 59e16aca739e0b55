"""Run folders → tables: as published, with marked differences and missing runs named."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console

from anomalyncd.config import Config
from anomalyncd.errors import InputError
from anomalyncd.results.aggregate import Block, gather, ungrouped
from anomalyncd.results.paper_tables import as_csv, grids, latex, markdown, show
from anomalyncd.results.published import all_categories, look_up
from anomalyncd.storage.jobs import Job, find
from anomalyncd.storage.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
SEED = 3407
GROUPS = {
    "dataset": {"kind": "mvtec", "leave_out": [], "unscored": [], "path": "data"},
    "base": {"kind": "folder", "path": "data/aebad"},
    "detector": {"kind": "files", "path": "maps/musc"},
    "backbone": {
        **{"name": "vit_base_patch8_224.dino", "image_size": 224},
        **{"pretrained": True, "checkpoint": None},
    },
    "tracker": {"kind": "none"},
}
MUSC = look_up("mvtec", "musc-vit_large", {})
CPR = look_up("mvtec", "files-cpr", {})


def config(category: str, seed: int, detector: str, changed: dict[str, Any]) -> dict[str, Any]:
    composed = OmegaConf.merge(OmegaConf.structured(Config), {"category": category, "seed": seed})
    OmegaConf.update(composed, "output_root", "outputs")
    plain: Any = {**OmegaConf.to_container(composed), **GROUPS}
    plain["detector"] = {"kind": "files", "path": f"maps/{detector}"}
    settings = OmegaConf.create(plain)
    for key, value in changed.items():
        OmegaConf.update(settings, key, value)
    return OmegaConf.to_container(settings)  # type: ignore[return-value]


def scores(nmi: float, ari: float = 0.5, f1: float = 0.5) -> dict[str, float]:
    return {"nmi": nmi, "ari": ari, "f1": f1}


def fabricate(
    root: Path,
    category: str,
    image_scores: dict[str, float] | None = None,
    *,
    seed: int = SEED,
    detector: str = "musc",
    aupro: float | None = None,
    fpr: float | None = None,
    fnr: float | None = None,
    recall: float | None = None,
    done: bool = True,
    **changed: Any,
) -> RunFolder:
    """A run folder as a run writes it; in keys of `changed`, __ stands for a dot."""
    named = {key.replace("__", "."): value for key, value in changed.items()}
    variant = "-".join(f"{key}_{value}" for key, value in named.items()) or "plain"
    folder = RunFolder(root / "mvtec" / category / detector / variant / f"seed-{seed}")
    folder.root.mkdir(parents=True)
    text = OmegaConf.to_yaml(OmegaConf.create(config(category, seed, detector, named)))
    folder.write_text("config.yaml", text)
    if done:
        metrics = {
            "dataset": "mvtec",
            "category": category,
            "scores": {"image": image_scores},
            "detection": {"aupro": aupro, "fpr": fpr, "fnr": fnr},
            "normal_recall": {"image": recall},
        }
        folder.write_json("metrics.json", metrics)
    return folder


def blocks(root: Path) -> list[Block]:
    return gather(find([root]))


def only(root: Path) -> Block:
    (block,) = blocks(root)
    return block


@pytest.mark.parametrize("published", [MUSC, CPR], ids=["musc", "cpr"])
def test_the_published_figures_give_the_published_means(tmp_path: Path, published: Any) -> None:
    for category, figures in published.categories.items():
        fabricate(tmp_path, category, figures, detector=published.method.split()[0])
    block = only(tmp_path)
    assert len(block.rows) == 16
    assert block.notes == []
    last = block.rows[-1]
    assert last.name == "mean"
    for key in ("nmi", "ari", "f1"):
        assert f"{last.figures[key].mean:.3f}" == f"{published.mean[key]:.3f}"
    assert not any(figure.outside for row in block.rows for figure in row.figures.values())
    (line,) = [line for line in markdown(grids([block], [])).splitlines() if "| mean |" in line]
    expected = [f"{published.mean[key]:.3f}" for key in ("nmi", "ari", "f1")]
    assert re.findall(r"(?<![+−])\b0\.\d{3}", line) == [t for t in expected for _ in range(2)]


def test_mean_and_standard_deviation_over_seeds(tmp_path: Path) -> None:
    for seed, (tile, wood) in enumerate(((0.1, 0.5), (0.2, 0.6), (0.6, 0.7))):
        fabricate(tmp_path, "tile", scores(tile), seed=seed)
        fabricate(tmp_path, "wood", scores(wood), seed=seed)
    tile_row, wood_row, mean = only(tmp_path).rows
    assert tile_row.figures["nmi"].mean == pytest.approx(0.3)
    assert tile_row.figures["nmi"].std == pytest.approx(0.07**0.5)  # of 0.1, 0.2, 0.6
    assert wood_row.figures["nmi"].std == pytest.approx(0.1)
    assert mean.name == "mean of 2 of 15"
    assert mean.figures["nmi"].mean == pytest.approx(0.45)
    # of the means of each seed, 0.3, 0.4, 0.65; not the mean of the deviations
    assert mean.figures["nmi"].std == pytest.approx((0.065 / 2) ** 0.5)


def test_neither_one_seed_nor_an_incomplete_one_gives_a_deviation(tmp_path: Path) -> None:
    for category in ("tile", "wood"):
        fabricate(tmp_path, category, scores(0.4), seed=0)
    fabricate(tmp_path, "tile", scores(0.6), seed=1)
    tile, wood, mean = only(tmp_path).rows
    assert tile.figures["nmi"].std == pytest.approx(0.02**0.5)
    assert wood.figures["nmi"].std is None
    assert mean.figures["nmi"].std is None
    assert mean.figures["nmi"].mean == pytest.approx(0.45)  # of the categories' 0.5 and 0.4
    assert "wood (seed 1)" in only(tmp_path).notes[-1]


def test_figures_outside_the_tolerance_are_marked(tmp_path: Path) -> None:
    shift = dict.fromkeys(MUSC.categories, 0.0) | {"bottle": 0.081, "cable": 0.079, "wood": -0.081}
    for category, figures in MUSC.categories.items():
        moved = {key: value + shift[category] for key, value in figures.items()}
        fabricate(tmp_path, category, moved)
    rows = {row.name: row for row in only(tmp_path).rows}
    outside = {name for name, row in rows.items() if row.figures["f1"].outside}
    assert outside == {"bottle", "wood"}  # together they move the mean by 0.005
    assert rows["cable"].figures["f1"].difference == pytest.approx(0.079)
    text = markdown(grids([only(tmp_path)], []))
    assert "**+0.081*** |" in text
    assert "**−0.081*** |" in text


@pytest.mark.parametrize(("moved", "outside"), [(0.0095, False), (0.0115, True), (-0.0115, True)])
def test_the_mean_has_its_own_tolerance(tmp_path: Path, moved: float, outside: bool) -> None:
    for category, figures in MUSC.categories.items():
        fabricate(tmp_path, category, {key: value + moved for key, value in figures.items()})
    assert only(tmp_path).rows[-1].figures["nmi"].outside == outside


def test_some_categories_are_compared_with_the_same_published_ones(tmp_path: Path) -> None:
    for category in ("tile", "wood"):
        fabricate(tmp_path, category, MUSC.categories[category])
    mean = only(tmp_path).rows[-1].figures["nmi"]
    assert mean.published == pytest.approx((0.885 + 0.743) / 2)
    assert mean.difference == pytest.approx(0)


def test_a_part_is_not_compared_with_a_mean_over_all_categories(tmp_path: Path) -> None:
    fabricate(tmp_path, "tile", scores(0.5), detector="patchcore")
    block = only(tmp_path)
    assert not block.compared
    assert "0.670" in markdown(grids([block], []))
    for category in set(all_categories("mvtec")) - {"tile"}:
        fabricate(tmp_path, category, scores(0.5), detector="patchcore")
    assert only(tmp_path).rows[-1].figures["nmi"].published == 0.67


def test_own_products_in_the_mvtec_layout_are_not_compared(tmp_path: Path) -> None:
    fabricate(tmp_path, "my_product", scores(0.5))
    block = only(tmp_path)
    assert block.published is None
    assert block.notes == []


def test_no_run_is_skipped_silently(tmp_path: Path) -> None:
    fabricate(tmp_path, "tile", scores(0.5))
    fabricate(tmp_path, "wood", None)
    broken = fabricate(tmp_path, "grid", done=False)
    broken.note_progress(failed="out of memory:\n lower train.batch_size")
    fabricate(tmp_path, "pill", done=False).note_progress(
        stage="train", unit="epoch", done=3, total=50
    )
    damaged = fabricate(tmp_path, "cable", scores(0.5))
    damaged.write_text("metrics.json", '{"scores": ')
    aside = fabricate(tmp_path, "screw", scores(0.5))
    aside.archive()
    with fabricate(tmp_path, "zipper", done=False).held():
        jobs = find([tmp_path])
    (block,) = gather(jobs)
    assert block.notes[:4] == [
        "running: zipper",
        "failed: grid: out of memory: lower train.batch_size",
        "stopped: pill",
        "no labels, so no scores: wood",
    ]
    assert block.notes[4] == "not run: 10 of 15 products"
    (note_of_damaged,) = ungrouped(jobs)
    assert str(damaged.root) in note_of_damaged
    for text in (
        markdown(grids([block], [note_of_damaged])),
        latex(grids([block], [note_of_damaged])),
        as_csv([block], [note_of_damaged]),
    ):
        for note in (*block.notes, note_of_damaged):
            assert note in text.replace('"', "")


def test_a_sweep_of_failures_still_has_a_table(tmp_path: Path) -> None:
    fabricate(tmp_path, "tile", done=False).note_progress(failed="no maps")
    text = markdown(grids(blocks(tmp_path), []))
    assert "no scores" in text
    assert "failed: tile: no maps" in text


def test_variants_are_separate_blocks(tmp_path: Path) -> None:
    for masked in ("none", "class_token"):
        for seed in (0, 1):
            fabricate(tmp_path, "tile", scores(0.5), seed=seed, attention__masked_queries=masked)
    fabricate(tmp_path, "tile", scores(0.5), train__epochs=9)
    fabricate(tmp_path, "tile", scores(0.5), backbone__name="vit_tiny", backbone__pretrained=False)
    fabricate(tmp_path, "tile", scores(0.5), detector="cpr", train__epochs=9)
    made = blocks(tmp_path)
    variants = [(b.detector, b.backbone.split()[0], b.settings, b.seeds) for b in made]
    dino, on_class = GROUPS["backbone"]["name"], {"attention.masked_queries": "class_token"}
    assert variants == [
        ("files-cpr", dino, {"train.epochs": 9}, (SEED,)),
        ("files-musc", dino, {**on_class, "train.epochs": 9}, (SEED,)),
        ("files-musc", dino, {**on_class, "train.epochs": 50}, (0, 1)),
        ("files-musc", dino, {"attention.masked_queries": "none", "train.epochs": 50}, (0, 1)),
        ("files-musc", "vit_tiny", {**on_class, "train.epochs": 50}, (SEED,)),
    ]
    assert "untrained" in next(b.backbone for b in made if b.backbone.startswith("vit_tiny"))
    overview = grids(made, [])[-1]
    assert len({row[0] for row in overview.rows}) == 5


def test_an_ablation_is_compared_with_its_own_figures(tmp_path: Path) -> None:
    for category in all_categories("mvtec"):
        fabricate(tmp_path, category, scores(0.598), attention__masked_queries="none")
    assert only(tmp_path).rows[-1].figures["nmi"].published == 0.598
    assert look_up("mtd", "musc", {"attention.masked_queries": "none"}) is None


def test_an_ablation_names_what_each_variant_changes(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"fusion__weighting": "score"}, {"mebin__step": 8}]
    for change in [*changes, {"attention__masked_queries": "none"}]:
        fabricate(tmp_path, "tile", scores(0.5), **change)
    overview = grids(blocks(tmp_path), [])[-1]
    names = {row[0].partition(" (")[0] for row in overview.rows}
    assert names == {"default settings", "weighting: score", "step: 8", "masked_queries: none"}
    usual = "masked_queries: class_token · weighting: area · step: 4"
    assert overview.captions[0] == f"unless stated otherwise: {usual}"


def test_unpublished_variants_are_not_compared(tmp_path: Path) -> None:
    fabricate(
        tmp_path, "tile", scores(0.5), train__features="cached", regions__resize_mode="compat"
    )
    assert only(tmp_path).rows[0].figures["nmi"].published == 0.885, "computed as published"
    for number, changed in enumerate(
        ({"train__epochs": 9}, {"fusion__weighting": "average"}, {"base": {"kind": "none"}})
    ):
        root = tmp_path / str(number)
        fabricate(root, "tile", scores(0.5), **changed)
        assert only(root).rows[0].figures["nmi"].published is None
    assert look_up("mvtec", "musc-embedded", {}) is None


def test_binarizations_are_compared_with_their_own_f1(tmp_path: Path) -> None:
    for category in all_categories("mvtec"):
        fabricate(tmp_path, category, scores(0.5, f1=0.499), mebin__method="otsu")
    figures = only(tmp_path).rows[-1].figures
    assert (figures["f1"].published, figures["f1"].outside) == (0.499, False)
    assert figures["nmi"].published is None


def test_products_in_separate_folders_are_one_block(tmp_path: Path) -> None:
    for product in ("nuts", "bolts"):
        own = {"kind": "folder", "path": f"photos/{product}", "leave_out": [], "unscored": []}
        fabricate(tmp_path, product, scores(0.5), dataset=own)
    block = only(tmp_path)
    assert [row.name for row in block.rows] == ["bolts", "nuts", "mean"] and not block.notes


def test_a_table_names_the_implementation(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, "tile", scores(0.5))
    assert only(tmp_path).implementation == "corrected"
    with (folder.root / "config.yaml").open("a") as file:
        file.write("compat: release\n")
    assert "release implementation" in markdown(grids(blocks(tmp_path), []))


def test_the_same_run_in_two_places_counts_once(tmp_path: Path) -> None:
    for place, nmi in (("a", 0.2), ("b", 0.4)):
        fabricate(tmp_path / place, "tile", scores(nmi))
    (block,) = gather(find([tmp_path / "a", tmp_path / "b", tmp_path]))
    assert block.rows[0].figures["nmi"].mean == 0.2
    assert sum("found twice" in note for note in block.notes) == 1


@settings(max_examples=10)
@given(st.permutations(range(6)))
def test_the_order_of_runs_changes_nothing(order: list[int]) -> None:
    jobs = [
        Job(str(i), "done", config(category, seed, "musc", {}), "musc", scores=scores(i / 7))
        for i, (category, seed) in enumerate((c, s) for c in ("tile", "wood") for s in (0, 1, 2))
    ]
    assert gather([jobs[i] for i in order]) == gather(jobs)


def printed(root: Path, width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    show(grids(blocks(root), []), out)
    return out.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_tables_fit_the_terminal(tmp_path: Path) -> None:
    for seed in (0, 1):
        for category, figures in MUSC.categories.items():
            fabricate(tmp_path, category, figures, seed=seed)
    for width, beside in ((80, False), (120, True)):
        lines = printed(tmp_path, width)
        assert all(len(line) <= width for line in lines)
        assert any("0.613±0.000" in line and "+0.000" in line for line in lines)
        assert any("publ." in line for line in lines) == beside
        assert not any("…" in line for line in lines)  # nothing is cut off


def test_the_missing_runs_of_a_full_table_are_named(tmp_path: Path) -> None:
    for category in all_categories("mvtec")[2:]:
        for seed in (1, 2):
            if (category, seed) != ("zipper", 2):
                fabricate(tmp_path, category, scores(0.5), seed=seed)
    assert blocks(tmp_path)[0].notes == ["not run: bottle, cable, zipper (seed 2)"]


def test_csv_holds_unrounded_figures(tmp_path: Path) -> None:
    fabricate(tmp_path, "tile", scores(0.123456789), aupro=0.9)
    row, missing = csv.DictReader(io.StringIO(as_csv(blocks(tmp_path), [])))
    assert float(row["nmi_mean"]) == 0.123456789
    assert float(row["nmi_difference"]) == pytest.approx(0.123456789 - 0.885)
    assert row["nmi_outside"] == "True"
    assert (row["aupro_mean"], row["aupro_published"], row["nmi_std"]) == ("0.9", "", "")
    assert row["seeds"] == str(SEED)
    assert missing["missing"] == "not run: 14 of 15 products"
    assert missing["nmi_mean"] == ""


def test_figures_on_detection_are_shown_with_the_scores(tmp_path: Path) -> None:
    rates = {"fpr": 0.25, "fnr": 0.125}
    fabricate(tmp_path, "tile", scores(0.5), **rates, recall=0.75)
    fabricate(tmp_path, "tile", scores(0.4), mebin__method="otsu", **rates)
    plain, otsu, overview = grids(blocks(tmp_path), [])
    rates_text = "FPR 0.250 · FNR 0.125"
    assert f"{rates_text} · normal recall 0.750" in plain.captions
    assert rates_text in otsu.captions
    assert overview.header[-3:] == ["FPR", "FNR", "normal recall"]
    assert [row[-3:] for row in overview.rows] == [
        ["0.250", "0.125", "0.750"],
        ["0.250", "0.125", "–"],
    ]


def test_latex_escapes_every_special_character(tmp_path: Path) -> None:
    fabricate(tmp_path, "metal_nut", scores(0.1), attention__masked_queries="none")
    text = latex(grids(blocks(tmp_path), []))
    assert r"metal\_nut & 0.100" in text
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert not re.search(r"(?<!\\)[_%#]|[±−Δ·–]", "\n".join(body))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_the_command_prints_and_writes_the_tables(tmp_path: Path) -> None:
    fabricate(tmp_path / "out", "tile", MUSC.categories["tile"])
    command = [sys.executable, str(ROOT / "scripts/table.py")]
    done = subprocess.run(
        [*command, "out", "--out", "made"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"tile +0\.885 +0\.885 +\+0\.000", done.stdout)
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        *("tables.md", "tables.csv", "tables.tex")
    }
    failed = subprocess.run([*command, "nowhere"], cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.splitlines() == [
        "error: nowhere: no such folder; pass the output_root of runs or a subfolder"
    ]


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run found"):
        find([tmp_path])
