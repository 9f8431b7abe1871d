"""What an export is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ran_deploy.backends import BACKENDS, dialect_of
from ran_deploy.calibration import CalibrationMethod
from ran_deploy.config_fields import conform_fields
from ran_deploy.converters.builders import GpuOptions
from ran_deploy.errors import ConfigError
from ran_deploy.manifest import BatchProfile, Task
from ran_deploy.precision import Precision
from ran_deploy.workflows.exporting.recipe import RecipeOptions

__all__ = ["ExportConfig", "Progress", "Report"]

Report = Callable[[str], None]
Progress = Callable[[int, int], None]  # images done, of how many


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export and how; sizes are (height, width). `golden` is a path, 'synthetic' or None for a default.

    `backends` None means every dialect, and engines for all backends that this machine can build. `task` None means
    what the checkpoint's layout is for: classification where `model` builds the network. `sign` is a private key, an
    Ed25519 PEM file. `calibration_table` is a calibration.json, or a bundle with one: its ranges are taken in place of
    calibrating if they are of this network and these calibration images. `with_attention` gives every graph the masks
    of the network as further outputs. `max_drop_pp`, in percentage points, is what INT8 may lose on `validation_data`:
    what must is kept in float. `calibration_method` None is AUTO, with a budget whichever is best. `gpu` is for
    TensorRT's engine alone.
    """

    checkpoint: Path
    output: Path
    precision: Precision = Precision.INT8
    backends: tuple[str, ...] | None = None
    calibration_data: Path | None = None
    calibration_images: int = 512
    calibration_method: CalibrationMethod | None = None
    calibration_table: Path | None = None
    max_drop_pp: float | None = None
    validation_data: Path | None = None
    batch: BatchProfile = field(default_factory=BatchProfile)
    input_size: tuple[int, int] | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)
    labels: tuple[str, ...] | None = None
    task: Task | None = None
    architecture: str | None = None
    model: str | None = None
    golden: str | Path | None = None
    with_attention: bool = False
    pack: bool = False
    overwrite: bool = False
    sign: Path | None = None
    cache_dir: Path | None = None
    gpu: GpuOptions | None = None

    def __post_init__(self) -> None:
        conform_fields(self)
        for backend in self.backends or ():
            dialect_of(backend)
        if self.precision is Precision.INT8 and self.calibration_data is None:
            raise ConfigError(
                "INT8 needs calibration data and none was given: add --calibration-data PATH with a few hundred "
                "typical images (a folder, CIFAR, IDX or .npz), or choose --precision fp16."
            )
        if self.calibration_table is not None and self.precision is not Precision.INT8:
            raise ConfigError(f"--calibration-table is for INT8; leave it out with --precision {self.precision.value}.")
        self._check_budget()
        self._check_gpu()
        if self.golden == "":  # as a path it would be the current folder
            raise ConfigError("--golden is empty; expected a path, or 'synthetic'.")
        if self.calibration_images < 1:
            raise ConfigError(f"--calibration-images is {self.calibration_images}; expected at least 1.")

    @property
    def dialects(self) -> tuple[str, ...]:
        """The dialects to lower the graph to, each once."""
        return tuple(dict.fromkeys(dialect_of(backend) for backend in self.backends or BACKENDS))

    def _check_gpu(self) -> None:
        if self.gpu is None:
            return
        if self.backends is not None and "tensorrt" not in self.backends:
            raise ConfigError(
                f"{', '.join(self.gpu.given)}: for TensorRT's engine alone; add --backend tensorrt, or leave it out."
            )
        if self.gpu.strip_weights or self.gpu.half_pixel or self.gpu.dla_core is not None:
            raise ConfigError(
                "The engine in a bundle has its weights and computes on a GPU what its graph says. Leave "
                "strip_weights, half_pixel and dla_core to ran-build, on the device."
            )

    def _check_budget(self) -> None:
        if (self.max_drop_pp is None) != (self.validation_data is None):
            raise ConfigError(
                "--max-drop is judged on labelled images, --validation-data is for judging it: give both, or neither."
            )
        if self.max_drop_pp is not None and not 0 <= self.max_drop_pp <= 100:
            raise ConfigError(f"--max-drop is {self.max_drop_pp}; expected percentage points from 0 to 100.")
        if self.max_drop_pp is not None and self.calibration_table is not None:
            raise ConfigError("--max-drop calibrates anew, to choose the best method: leave --calibration-table out.")
        if self.max_drop_pp is not None and self.precision is not Precision.INT8:
            raise ConfigError(
                f"--max-drop decides what INT8 keeps in float, and --precision is {self.precision.value}. Leave it "
                "out, and compare the bundle with ran-validate --max-drop."
            )
