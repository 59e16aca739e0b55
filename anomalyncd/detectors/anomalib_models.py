"""Any anomalib image model, trained on the defect-free images and applied: maps on disk."""

from __future__ import annotations

import difflib
import inspect
import io
import logging
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomalyncd.config import AnomalibDetectorConfig
from anomalyncd.data.images import read_image
from anomalyncd.errors import InputError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of what anomalib imports
    import lightning.pytorch as pl
    from anomalib import LearningType
    from anomalib.data import ImageBatch, ImageItem
    from anomalib.models import AnomalibModule, EfficientAd
    from anomalib.models import image as image_models
    from anomalib.pre_processing import PreProcessor
    from anomalib.utils.path import get_datasets_dir
    from lightning.pytorch.utilities.seed import isolate_rng
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms.v2 import Compose, Normalize, Resize

log = logging.getLogger("anomalyncd")

MODELS: dict[str, type[AnomalibModule]] = {
    name.lower(): getattr(image_models, name)
    for name in image_models.__all__
    if name not in ("CFM", "VlmAd")  # CFM needs depth images, VlmAd answers in text
}
# Models that train with arbitrary pictures: the option for their folder, and the default source.
PICTURES = {"efficientad": ("imagenet_dir", "imagenette"), "draem": ("dtd_dir", "dtd")}
HELD_OUT = 10  # every tenth training image is held out, to scale EfficientAD's scores


def anomaly_maps(
    config: AnomalibDetectorConfig,
    train: Sequence[Path],
    images: Sequence[Path],
    device: torch.device,
) -> Iterator[NDArray[np.float32]]:
    """Train a model, if it learns, and score images with it.

    Maps are the model's own scores: anomalib's thresholds and its scaling of scores are left out.
    The whole image is seen, stretched to a square, also by models that crop in their papers, so
    that a map covers its image. The same seed gives the same maps on a CPU; the caller's random
    state stays as it is, and nothing is written but to a temporary folder and to the caches of
    downloaded weights.

    Args:
        config: which model, its options, and how long it trains.
        train: defect-free images; may be empty for models that do not learn.
        images: to be scored.
        device: where to compute.

    Yields:
        One (h, w) per image, in order, at the model's own resolution.

    Raises:
        InputError: no such model or option, no training images or no duration where the model
            needs them, weights that cannot be fetched, a model without finite maps, or whatever
            else stops anomalib.
    """
    with tempfile.TemporaryDirectory(prefix="anomalyncd-") as folder:
        log.info("anomalib: making %s; weights are downloaded the first time", config.model)
        terminal = sys.stderr
        with isolate_rng(), _silence(), _explained(config.model):
            pl.seed_everything(config.seed, verbose=False)
            model = _create(config)
            data = _Data(model, train, images, config.batch_size)
            callbacks = [_Progress(config.model, terminal), _Writer(config.model, Path(folder))]
            trainer = _trainer(config, model, device, callbacks)
            if model.learning_type == LearningType.ONE_CLASS:
                trainer.fit(model, datamodule=data)
            if isinstance(model, EfficientAd):
                model.to(device).eval()
                model.model.quantiles.update(model.map_norm_quantiles(data.held_out()))
            trainer.predict(model, datamodule=data, return_predictions=False)
        for index in range(len(images)):
            yield np.load(Path(folder, f"{index}.npy"))


def _create(config: AnomalibDetectorConfig) -> AnomalibModule:
    names = sorted(MODELS)
    name = config.model.replace("_", "").replace("-", "").lower()
    if name not in MODELS:
        close = difflib.get_close_matches(name, names) or names
        raise InputError(
            f"detector.model={config.model}: anomalib has no such image model; "
            f"expected one such as {', '.join(close)}"
        )
    model, options = MODELS[name], dict(config.options)
    if name in PICTURES:
        key, source = PICTURES[name]
        options[key] = _pictures(key, options.get(key), source)
    if model is EfficientAd and not options.pop("pre_trained", True):
        model = _UntrainedEfficientAd
    components = dict.fromkeys(("post_processor", "evaluator", "visualizer"), False)
    known = inspect.signature(MODELS[name].__init__).parameters.keys() - components
    known -= {"self", "pre_processor"}
    if unknown := sorted(options.keys() - known):
        raise InputError(
            f"detector.options.{unknown[0]}: {config.model} has no such option; "
            f"it has {', '.join(sorted(known))}"
        )
    return model(pre_processor=_whole_image(model, config.image_size), **components, **options)


class _UntrainedEfficientAd(EfficientAd):
    def prepare_pretrained_model(self) -> None:
        """Keep the teacher's random weights instead of downloading trained ones."""


def _pictures(key: str, folder: str | None, source: str) -> Path:
    """The folder of a model's training pictures: the user's, or anomalib's cache.

    anomalib's own default is below the current folder.
    """
    if folder is None:
        cached = get_datasets_dir() / source
        with suppress(OSError):
            cached.rmdir()  # empty after a failed download, and anomalib would not try again
        return cached
    path = Path(folder)
    if not path.is_dir() or not any(entry.is_dir() for entry in path.iterdir()):
        raise InputError(
            f"detector.options.{key}={folder}: expected a folder with sub-folders of pictures, "
            f"such as the data set {source}, which is downloaded without this option"
        )
    return path


def _steps(pre_processor: Any) -> list[torch.nn.Module]:
    return pre_processor.transform.transforms


def _whole_image(model: type[AnomalibModule], side: int | None) -> PreProcessor:
    """The model's own preprocessing without crops and padding, so that maps cover the image."""
    steps = [
        Resize((side, side), step.interpolation, antialias=True)
        if side and isinstance(step, Resize)
        else step
        for step in _steps(model.configure_pre_processor())
        if isinstance(step, Resize | Normalize)
    ]
    return PreProcessor(Compose(steps))


def _trainer(
    config: AnomalibDetectorConfig,
    model: AnomalibModule,
    device: torch.device,
    callbacks: list[pl.Callback],
) -> pl.Trainer:
    """A bare trainer: anomalib's Engine would write checkpoints and folders of results."""
    own = model.trainer_arguments
    trains = model.learning_type == LearningType.ONE_CLASS
    if trains and "max_epochs" not in own and config.epochs is None and config.steps is None:
        raise InputError(
            f"detector.model={config.model} has no default duration of training; "
            "give detector.epochs=… or detector.steps=…"
        )
    arguments: dict[str, Any] = {
        "max_epochs": config.epochs,
        "max_steps": config.steps or -1,
        "num_sanity_val_steps": 0,
        **own,
        "accelerator": device.type,
        "devices": 1 if device.type == "cpu" else [device.index or 0],
        "callbacks": callbacks,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(**arguments)


class _Data(pl.LightningDataModule):
    """Training and test images as anomalib's batches."""

    def __init__(
        self,
        model: AnomalibModule,
        train: Sequence[Path],
        images: Sequence[Path],
        batch_size: int,
    ) -> None:
        super().__init__()
        if not train and model.learning_type != LearningType.ZERO_SHOT:
            raise InputError(
                f"detector.model={model.name}: it learns from defect-free images and there are "
                "none; add them to the dataset (train/good), or use a detector that needs none"
            )
        resize = next(step for step in _steps(model.pre_processor) if isinstance(step, Resize))
        self.train_batch_size = batch_size  # anomalib reads this name
        held_out = train[:0]
        if isinstance(model, EfficientAd):
            self.train_batch_size = 1
            held_out = train[::HELD_OUT]
            train = [path for i, path in enumerate(train) if i % HELD_OUT] or train
        self._train = _Images(train, resize, kept=True)
        self._held_out, self._images = _Images(held_out, resize), _Images(images, resize)
        self._batch_size = batch_size

    def train_dataloader(self) -> DataLoader:
        return _loader(self._train, self.train_batch_size, shuffle=True)

    def held_out(self) -> DataLoader:
        return _loader(self._held_out, self._batch_size)

    def predict_dataloader(self) -> DataLoader:
        return _loader(self._images, self._batch_size)


class _Images(Dataset):
    """Pictures at the model's size, all labelled normal, as training needs."""

    def __init__(self, paths: Sequence[Path], resize: Resize, *, kept: bool = False) -> None:
        self._paths, self._resize = paths, resize
        self._pixels = cache(self._read) if kept else self._read

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> ImageItem:
        image = self._pixels(index) / 255
        return ImageItem(
            image=image, gt_label=torch.tensor(0), gt_mask=torch.zeros(image.shape[1:])
        )

    def _read(self, index: int) -> Tensor:
        """(3, s, s) uint8: small enough to keep, so that images are decoded once for all epochs."""
        return self._resize(torch.from_numpy(read_image(self._paths[index])).permute(2, 0, 1))


def _loader(images: _Images, batch_size: int, *, shuffle: bool = False) -> DataLoader:
    return DataLoader(images, batch_size=batch_size, shuffle=shuffle, collate_fn=ImageBatch.collate)


class _Writer(pl.Callback):
    """Writes maps to disk one by one, `<index>.npy` float32, so that memory need not hold all."""

    def __init__(self, model: str, folder: Path) -> None:
        self._model, self._folder, self._written = model, folder, 0

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: ImageBatch, *_: Any
    ) -> None:
        if outputs.anomaly_map is None:
            raise InputError(
                f"detector.model={self._model}: scores whole images and gives no anomaly maps"
            )
        for scores in outputs.anomaly_map.float().cpu().numpy():
            if not np.isfinite(scores).all():
                raise InputError(
                    f"detector.model={self._model}: its maps hold NaN or infinite values; train "
                    "it longer, on more images, or with other detector.options"
                )
            np.save(self._folder / f"{self._written}.npy", scores)
            self._written += 1


class _Progress(pl.Callback):
    """Logs each tenth of the training to the stderr from before it was silenced."""

    def __init__(self, model: str, terminal: TextIO) -> None:
        self._model, self._terminal, self._tenths = model, terminal, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        total = trainer.estimated_stepping_batches
        if trainer.global_step * 10 >= (self._tenths + 1) * total:
            self._tenths = int(trainer.global_step * 10 // total)
            with redirect_stderr(self._terminal):
                log.info("%s: step %d of %d", self._model, trainer.global_step, total)


@contextmanager
def _silence() -> Iterator[None]:
    """Hides the progress bars, tips and warnings of anomalib and its libraries."""
    loggers = [
        logging.getLogger(name)
        for name in ("anomalib", "lightning.pytorch", "lightning.fabric", "timm", "huggingface_hub")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _explained(model: str) -> Iterator[None]:
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    except InputError:
        raise
    except SystemExit as error:  # raised by Lightning on Ctrl-C; it ignores further ones
        raise KeyboardInterrupt from error
    except Exception as error:  # any error of a model: options, images, no network
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        if isinstance(error, OSError):  # URLError and the hub's errors are OSErrors
            raise InputError(
                f"detector.model={model}: what it needs could not be fetched or read ({reason}); "
                "go online once, or for a trial without pretrained weights set "
                "+detector.options.pre_trained=false where the model has it; efficientad also "
                "needs pictures of anything in +detector.options.imagenet_dir=…, draem in dtd_dir=…"
            ) from error
        raise InputError(
            f"detector.model={model}: anomalib failed ({type(error).__name__}: {reason}); check "
            "detector.options and detector.image_size (debug=true shows where)"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)
