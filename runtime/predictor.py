"""A loaded engine with its recipe and labels: images in, logits, predictions or embeddings out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ran_deploy.errors import ConfigError, ShapeError
from ran_deploy.manifest import BatchProfile, Manifest, Task
from ran_deploy.preprocessing import prepare
from ran_deploy.runtime import postprocess
from ran_deploy.runtime.runner import Runner, infer_checked

__all__ = ["INPUT", "OUTPUT", "Predictor"]

INPUT, OUTPUT = "image", "logits"  # the names every graph of ours has


class Predictor:
    """Runs one engine. Several threads may use it at once; close it when they are done.

    `batch` is what the engine was built for; the manifest's profile if it is not given.
    """

    def __init__(self, runner: Runner, manifest: Manifest, backend: str, *, batch: BatchProfile | None = None) -> None:
        self.runner = runner
        self.manifest = manifest
        self.backend = backend
        self.batch = batch or manifest.batch

    @property
    def labels(self) -> tuple[str, ...] | None:
        return self.manifest.labels

    def predict(self, images: Sequence[np.ndarray] | np.ndarray, top_k: int = 1) -> list[list[postprocess.Prediction]]:
        """Return the `top_k` likeliest classes of each image, the likeliest first. `images` as for `logits`.

        Raises: ConfigError for the bundle of an embedding; see `embeddings`.
        """
        if self.manifest.task is not Task.CLASSIFICATION:
            raise ConfigError(
                f"{self.manifest.name} is an embedding and knows no classes; call embeddings(images) for its vectors."
            )
        return postprocess.top_k(self.logits(images), top_k, self.labels)

    def embeddings(self, images: Sequence[np.ndarray] | np.ndarray, *, normalize: bool = False) -> np.ndarray:
        """Return one vector an image, float32 (N, features). `images` as for `logits`.

        With `normalize` each has L2 norm 1, so that a dot product of two is the cosine between them.
        Raises: ConfigError for the bundle of a classifier; see `predict` and `logits`.
        """
        if self.manifest.task is not Task.EMBEDDING:
            raise ConfigError(
                f"{self.manifest.name} is a classifier and gives no embeddings; call predict(images) for its classes, "
                "or logits(images) for its logits."
            )
        vectors = self.logits(images)
        return postprocess.l2_normalized(vectors) if normalize else vectors

    def logits(self, images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return the network's output as it is, float32 (N, output size): logits, or the features of an embedding.

        `images` are uint8 RGB: a sequence of (H, W, 3) of any sizes, or one array (N, H, W, 3).
        Raises: ShapeError for anything else.
        """
        if isinstance(images, np.ndarray) and images.ndim != 4:
            raise ShapeError(
                f"The images have shape {images.shape}; give an array (N, H, W, 3), or a list of images (H, W, 3)."
            )
        step = self.batch.maximum  # prepared and run by the batch, so that many images need little memory
        rows = [
            self.infer_batch(np.stack([self.prepare(image) for image in images[start : start + step]]))
            for start in range(0, len(images), step)
        ]
        return np.concatenate([self._no_logits(), *rows])

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Return what the engine takes for one uint8 RGB image (H, W, 3). Raises: ShapeError."""
        return prepare(image, self.manifest.preprocessing)

    def infer_batch(self, prepared: np.ndarray) -> np.ndarray:
        """Return float32 (N, classes) for prepared images, uint8 (N, H, W, 3) of the engine's size, any N.

        More than the engine takes at once are split; fewer than it takes at least are filled up with zeros.
        Raises: ShapeError for another type or size.
        """
        step, minimum = self.batch.maximum, self.batch.minimum
        chunks = [prepared[start : start + step] for start in range(0, len(prepared), step)]
        rows = [self._run(_filled(chunk, minimum))[: len(chunk)] for chunk in chunks]
        return np.concatenate([self._no_logits(), *rows])

    def _run(self, batch: np.ndarray) -> np.ndarray:
        outputs = infer_checked(self.runner, {INPUT: np.ascontiguousarray(batch)})
        return outputs[OUTPUT].astype(np.float32, copy=False)

    def _no_logits(self) -> np.ndarray:
        return np.empty((0, self.manifest.output_size), np.float32)

    def close(self) -> None:
        """Release the engine; a second call does nothing."""
        self.runner.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _filled(batch: np.ndarray, minimum: int) -> np.ndarray:
    missing = max(0, minimum - len(batch))
    return np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)]) if missing else batch
