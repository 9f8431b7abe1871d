"""Loading a bundle for inference."""

from __future__ import annotations

from pathlib import Path

from ran_deploy.bundle import open_bundle
from ran_deploy.config_fields import conformed
from ran_deploy.runtime.predictor import Predictor
from ran_deploy.workflows.engines.device_choice import using_device
from ran_deploy.workflows.engines.loading import AUTO, load_engine

__all__ = ["load"]


def load(
    path: str | Path,
    backend: str = AUTO,
    *,
    cache_dir: str | Path | None = None,
    threads: int = 0,
    device: str | None = None,
    require_signature: str | Path | None = None,
) -> Predictor:
    """Return a predictor for the bundle at `path`; close it, or use it in a with statement.

    `backend` 'auto' takes the best that can run here; `threads` 0 lets the CPU backends choose. `device` is the GPU of
    TensorRT's engines, 'cuda:1' the second; else it is the calling thread's current one. 'dla:0' is the first DLA core
    of a Jetson, for the engine that was built for DLA; without it that engine is never used. An engine that has not
    been proven on this device passes the golden self-test first. `require_signature` is the public key, an Ed25519 PEM
    file, whose owner must have signed the bundle.
    Raises: BundleError, ConfigError, BackendUnavailableError, EngineMismatchError, SelfTestError.
    """
    backend, threads = conformed("backend", backend, str), conformed("threads", threads, int)
    device = conformed("device", device, str | None)
    cache = conformed("cache_dir", cache_dir, Path | None)
    key = conformed("require_signature", require_signature, Path | None)
    bundle = open_bundle(conformed("path", path, Path), require_signature=key)
    with using_device(device, bundle, [backend], cache):
        return load_engine(bundle, backend, cache_dir=cache, threads=threads).predictor
