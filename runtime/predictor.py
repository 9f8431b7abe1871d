"""A loaded engine with its recipe and labels: images in, logits, predictions or embeddings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ran_deploy.config_fields import conformed
from ran_deploy.engine.padding import Padding
from ran_deploy.errors import ConfigError, ShapeError
from ran_deploy.manifest import BatchProfile, Manifest, Task
from ran_deploy.preprocessing import prepare
from ran_deploy.runtime import postprocess
from ran_deploy.runtime.outputs import Outputs
from ran_deploy.runtime.runner import Runner, infer_checked

__all__ = ["INPUT", "OUTPUT", "Predictor", "require_attention"]

INPUT, OUTPUT = "image", "logits"  # the names every graph of ours has


class Predictor:
    """Runs one engine. Several threads may use it at once; close it when they are done.

    `batch` is what the engine was built for; the manifest's profile if it is not given. `half_pixel`: it enlarges masks
    with half-pixel sample points, and so computes something else than the network that was exported. `padding` is what
    the runner pads.
    """

    def __init__(
        self,
        runner: Runner,
        manifest: Manifest,
        backend: str,
        *,
        batch: BatchProfile | None = None,
        half_pixel: bool = False,
        padding: tuple[Padding, ...] = (),
    ) -> None:
        self.runner = runner
        self.manifest = manifest
        self.backend = backend
        self.batch = batch or manifest.batch
        self.half_pixel = half_pixel
        self.padding = padding

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
        count = conformed("top_k", top_k, int)
        return postprocess.top_k(self.logits(images), count, self.labels)

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
        rows = [self.infer_batch(batch) for batch in self._prepared(images)]
        return np.concatenate([self._nothing(self._logits_shape), *rows])

    def attention(self, images: Sequence[np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
        """Return each attention module's soft mask by the module's name, float32 (N, height, width), first to last.

        A mask is M of (1 + M) * trunk, its mean over channels, at the size at which the module works. `images` as for
        `logits`. Raises: ConfigError if the bundle was exported without --with-attention.
        """
        require_attention(self.manifest)
        found = [self.infer_outputs(batch).attention for batch in self._prepared(images)]
        return {
            record.name: np.concatenate(
                [self._nothing((record.height, record.width)), *(masks[record.name] for masks in found)]
            )
            for record in self.manifest.attention
        }

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Return what the engine takes for one uint8 RGB image (H, W, 3). Raises: ShapeError."""
        return prepare(image, self.manifest.preprocessing)

    def infer_batch(self, prepared: np.ndarray) -> np.ndarray:
        """Return float32 (N, classes) for prepared images, uint8 (N, H, W, 3) of the engine's size, any N.

        More than the engine takes at once are split; fewer than it takes at least are padded with zeros.
        Raises: ShapeError for another type or size.
        """
        return self._gathered(prepared, {OUTPUT: self._logits_shape})[OUTPUT]

    def infer_outputs(self, prepared: np.ndarray) -> Outputs:
        """Return all that the engine puts out for prepared images, in one run; otherwise as `infer_batch`."""
        masks = {record.output: (record.height, record.width) for record in self.manifest.attention}
        outputs = self._gathered(prepared, {OUTPUT: self._logits_shape, **masks})
        attention = {record.name: outputs[record.output] for record in self.manifest.attention}
        return Outputs(logits=outputs[OUTPUT], attention=attention)

    def _prepared(self, images: Sequence[np.ndarray] | np.ndarray) -> Iterator[np.ndarray]:
        """Yield the images prepared, as many at a time as the engine takes: many of them need little memory."""
        if isinstance(images, np.ndarray) and images.ndim != 4:
            raise ShapeError(
                f"The images have shape {images.shape}; give an array (N, H, W, 3), or a list of images (H, W, 3)."
            )
        if isinstance(images, str) or not isinstance(images, Sequence | np.ndarray):
            raise ShapeError(
                f"The images are of type {type(images).__name__}; give a list of images (H, W, 3), or an array."
            )
        step = self.batch.maximum
        for start in range(0, len(images), step):
            yield np.stack([self.prepare(image) for image in images[start : start + step]])

    def _gathered(self, prepared: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """Return the outputs that `shapes` names, with the shape of one row each: float32 (N, *shape)."""
        rows = {name: [self._nothing(shape)] for name, shape in shapes.items()}
        for start in range(0, len(prepared), self.batch.maximum):
            chunk = prepared[start : start + self.batch.maximum]
            outputs = infer_checked(self.runner, {INPUT: np.ascontiguousarray(_padded(chunk, self.batch.minimum))})
            for name, kept in rows.items():
                kept.append(outputs[name][: len(chunk)].astype(np.float32, copy=False))
        return {name: np.concatenate(kept) for name, kept in rows.items()}

    @property
    def _logits_shape(self) -> tuple[int, ...]:
        return (self.manifest.output_size,)

    @staticmethod
    def _nothing(shape: tuple[int, ...]) -> np.ndarray:
        return np.empty((0, *shape), np.float32)

    def close(self) -> None:
        """Release the engine; a second call does nothing."""
        self.runner.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def require_attention(manifest: Manifest) -> None:
    """Raises: ConfigError if the bundle was exported without --with-attention."""
    if not manifest.attention:
        raise ConfigError(
            f"{manifest.name} puts out no attention. Export it again with --with-attention; the network must have "
            "attention modules."
        )


def _padded(batch: np.ndarray, minimum: int) -> np.ndarray:
    missing = max(0, minimum - len(batch))
    return np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)]) if missing else batch
