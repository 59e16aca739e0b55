"""Where each dataset is published, under which licence, and what a complete copy holds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RemoteFile:
    """A file that several addresses may offer; the first that works is used."""

    name: str
    addresses: tuple[str, ...]
    sha256: str | None  # None: not published and not stable, so only the content can be checked


@dataclass(frozen=True)
class Source:
    title: str
    page: str  # for people: what it is, and where to download it by hand
    licence: str
    archive: RemoteFile | None  # None: no address that a program can download from
    beside: tuple[RemoteFile, ...] = ()  # not in the archive, but part of the dataset
    images: dict[str, int] = field(default_factory=dict)  # number in each group, as published
    regions: int | None = None  # regions that a base set yields, as published
    separable: bool = False  # one category is useful without the others


# Images for training; good and defective ones for testing. From the dataset's paper (IJCV 2021).
_MVTEC_IMAGES = {
    "bottle": (209, 20, 63),
    "cable": (224, 58, 92),
    "capsule": (219, 23, 109),
    "carpet": (280, 28, 89),
    "grid": (264, 21, 57),
    "hazelnut": (391, 40, 70),
    "leather": (245, 32, 92),
    "metal_nut": (220, 22, 93),
    "pill": (267, 26, 141),
    "screw": (320, 41, 119),
    "tile": (230, 33, 84),
    "toothbrush": (60, 12, 30),
    "transistor": (213, 60, 40),
    "wood": (247, 19, 60),
    "zipper": (240, 32, 119),
}

MVTEC = Source(
    title="MVTec AD",
    page="https://www.mvtec.com/company/research/datasets/mvtec-ad",
    licence="CC BY-NC-SA 4.0: not for commercial use",
    archive=RemoteFile(
        "mvtec_anomaly_detection.tar.xz",
        # MVTec changes its share links without notice; the last is a mirror of the same bytes.
        (
            "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27"
            "/download/420938113-1629960298/mvtec_anomaly_detection.tar.xz",
            "https://www.mydrive.ch/shares/38536/3830184030e49fe74747669442f0f283"
            "/download/420938113-1629960298/mvtec_anomaly_detection.tar.xz",
            "https://huggingface.co/datasets/micguida1/mvtech_anomaly_detection"
            "/resolve/main/mvtec_anomaly_detection.tar.xz",
        ),
        "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
    ),
    images={
        f"{category}/{group}": number
        for category, numbers in _MVTEC_IMAGES.items()
        for group, number in zip(("train/good", "test/good", "test/defects"), numbers, strict=True)
    },
    separable=True,
)

MTD = Source(
    title="Magnetic Tile Defects",
    page="https://github.com/abin24/Magnetic-tile-defect-datasets.",
    licence="none stated; its authors welcome its use and ask to be cited",
    archive=RemoteFile(
        "magnetic_tile_defects.zip",
        (
            "https://github.com/abin24/Magnetic-tile-defect-datasets./archive/refs/heads/master.zip",
            "https://codeload.github.com/abin24/Magnetic-tile-defect-datasets./zip/refs/heads/master",
        ),
        sha256=None,  # packed again for each request: its bytes may change, the images do not
    ),
    beside=(
        RemoteFile(
            "mtd_train_filenames.txt",
            (
                "https://raw.githubusercontent.com/marco-rudolph/differnet"
                "/13529c8a79508a930df3618cf6718358a87b8719/mtd_train_filenames.txt",
                "https://github.com/marco-rudolph/differnet/raw"
                "/13529c8a79508a930df3618cf6718358a87b8719/mtd_train_filenames.txt",
            ),
            "ddf6ddb1b4a123d9506a4d25e870ad32e2b845386c55201fca8307fdc7e62652",
        ),
    ),
    images={
        "MT_Blowhole": 115,
        "MT_Break": 85,
        "MT_Crack": 57,
        "MT_Fray": 32,
        "MT_Free": 952,
        "MT_Uneven": 103,
    },
)

AEBAD = Source(
    title="AeBAD-S",
    page="https://github.com/zhangzilongc/MMR",
    licence="CC BY 4.0",
    archive=None,  # on file-sharing services that require a person to confirm
    regions=1278,  # of the four classes, at most two per image
)
