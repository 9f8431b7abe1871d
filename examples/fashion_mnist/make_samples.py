"""Cut the samples that ship with this project out of Fashion-MNIST.

    python examples/fashion_mnist/make_samples.py /usr/share/datasets/fashion-mnist

Writes beside itself: calibration.npz (512 training images), test.npz (512 test images with labels) and images/ (one
more test image of each class, as PNG).
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from ran_deploy.datasets.idx import read_idx

HERE = Path(__file__).parent
COUNT = 512
CLASSES = ("tshirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")


def main(data: Path) -> None:
    rng = np.random.default_rng(0)
    for split, name in (("train", "calibration"), ("t10k", "test")):
        images = read_idx(data / f"{split}-images-idx3-ubyte.gz")
        labels = read_idx(data / f"{split}-labels-idx1-ubyte.gz")
        order = rng.permutation(len(images))
        chosen = np.sort(order[:COUNT])
        np.savez_compressed(HERE / f"{name}.npz", images=images[chosen], labels=labels[chosen])
    others = order[COUNT:]  # of the test split
    for label, name in enumerate(CLASSES):
        index = next(index for index in others if labels[index] == label)
        cv2.imwrite(str(HERE / "images" / f"{name}.png"), images[index])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
