"""What images without labels prove, as lines: of which bundle and engines, of what, and under which assumptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ran_deploy.commands.printing import printable

if TYPE_CHECKING:
    from ran_deploy.report.schema import EngineReport, ValidationReport

__all__ = ["print_certificate"]


def print_certificate(report: ValidationReport) -> None:
    """Print the certificate, if there is one; the verdict that follows is its first sentence."""
    certified = [(engine, engine.certificate) for engine in report.engines if engine.certificate is not None]
    if not certified:
        return
    click.echo("certificate")
    _print("bundle", f"{report.bundle.name}, digest {report.bundle.sha256}")
    _print("reference", str(report.provenance.reference))
    _print("images", f"{report.provenance.data}, in random order by seed {certified[0][1].seed}")
    for engine, certificate in certified:
        _print("engine", _engine(engine))
        if len(certified) > 1:
            _print("", certificate.text)
    for number, assumption in enumerate(certified[0][1].assumptions):
        _print("assumes" if not number else "", assumption)


def _engine(engine: EngineReport) -> str:
    if engine.estimate:
        return f"{engine.backend} {engine.precision}, emulated: an estimate"
    device = ", ".join(f"{name} {value}" for name, value in engine.device.items())
    return f"{engine.backend} {engine.precision} ({device})"


def _print(name: str, value: str) -> None:
    click.echo(f"  {name:<9} {printable(value)}")
