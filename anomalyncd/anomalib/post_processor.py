"""Main element binarization inside anomalib's pipelines."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from anomalyncd.data.levels import on_levels
from anomalyncd.errors import InputError
from anomalyncd.regions.mebin_torch import Binarized, binarize

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what anomalib imports
    import lightning.pytorch as pl
    from anomalib.data import InferenceBatch
    from anomalib.post_processing import PostProcessor
    from torchmetrics import MaxMetric, MinMetric


class MainElementPostProcessor(PostProcessor):
    """MEBin with the release's semantics, for `Patchcore(post_processor=…)` and any other model.

    The search range is that of a whole category: it is collected over the validation images, then
    fixed, so that a mask does not depend on its image's batch, and saved with the model. As in the
    release, maps become integers 0 … 255 over the range of all validation maps, and masks are
    eroded. With the test images as validation images, which is anomalib's default, masks equal
    those of `mebin.binarize`.

    A batch gets `pred_mask` and, beside anomalib's own fields, `element_counts` (n,) int64, the
    number of main elements in each image, 0 for none, and `element_thresholds` (n,) int64, on the
    scale 0 … 255. Scores, labels and the scaling of maps remain anomalib's.

    Runs in Python (validate, test, predict, torch inference) on the device of the maps; counting
    components cannot be exported to ONNX or OpenVINO.

    Args:
        step: distance between thresholds on the scale 0 … 255.
        min_interval: successive thresholds that an equal count must hold to be stable.
        erosion: side of the eroding square; 0 = no erosion.
        **kwargs: of anomalib's `PostProcessor`.
    """

    # Of the validation maps; NaN before validation.
    lowest_score: Tensor
    lowest_peak: Tensor
    highest_peak: Tensor

    def __init__(
        self, step: int = 4, min_interval: int = 4, erosion: int = 6, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.step, self.min_interval, self.erosion = step, min_interval, erosion
        for name in ("lowest_score", "lowest_peak", "highest_peak"):
            self.register_buffer(name, torch.tensor(float("nan")))
        # Metrics gather over several devices; the buffers keep what they found.
        self._lowest_score, self._lowest_peak = MinMetric(), MinMetric()
        self._highest_peak = MaxMetric()

    @property
    def _checkpoint_config_keys(self) -> tuple[str, ...]:
        return (*super()._checkpoint_config_keys, "step", "min_interval", "erosion")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().on_validation_batch_end(trainer, pl_module, outputs, *args, **kwargs)
        if outputs.anomaly_map is not None:
            peaks = outputs.anomaly_map.amax((-2, -1))
            self._lowest_score.update(outputs.anomaly_map.amin())
            self._lowest_peak.update(peaks)
            self._highest_peak.update(peaks)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        for buffer, metric in (
            (self.lowest_score, self._lowest_score),
            (self.lowest_peak, self._lowest_peak),
            (self.highest_peak, self._highest_peak),
        ):
            if metric.update_called:
                buffer.copy_(metric.compute())
                metric.reset()

    def post_process_batch(self, batch: Any) -> None:
        if self.enable_thresholding and batch.anomaly_map is not None:
            found = self.main_elements(batch.anomaly_map)
            batch.pred_mask = found.masks
            batch.element_counts = found.counts
            batch.element_thresholds = found.thresholds
        super().post_process_batch(batch)

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        processed = super().forward(predictions)
        maps = predictions.anomaly_map
        if not self.enable_thresholding or maps is None:
            return processed
        masks = self.main_elements(maps.reshape(-1, *maps.shape[-2:])).masks
        return processed._replace(pred_mask=masks.reshape(maps.shape))

    def main_elements(self, maps: Tensor) -> Binarized:
        """Binarize raw maps (n, h, w) over the range of the validation maps.

        Raises:
            InputError: there has been no validation.
        """
        if self.lowest_peak.isnan():
            raise InputError(
                "MainElementPostProcessor has no search range yet: it is that of the validation "
                "images; call Engine.fit or Engine.validate with some before"
            )
        lo, hi = self._levels(torch.stack([self.lowest_peak, self.highest_peak])).tolist()
        return binarize(
            self._levels(maps),
            lo,
            hi,
            step=self.step,
            min_interval=self.min_interval,
            erosion=self.erosion,
        )

    def _levels(self, scores: Tensor) -> Tensor:
        """Scores as integers, uint8, rounded as those of the official maps are."""
        lowest, highest = self.lowest_score.item(), self.highest_peak.item()
        return on_levels(scores.as_subclass(Tensor), lowest, highest).to(torch.uint8)
