"""Memory of the stand-in for a GPU: blocks under invented addresses, page-locked ones under a real one too."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import threading
from dataclasses import dataclass

import numpy as np


class GpuError(Exception):
    """An error as CUDA returns it, by its name without the prefix: "MemoryAllocation"."""


def bytes_at(address: int, size: int) -> np.ndarray:
    """Return a view of this process's memory."""
    return np.frombuffer((ctypes.c_ubyte * size).from_address(address), np.uint8)


@dataclass(eq=False)
class Block:
    """Memory that a device can reach; `address` is what it calls it. Host memory has a real `host_address` too."""

    address: int
    data: np.ndarray
    device: int
    host_address: int | None = None
    in_use: int = 0  # by what is queued


class Memory:
    """Every block that is allocated. What a real device would read or write wrongly is a line in `faults`."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.lock = threading.RLock()
        self.blocks: dict[int, Block] = {}
        self._addresses = itertools.count(0x7_0000_0000_0000, 0x1000_0000)  # no address of this process

    def new_block(self, size: int, device: int) -> Block:
        data = np.frombuffer(mmap.mmap(-1, size), np.uint8)  # pages of its own: freed, the process has them no more
        data[:] = 0xAB  # what was not written is seen
        with self.lock:
            block = Block(next(self._addresses), data, device)
            self.blocks[block.address] = block
        return block

    def block(self, address: int, size: int) -> Block | None:
        with self.lock:
            for block in self.blocks.values():
                if block.address <= address and address + size <= block.address + block.data.nbytes:
                    return block
        return None

    def host_block(self, host_address: int) -> Block | None:
        with self.lock:
            return next((b for b in self.blocks.values() if _holds(b.host_address, b, host_address)), None)

    def read(self, address: int, size: int) -> np.ndarray:
        """Return a view of device memory."""
        block = self.block(address, size)
        if block is None:
            self.faults.append("memory was read after it was freed")
            return np.zeros(size, np.uint8)
        start = address - block.address
        return block.data[start : start + size]

    def write(self, address: int, content: np.ndarray) -> None:
        block = self.block(address, content.nbytes)
        if block is None:
            self.faults.append("memory was written after it was freed")
            return
        start = address - block.address
        block.data[start : start + content.nbytes] = content.reshape(-1).view(np.uint8)


def _holds(start: int | None, block: Block, address: int) -> bool:
    return start is not None and start <= address < start + block.data.nbytes
