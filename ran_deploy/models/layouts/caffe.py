"""How the authors' Caffe definitions are spelt as state dicts, those of Attention and of AttentionNeXt alike.

Source: https://github.com/fwang91/residual-attention-network (layer names).
"""

from __future__ import annotations

__all__ = ["STAGE_LETTERS", "caffe_key"]

STAGE_LETTERS = "ABC"  # AttentionA_1 is the first module of the first stage
BN_LEAVES = {"weight": "bn_weight", "bias": "bn_bias"}


def caffe_key(layer: str, leaf: str) -> str:
    """Return the key of one tensor of a layer: Caffe keeps a BatchNorm's scale and shift apart from its statistics."""
    return f"{layer}.{BN_LEAVES.get(leaf, leaf)}" if layer.endswith("/bn") else f"{layer}.{leaf}"
