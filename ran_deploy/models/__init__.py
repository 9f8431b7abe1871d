"""The reference Residual Attention Networks in PyTorch, and loading checkpoints into them."""

from ran_deploy.models.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint

__all__ = ["LoadedCheckpoint", "load_checkpoint", "save_checkpoint"]
