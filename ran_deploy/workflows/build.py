"""Building the engine of a bundle for a device of this machine, as `ran-build` does."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.config_fields import conform_fields
from ran_deploy.converters.builders import GpuOptions, Progress
from ran_deploy.errors import BuildError, ConfigError
from ran_deploy.manifest import BatchProfile
from ran_deploy.workflows.engines.building import BuiltEngine, build_engine, build_options
from ran_deploy.workflows.engines.device_choice import device_from_text, refuse_dla, using_device
from ran_deploy.workflows.triton import WITH_WEIGHTS, best_served, write_triton_model

__all__ = ["BuildConfig", "BuildResult", "build_for_device"]


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What to build. `batch` None takes the sizes of the export; `gpu` is for TensorRT's builders alone.

    `pad_batches`: time which batches run faster padded to the size of a CUDA graph, and pad those at every load.
    `device` is a GPU or DLA core, as in 'cuda:1' or 'dla:0'; None is the first GPU. `triton` is a model repository that
    gets the engine too.
    """

    bundle: Path
    backend: str
    batch: BatchProfile | None = None
    gpu: GpuOptions | None = None
    pad_batches: bool = False
    device: str | None = None
    triton: Path | None = None
    cache_dir: Path | None = None
    require_signature: Path | None = None

    def __post_init__(self) -> None:
        conform_fields(self)
        if self.triton is not None:  # before minutes of building
            best_served([self.backend])
            refuse_dla(self.device, "--triton adds engines that Triton runs on a GPU.")
            if self.gpu is not None and self.gpu.strip_weights:
                raise ConfigError(WITH_WEIGHTS)


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """The engine, and the folder of its version in the Triton model repository that was asked for."""

    engine: BuiltEngine
    triton_model: Path | None = None


def build_for_device(config: BuildConfig, progress: Progress | None = None) -> BuildResult:
    """Build the engine, prove it where it can run, and keep it in the cache; the bundle never changes.

    `progress` is told the share of the build that is done, 0 to 1.
    Raises: ConfigError, BundleError, BuildError, BackendUnavailableError, OutputError; SelfTestError if the engine
    gives wrong results, and then keeps nothing.
    """
    bundle = open_bundle(config.bundle, require_signature=config.require_signature)
    gpu = config.gpu
    if config.device is not None:
        device = device_from_text(config.device)
        device.require_backend([config.backend])
        if device.dla_core is not None:
            gpu = replace(gpu or GpuOptions(), dla_core=device.dla_core)
    # What is wrong on any machine, before the device is looked for.
    build_options(bundle, config.backend, config.batch, gpu)
    with using_device(config.device, bundle, [config.backend]), _remedy_told(bundle):
        engine = build_engine(
            bundle,
            config.backend,
            cache_dir=config.cache_dir,
            batch=config.batch,
            gpu=gpu,
            pad_batches=config.pad_batches,
            progress=progress,
        )
        if config.triton is None:
            return BuildResult(engine=engine)
        model = write_triton_model(
            bundle, config.backend, config.triton, batch=config.batch, cache_dir=config.cache_dir
        )
        return BuildResult(engine=engine, triton_model=model)


@contextlib.contextmanager
def _remedy_told(bundle: Bundle) -> Iterator[None]:
    """Add what to do to a vendor's refusal."""
    try:
        yield
    except BuildError as exc:
        path = shlex.quote(str(bundle.path))
        raise BuildError(
            f"{str(exc).removesuffix('.')}. What this version takes: ran-doctor {path}; the whole log: --verbose."
        ) from exc
