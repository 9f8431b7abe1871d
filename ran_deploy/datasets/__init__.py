"""Data sets: images with labels, from whatever form they are stored in."""

from ran_deploy.datasets.dataset import Dataset, Split
from ran_deploy.datasets.digests import image_digest, refuse_overlap
from ran_deploy.datasets.opening import open_dataset
from ran_deploy.datasets.selection import select_indices

__all__ = ["Dataset", "Split", "image_digest", "open_dataset", "refuse_overlap", "select_indices"]
