"""Attention modules: a trunk branch weighted by a bottom-up top-down soft mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ran_deploy.models.units import UnitFactory, conv1x1


class ChannelAttention(nn.Module):
    """Each position's vector over its L2 norm: x_i / ||x_i||; values in [-1, 1].

    Source: Wang et al. 2017, arXiv:1704.06904, section 3.2, f2.
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        return F.normalize(x, dim=1)


class SpatialAttention(nn.Module):
    """Each channel's map standardised over its positions, then a sigmoid; values in (0, 1).

    Source: Wang et al. 2017, arXiv:1704.06904, section 3.2, f3. A variance below 1e-5 counts as 1e-5.
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        centred = x - x.mean((2, 3), keepdim=True)
        return (centred * (centred.square().mean((2, 3), keepdim=True) + 1e-5).rsqrt()).sigmoid()


class MaskHead(nn.Sequential):
    """Two 1x1 convolutions and what makes attention of them: nn.Sigmoid for mixed attention, one weight per value.

    After post-activation units (`activated`) the leading BatchNorm and ReLU are left out.

    Source: Wang et al. 2017, arXiv:1704.06904, section 3.2 and figure 2; the authors' definitions.
    """

    def __init__(self, channels: int, attention: nn.Module, *, activated: bool = False) -> None:
        super().__init__(
            *(() if activated else (nn.BatchNorm2d(channels), nn.ReLU())),
            conv1x1(channels, channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            conv1x1(channels, channels),
            attention,
        )


class SoftMask(nn.Module):
    """Bottom-up top-down mask branch of depth k = number of max pools; values as its head gives them.

    `down` and `skip` have one entry per encoder level above the lowest resolution (k - 1), `up` as many; `bottom` works
    at the lowest resolution. With depth 0 only `bottom` is left and nothing is pooled. Each upsampling takes its size
    from the tensor it returns to, so every input size works.

    Source: Wang et al. 2017, arXiv:1704.06904, section 3.1 and figure 3, joined as in the authors' definitions: after
    an upsampling only the skip unit's output is added.
    """

    def __init__(
        self,
        *,
        pool: nn.Module | None,
        down: Sequence[nn.Module],
        bottom: nn.Module,
        skip: Sequence[nn.Module],
        up: Sequence[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.down = nn.ModuleList(down)
        self.bottom = bottom
        self.skip = nn.ModuleList(skip)
        self.up = nn.ModuleList(up)
        self.head = head

    def forward(self, x: Tensor, trunk: Tensor) -> Tensor:  # two (N, C, H, W) -> (N, C, H, W)
        if self.pool is None:
            return self.head(self.bottom(x))
        levels = [x]
        for down in self.down:
            levels.append(down(self.pool(levels[-1])))
        y = upsample_like(self.bottom(self.pool(levels[-1])), levels[-1])
        for i in reversed(range(len(self.down))):
            y = self.join_level(y, levels[i + 1], self.skip[i](levels[i + 1]))
            y = upsample_like(self.up[i](y), levels[i])
        return self.head(self.join_trunk(y, trunk))

    def join_level(self, upsampled: Tensor, encoded: Tensor, skipped: Tensor) -> Tensor:
        """Return what enters the next decoder unit; the three tensors have one shape."""
        return upsampled + skipped

    def join_trunk(self, upsampled: Tensor, trunk: Tensor) -> Tensor:
        """Return what enters the head; the two tensors have one shape."""
        return upsampled


class DenselyJoinedSoftMask(SoftMask):
    """A soft mask that also adds the encoder's tensor at each level, and the trunk before the head.

    Source: the tengshaofeng, pytorchcv and FaceX-Zoo implementations; the authors' definitions do not do this. Masks
    without a pool add nothing there either.
    """

    def join_level(self, upsampled: Tensor, encoded: Tensor, skipped: Tensor) -> Tensor:
        return upsampled + encoded + skipped

    def join_trunk(self, upsampled: Tensor, trunk: Tensor) -> Tensor:
        return upsampled + trunk


class AttentionModule(nn.Module):
    """Attention residual learning, (1 + M(x)) * T(x), between p units before and p units after.

    Source: Wang et al. 2017, arXiv:1704.06904, section 3.1, equation 3.
    """

    def __init__(self, *, pre: nn.Module, trunk: nn.Module, mask: nn.Module, post: nn.Module) -> None:
        super().__init__()
        self.pre = pre
        self.trunk = trunk
        self.mask = mask
        self.post = post

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        x = self.pre(x)
        trunk = self.trunk(x)
        return self.post(self.weigh(trunk, self.mask(x, trunk)))

    def weigh(self, trunk: Tensor, mask: Tensor) -> Tensor:
        """Return the weighted trunk; the three tensors have one shape."""
        return (1 + mask) * trunk


class NaiveAttentionModule(AttentionModule):
    """Naive attention learning, M(x) * T(x): what attention residual learning is compared with.

    Source: Wang et al. 2017, arXiv:1704.06904, section 3, equation 1, and table 3.
    """

    def weigh(self, trunk: Tensor, mask: Tensor) -> Tensor:
        return mask * trunk


def upsample_like(x: Tensor, reference: Tensor) -> Tensor:
    """Resize x bilinearly, corners aligned, to the height and width of `reference`."""
    return F.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=True)


def ceil_pool() -> nn.Module:
    """Return the authors' max pool: 3x3, stride 2, no padding, size rounded up (n -> ceil((n - 3) / 2) + 1)."""
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def padded_pool() -> nn.Module:
    """Return the public ports' max pool: 3x3, stride 2, padding 1 (n -> floor((n - 1) / 2) + 1)."""
    return nn.MaxPool2d(3, 2, padding=1)


def units(count: int, channels: int, unit: UnitFactory) -> nn.Sequential:
    """Return `count` units in a row that keep width and size."""
    return nn.Sequential(*(unit(channels, channels, 1) for _ in range(count)))
