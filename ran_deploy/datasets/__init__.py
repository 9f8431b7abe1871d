"""Data sets: images with labels, from whatever form they are stored in."""

from ran_deploy.datasets.dataset import Dataset, Split, unreadable
from ran_deploy.datasets.digests import image_digest, refuse_overlap
from ran_deploy.datasets.matching import match_labels
from ran_deploy.datasets.opening import open_dataset, open_images
from ran_deploy.datasets.selection import select_indices

__all__ = [
    "Dataset",
    "Split",
    "image_digest",
    "match_labels",
    "open_dataset",
    "open_images",
    "refuse_overlap",
    "select_indices",
    "unreadable",
]
