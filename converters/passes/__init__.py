"""The graph passes, in the order they run."""

from __future__ import annotations

from ran_deploy.converters.passes.activate_before_concat import activate_before_concat
from ran_deploy.converters.passes.divide_directly import divide_directly
from ran_deploy.converters.passes.fold_batch_norm import fold_batch_norm
from ran_deploy.converters.passes.fold_constants import fold_constants
from ran_deploy.converters.passes.pool_spatial_mean import pool_spatial_mean
from ran_deploy.converters.passes.remove_expand import remove_expand
from ran_deploy.converters.passes.remove_identity import remove_identity
from ran_deploy.converters.passes.remove_unused import remove_unused
from ran_deploy.converters.passes.resize_by_scales import resize_by_scales

__all__ = ["PASSES"]

PASSES = (
    remove_identity,  # first: an Identity between two nodes hides their pattern
    fold_constants,  # before the others: they need literal weights, axes and sizes
    remove_expand,
    divide_directly,
    activate_before_concat,  # before fold_batch_norm: it brings norms to convolutions
    fold_batch_norm,
    pool_spatial_mean,
    resize_by_scales,
    remove_unused,  # last: the others leave constants and Shape chains behind
)
