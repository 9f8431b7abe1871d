"""An interpreter of PTX for the stand-in of a GPU: it executes the text that a driver would compile.

It knows the instructions that benchmarks/gpu/kernel.ptx has and raises for any other; what each does is by
https://docs.nvidia.com/cuda/parallel-thread-execution/. All threads of a grid run side by side, those that are furthest
behind first, so what a missing barrier would do is not seen; a barrier that not all threads reach is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

TYPES = {"u8": np.uint8, "u32": np.uint32, "u64": np.uint64, "f32": np.float32}
WORD = np.uint64(0xFFFFFFFF)
UNWRITTEN = np.uint32(0xABABABAB)


class Memory(Protocol):
    def load(self, addresses: np.ndarray, dtype: type) -> np.ndarray: ...
    def store(self, addresses: np.ndarray, values: np.ndarray) -> None: ...


@dataclass(frozen=True)
class Instruction:
    guard: str  # a predicate that lets it happen, with "!" where it has to be false; "" for always
    opcode: str
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Kernel:
    """One entry of a module. `reads` and `writes` are the parameters that are addresses of such memory."""

    parameters: tuple[tuple[str, str], ...]  # name, type
    instructions: tuple[Instruction, ...]
    labels: Mapping[str, int]
    reads: frozenset[str]
    writes: frozenset[str]


def parse(text: str) -> dict[str, Kernel]:
    """Return the kernels of a module by name."""
    text = re.sub(r"//.*", "", text)
    entries = re.findall(r"\.visible \.entry (\w+)\((.*?)\)\s*\{(.*?)\n\}", text, re.DOTALL)
    return {name: _kernel(parameters, body) for name, parameters, body in entries}


def _kernel(parameters: str, body: str) -> Kernel:
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for statement in body.split(";"):
        rest = statement.strip()
        if label := re.match(r"(\w+):\s*", rest):
            labels[label[1]], rest = len(instructions), rest[label.end() :]
        if rest and not rest.startswith((".reg", ".shared")):
            found = re.fullmatch(r"(?:@(!?%\w+)\s+)?(\S+)\s*(.*)", rest)
            assert found, rest
            operands = tuple(part.strip(" []") for part in found[3].split(",") if part)
            instructions.append(Instruction(found[1] or "", found[2], operands))
    named = tuple((name, kind) for kind, name in re.findall(r"\.param \.(\w+) (\w+)", parameters))
    return Kernel(named, tuple(instructions), labels, *_touched(instructions))


def _touched(instructions: list[Instruction]) -> tuple[frozenset[str], frozenset[str]]:
    """Return which parameters are read from and written to: where each register's value came from, in one pass."""
    origin: dict[str, set[str]] = {}
    reads: set[str] = set()
    writes: set[str] = set()
    for each in instructions:
        if each.opcode.startswith("ld.param.u64"):
            origin[each.operands[0]] = {each.operands[1]}
        elif each.opcode.startswith("ld.global"):
            reads |= origin[each.operands[1]]
        elif each.opcode.startswith("st.global"):
            writes |= origin[each.operands[0]]
        elif each.opcode == "add.u64":
            origin[each.operands[0]] = origin.get(each.operands[1], set()) | origin.get(each.operands[2], set())
    return frozenset(reads), frozenset(writes)


class Grid:
    """All threads of one launch: `registers` have one value each for every thread."""

    def __init__(self, blocks: tuple[int, int], threads: int, arguments: Mapping[str, int], memory: Memory) -> None:
        count = blocks[0] * blocks[1] * threads
        thread = np.arange(count, dtype=np.uint64)
        block = thread // np.uint64(threads)
        self.count, self.block, self.memory, self.arguments = count, block.astype(int), memory, arguments
        self.shared: dict[str, np.ndarray] = {}
        self.registers: dict[str, np.ndarray] = {
            "%tid.x": thread % np.uint64(threads),
            "%ntid.x": np.full(count, threads, np.uint64),
            "%ctaid.x": block % np.uint64(blocks[0]),
            "%ctaid.y": block // np.uint64(blocks[0]),
            "%nctaid.x": np.full(count, blocks[0], np.uint64),
        }

    def run(self, kernel: Kernel) -> None:
        at = np.zeros(self.count, int)  # each thread's next instruction
        ended = len(kernel.instructions)
        while (now := at.min()) < ended:
            here, each = at == now, kernel.instructions[now]
            at[here] += 1
            if each.guard:
                here = here & (self.registers[each.guard.lstrip("!")] != each.guard.startswith("!"))
            if each.opcode == "bra":
                at[here] = kernel.labels[each.operands[0]]
            elif each.opcode == "ret":
                at[here] = ended
            elif each.opcode == "bar.sync":
                assert here.all(), "a barrier that not all threads reach"
            elif here.any():
                self._execute(each, np.flatnonzero(here))

    def _execute(self, each: Instruction, threads: np.ndarray) -> None:
        name, _, kind = each.opcode.rpartition(".")
        if name.startswith(("st", "red")):
            self._written(name, kind, each.operands, threads)
            return
        target, *sources = each.operands
        if name == "ld.param":
            result = np.full(len(threads), self.arguments[sources[0]], np.uint64)
        elif name == "ld.shared":
            result = self._shared(sources[0])[self.block[threads]]
        elif name == "ld.global":
            result = self.memory.load(self.registers[sources[0]][threads], TYPES[kind])
        else:
            result = ARITHMETIC[each.opcode](*(self._value(source, threads) for source in sources))
        if result.dtype.kind == "u":
            result = result.astype(np.uint64)
        self.registers.setdefault(target, np.zeros(self.count, result.dtype))[threads] = result

    def _written(self, name: str, kind: str, operands: tuple[str, ...], threads: np.ndarray) -> None:
        target, values = operands[0], self._value(operands[1], threads).astype(TYPES[kind])
        if name == "st.global":
            self.memory.store(self.registers[target][threads], values)
        elif name == "st.shared":
            self._shared(target)[self.block[threads]] = values
        elif name == "red.shared.add":
            np.add.at(self._shared(target), self.block[threads], values)
        else:
            raise NotImplementedError(f"PTX instruction {name}.{kind}")

    def _shared(self, name: str) -> np.ndarray:
        """Return a variable of which each block has its own."""
        return self.shared.setdefault(name, np.full(self.block[-1] + 1, UNWRITTEN))

    def _value(self, operand: str, threads: np.ndarray) -> np.ndarray:
        if operand.startswith("%"):
            return self.registers[operand][threads]
        return np.full(len(threads), int(operand), np.uint64)


ARITHMETIC: dict[str, Callable[..., Any]] = {
    "mov.u32": lambda a: a,
    "add.u32": lambda a, b: (a + b) & WORD,
    "add.u64": lambda a, b: a + b,
    "mul.lo.u32": lambda a, b: (a * b) & WORD,
    "mul.wide.u32": lambda a, b: a * b,
    "mad.lo.u32": lambda a, b, c: (a * b + c) & WORD,
    "shr.u32": lambda a, b: a >> b,
    "setp.eq.u32": lambda a, b: a == b,
    "setp.ge.u32": lambda a, b: a >= b,
    "cvt.u64.u32": lambda a: a,
    "cvt.rn.f32.u32": lambda a: a.astype(np.uint32).astype(np.float32),
}
