"""Running a command in this process, exactly as its console script does."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    def assert_refused(self, *words: str, status: int = 2) -> None:
        """It failed with one line that says `words`, and wrote nothing else."""
        lines = self.err.strip().splitlines()
        assert self.status == status, self.err
        assert "Traceback" not in self.err
        assert lines[-1].startswith("ran-"), self.err
        for word in words:
            assert word in lines[-1]


@pytest.fixture
def call(monkeypatch, capsys, tmp_path_factory):
    """Return a function that runs 'ran-...' with arguments; engines are cached in a folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("xdg")))

    def run(name: str, *arguments: object) -> Outcome:
        module = importlib.import_module(f"ran_deploy.commands.{name.removeprefix('ran-')}")
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            module.main()
        return Outcome(int(exit_.value.code or 0), *capsys.readouterr())

    return run
