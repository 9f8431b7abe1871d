"""The interpreter of PTX computes what the instructions are documented to, and says what it does not know."""

from __future__ import annotations

import numpy as np
import pytest
from stand_in_gpu import StandInGpu
from stand_in_libcuda import Words
from stand_in_ptx import Grid, parse


@pytest.fixture
def gpu():
    return StandInGpu()


def ptx_of(body: str) -> str:
    return (
        ".visible .entry k(.param .u64 p_in, .param .u64 p_out)\n{\n.reg .u32 %x;\nld.param.u64 %in, [p_in];\n"
        f"ld.param.u64 %out, [p_out];\n{body}\nret;\n}}"
    )


def run_ptx(gpu, body: str, values: list[int]) -> list[int]:
    """Run one block of four threads, with four words in and four out."""
    kernel, addresses = parse(ptx_of(body))["k"], [gpu.allocate(16), gpu.allocate(16)]
    gpu.write(addresses[0], np.array(values, np.uint32))
    given = dict(zip(("p_in", "p_out"), addresses, strict=True))
    Grid((1, 1), 4, given, Words(gpu)).run(kernel)
    return gpu.read(addresses[1], 16).view(np.uint32).tolist()


OWN_WORD = """mov.u32 %t, %tid.x; mul.wide.u32 %o, %t, 4; add.u64 %in, %in, %o; add.u64 %out, %out, %o;
ld.global.u32 %x, [%in];"""


def test_ptx_arithmetic_is_of_32_bits(gpu):
    words = [2**32 - 1, 2, 3, 2**31]
    body = OWN_WORD + "mad.lo.u32 %x, %x, %x, 5; shr.u32 %x, %x, 1; st.global.u32 [%out], %x;"
    assert run_ptx(gpu, body, words) == [((x * x + 5) % 2**32) >> 1 for x in words]


def test_ptx_threads_that_branch_apart_meet_again(gpu):
    body = OWN_WORD + "mov.u32 %n, 0;\nMORE: setp.ge.u32 %end, %n, %x; @%end bra OUT; add.u32 %n, %n, 3; bra MORE;\n"
    body += "OUT: st.global.u32 [%out], %n;"
    assert run_ptx(gpu, body, [0, 1, 3, 7]) == [0, 3, 3, 9]


def test_a_ptx_barrier_that_some_threads_miss_and_an_unknown_instruction_are_seen(gpu):
    with pytest.raises(AssertionError, match="a barrier that not all threads reach"):
        run_ptx(gpu, OWN_WORD + "setp.ge.u32 %end, %x, 2; @%end ret; bar.sync 0;", [1, 2, 3, 4])
    with pytest.raises(KeyError, match=r"sub\.u32"):
        run_ptx(gpu, OWN_WORD + "sub.u32 %x, %x, 1;", [1, 2, 3, 4])


def test_a_ptx_kernel_s_memory_is_known_by_what_it_reads_and_writes():
    kernel = parse(ptx_of(OWN_WORD + "st.global.u32 [%out], %x;"))["k"]
    assert (kernel.reads, kernel.writes) == ({"p_in"}, {"p_out"})
