"""ran-doctor: what a bundle needs on this device, or on one that is to be updated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ran_deploy.commands.engine_lines import half_pixel_note, padding_line
from ran_deploy.commands.options import cache_dir_option, require_signature_option, verbose_option, version_option
from ran_deploy.commands.printing import printable, write_json
from ran_deploy.commands.running import run_command

if TYPE_CHECKING:
    from ran_deploy.bundle import Bundle
    from ran_deploy.workflows.doctor import DeviceReport
    from ran_deploy.workflows.preflight import BackendVerdict


@click.command(name="ran-doctor")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--for",
    "target",
    metavar="TARGET",
    help="Judge for a device that is not here: jetpack-6.2, tensorrt-11.4:sm90, tensorrt-rtx-1.7:sm89, ...",
)
@cache_dir_option()
@require_signature_option()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@verbose_option()
@version_option()
def doctor(
    bundle: Path, target: str | None, cache_dir: Path | None, require_signature: Path | None, as_json: bool
) -> int:
    """Say which engines of BUNDLE run here, or would on TARGET, why not, and what to run next. It builds nothing."""
    from ran_deploy.bundle import open_bundle

    opened = open_bundle(bundle, require_signature=require_signature)
    if target is not None:
        return _for_target(opened, target, as_json)
    return _here(opened, cache_dir, as_json)


def _here(bundle: Bundle, cache_dir: Path | None, as_json: bool) -> int:
    from ran_deploy.workflows.doctor import device_report, exit_status

    report = device_report(bundle, cache_dir)
    if as_json:
        write_json(report)
    else:
        click.echo("\n".join(map(printable, report_lines(report))))
    return exit_status(report.backends)


def _for_target(bundle: Bundle, text: str, as_json: bool) -> int:
    from ran_deploy.targets import target_from_text
    from ran_deploy.workflows.doctor import preflight
    from ran_deploy.workflows.preflight import verdict_status

    target = target_from_text(text)
    verdicts = preflight(bundle, target)
    if as_json:
        write_json({"bundle": str(bundle.path), "target": target, "backends": verdicts})
    else:
        click.echo(printable(f"{bundle.path} on {text}"))
        for verdict in verdicts:
            click.echo("\n".join(map(printable, verdict_lines(verdict))))
    return verdict_status(verdicts[0].verdict)


def report_lines(report: DeviceReport) -> list[str]:
    """Return the report, a line for each fact."""
    lines = [
        f"{report.bundle} on this device",
        f"  platform: {report.platform}; CPU: {report.cpu}",
        f"  GPU: {report.gpu}",
        f"  packages: {', '.join(f'{name} {version}' for name, version in report.versions.items())}",
    ]
    on_dla = {} if report.dla is None else {f"{report.dla.backend} --device dla:N": report.dla}
    for name, each in {**{each.backend: each for each in report.backends}, **on_dla}.items():
        lines.append(f"{name}: {each.state.value}{half_pixel_note(each.half_pixel)}")
        if each.reason:
            lines.append(f"  {each.reason}")
        if each.stripped:
            lines.append("  its engine has no weights: the bundle's graph gives them at each load")
        if each.padding:
            lines.append(f"  {padding_line(each.padding)}")
        if each.fingerprint:
            lines.append(f"  here: {', '.join(f'{part} {value}' for part, value in each.fingerprint.items())}")
        if each.next_step:
            lines.append(f"  next: {each.next_step}")
    return lines


def verdict_lines(verdict: BackendVerdict) -> list[str]:
    """Return one verdict, the graph it is about, its reasons, remarks and the command."""
    graph = f" ({verdict.graph})" if verdict.graph else ""
    lines = [f"{verdict.backend}: {verdict.verdict.value}{graph}"]
    lines += [f"  {text}" for text in (*verdict.reasons, *verdict.remarks)]
    if verdict.command:
        lines.append(f"  next: {verdict.command}")
    return lines


def main() -> None:
    run_command(doctor)
