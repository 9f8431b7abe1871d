import pytest

from ran_deploy.runtime.backends.host import cpu_instructions, host_platform

X86 = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse avx2 avx512_vnni avx fma\nbugs\t\t: spectre\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp crc32\nCPU part\t: 0xd42\n"


@pytest.mark.parametrize(
    ("text", "instructions"),
    [(X86, "avx avx2 avx512_vnni fma"), (X86 * 2, "avx avx2 avx512_vnni fma"), (ARM, "asimd asimddp")],
)
def test_instruction_sets_that_matter_are_read_from_cpuinfo(tmp_path, text, instructions):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert cpu_instructions(path) == instructions


def test_a_system_without_cpuinfo_still_has_an_answer(tmp_path):
    assert cpu_instructions(tmp_path / "absent")


def test_the_platform_is_system_and_machine():
    system, machine = host_platform().split()
    assert system
    assert machine
