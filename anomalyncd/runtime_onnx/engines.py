"""The two engines that run a deployed model's graphs, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from anomalyncd.errors import InputError
from anomalyncd.runtime_onnx import container

if TYPE_CHECKING:  # only that of the file is needed
    import onnxruntime
    import openvino

Arrays = dict[str, NDArray]
# What goes into the graphs and what comes out. s = size of a square; n regions; K classes.
PHOTOGRAPH = "photograph_{}"  # (1, s, s, 3) uint8 RGB, of each size of the detector
LEFT_OUT = "left_out"  # (members,) bool: photographs that the detector must not compare with
SCORES = "scores_{}"  # (h, w) float32, of each size, at the map's size and not smoothed yet
VIEWS, MASKS = "views", "masks"  # (n, s, s, 3) uint8 RGB and (n, s, s) uint8, 255 = anomalous
PROBABILITIES = "probabilities"  # (n, K) float32
APPEARANCE = "appearance"  # (n, width) float32, for the unknown score
TOKENS = "tokens"  # (n, width) float32 class tokens


class Engine(Protocol):
    """A file's graphs, ready to run."""

    metadata: dict[str, str]

    def detector(self, inputs: Arrays) -> Arrays:
        """PHOTOGRAPH and LEFT_OUT → SCORES."""
        ...

    def network(self, inputs: Arrays) -> Arrays:
        """VIEWS and MASKS → PROBABILITIES, APPEARANCE, TOKENS."""
        ...


def opened(path: Path, threads: int) -> Engine:
    """The engine of a file: ONNX Runtime for .onnx, OpenVINO for .xml.

    Args:
        path: the file.
        threads: to compute with; 0: as many as there are cores.

    Raises:
        InputError: the file is of neither kind or damaged, or the engine is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected one that anomalyncd export has written")
    kinds: dict[str, type[OnnxRuntime] | type[OpenVino]] = {
        ".onnx": OnnxRuntime,
        ".xml": OpenVino,
    }
    if path.suffix not in kinds:
        raise InputError(f"{path}: expected a file ending in {' or '.join(kinds)}")
    try:
        return kinds[path.suffix](path, threads)
    except ModuleNotFoundError as error:
        name = str(error.name).partition(".")[0]
        raise InputError(
            f"{path} needs {name}, which is not installed: pip install {name}"
        ) from None


class OnnxRuntime:
    """Runs an .onnx file."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # would hold 200 MB more, to be 6 % faster
        outer, inner = container.split(path)
        self._path = path

        def session(model: bytes) -> onnxruntime.InferenceSession:
            try:
                return onnxruntime.InferenceSession(
                    model, options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # its errors share no other class
                reason = (str(error).splitlines() or [""])[0]
                raise InputError(
                    f"{path}: ONNX Runtime cannot load it ({reason}); export the run again"
                ) from error

        self._network = session(outer)
        self._detector = None if inner is None else session(inner)
        self.metadata = dict(self._network.get_modelmeta().custom_metadata_map)

    def detector(self, inputs: Arrays) -> Arrays:
        """See `Engine`."""
        return self._run(self._detector, inputs)

    def network(self, inputs: Arrays) -> Arrays:
        """See `Engine`."""
        return self._run(self._network, inputs)

    def _run(self, session: onnxruntime.InferenceSession | None, inputs: Arrays) -> Arrays:
        with _computing(self._path, session):
            assert session is not None
            names = [output.name for output in session.get_outputs()]
            return dict(zip(names, session.run(names, inputs), strict=True))


class OpenVino:
    """Runs an .xml file, with the .bin beside it."""

    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        self._path = path
        core = openvino.Core()
        try:
            model = core.read_model(path)
            self.metadata = {
                str(name): str(model.get_rt_info(["anomalyncd", name]).value)
                for name in model.get_rt_info()["anomalyncd"]
            }
        except (RuntimeError, ValueError, KeyError) as error:
            reason = (str(error).strip().splitlines() or [""])[-1]
            raise InputError(
                f"{path}: not written by anomalyncd export, or damaged ({reason}); export again"
            ) from error
        if not self.metadata:
            raise InputError(f"{path}: not written by anomalyncd export; expected such a file")
        # By itself it computes in bfloat16 where the processor can: 11 % faster on screws, and a
        # tenth of the photographs gets another class. Matrix products of int8 stay in 8 bits.
        settings: dict[str, int | str] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads

        def compiled(outputs: list, inputs: set[str]) -> openvino.CompiledModel:
            needed = [i.get_node() for i in model.inputs if i.any_name in inputs]
            part = openvino.Model([o.get_node() for o in outputs], needed, "part")
            return core.compile_model(part, "CPU", settings)

        of_network = {PROBABILITIES, APPEARANCE, TOKENS}
        network = [o for o in model.outputs if o.names & of_network]
        detector = [o for o in model.outputs if not o.names & of_network]
        self._network = compiled(network, {VIEWS, MASKS})
        others = {i.any_name for i in model.inputs} - {VIEWS, MASKS}
        self._detector = compiled(detector, others) if detector else None

    def detector(self, inputs: Arrays) -> Arrays:
        """See `Engine`."""
        return self._run(self._detector, inputs)

    def network(self, inputs: Arrays) -> Arrays:
        """See `Engine`."""
        return self._run(self._network, inputs)

    def _run(self, model: openvino.CompiledModel | None, inputs: Arrays) -> Arrays:
        with _computing(self._path, model):
            assert model is not None
            found = model(inputs)
            # An output may have several names, of which `any_name` gives any.
            return {name: np.array(found[output]) for output in found for name in output.names}


@contextmanager
def _computing(path: Path, model: object) -> Iterator[None]:
    """Whatever an engine makes of a graph that does not fit the card becomes one InputError."""
    if model is None:
        raise InputError(f"{path}: its card names a detector that it lacks; export the run again")
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # the engines' errors share no other class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: its graphs do not fit its card ({reason[:300]}); export the run again"
        ) from error
