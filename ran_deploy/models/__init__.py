"""The reference Residual Attention Networks in PyTorch, and loading checkpoints into them.

The names below are loaded when they are first used: designs, the zoo and its arithmetic need no PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ran_deploy.models.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint

__all__ = ["LoadedCheckpoint", "load_checkpoint", "save_checkpoint"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ran_deploy.models' has no attribute {name!r}")
    return getattr(importlib.import_module("ran_deploy.models.checkpoint"), name)
