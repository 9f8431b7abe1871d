"""What half-pixel sample points in place of aligned corners cost a trained network that is not trained again.

    python benchmarks/half_pixel.py --data FOLDER

FP32 in ONNX Runtime, on all test images. The rewritten graph is first held against PyTorch with the same change.
"""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
import onnx_ir as ir
from torch.nn import functional

from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.half_pixel import resize_by_half_pixels
from ran_deploy.datasets import Split, open_dataset
from ran_deploy.models import attention, load_checkpoint
from ran_deploy.preprocessing import prepare
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.verification.metrics import relative_l2
from ran_deploy.workflows.evaluation.reference import reference_graph, torch_logits

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist"
BATCH = 32


def logits_of(graph: ir.Model, images: np.ndarray) -> np.ndarray:
    runner = open_reference(model_bytes(graph))
    try:
        starts = range(0, len(images), BATCH)
        return np.concatenate([runner.infer({INPUT: images[i : i + BATCH]})[OUTPUT] for i in starts])
    finally:
        runner.close()


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Fashion-MNIST; its test images are used.")
@click.option("--checkpoint", type=click.Path(path_type=Path), default=EXAMPLE / "compact.safetensors")
def main(data: Path, checkpoint: Path) -> None:
    """Print top-1 of both, how often they agree, and the distance of their logits."""
    loaded = load_checkpoint(checkpoint)
    assert loaded.preprocessing is not None
    test = open_dataset(data, Split.TEST)
    images = np.stack([prepare(test.image(index), loaded.preprocessing) for index in range(len(test))])
    labels = np.array([test.label(index) for index in range(len(test))])
    aligned = reference_graph(loaded, loaded.preprocessing, lambda line: None)
    rewritten = aligned.clone()
    count = resize_by_half_pixels(rewritten)

    def half_pixel(x, reference):  # what `upsample_like` would be with half-pixel sample points
        return functional.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=False)

    with patch.object(attention, "upsample_like", half_pixel):
        expected = torch_logits(loaded, loaded.preprocessing, images[:BATCH])
    click.echo(
        f"{count} Resize rewritten; {relative_l2(expected, logits_of(rewritten, images[:BATCH])):.1e} from PyTorch"
    )
    before, after = logits_of(aligned, images), logits_of(rewritten, images)
    same = before.argmax(axis=1) == after.argmax(axis=1)
    for name, logits in (("aligned corners", before), ("half-pixel", after)):
        click.echo(f"{name:<16}top-1 {100 * (logits.argmax(axis=1) == labels).mean():.2f} % of {len(labels):,} images")
    click.echo(f"agreement {100 * same.mean():.2f} %, relative L2 of the logits {relative_l2(before, after):.4f}")


if __name__ == "__main__":
    main()
