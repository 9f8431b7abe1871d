"""What the options of all commands have in common: the same words for the same thing, and every default told."""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools

import click
import pytest

COMMANDS = {
    name: getattr(importlib.import_module(f"ran_deploy.commands.{name}"), name)
    for name in ("export", "build", "infer", "validate", "bench", "doctor")
}
OPTIONS = [
    pytest.param(command, option, id=f"{name} {option.opts[-1]}")
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option)
]
SAME_EVERYWHERE = {"--cache-dir", "--require-signature", "--device", "--threads", "--triton", "--verbose", "--version"}
# Without them the command does less, or what its help says of another option.
NOTHING_WITHOUT = {
    "--data", "--unlabelled", "--calibration-data", "--validation-data", "--compare", "--report", "--output",
    "--max-drop", "--limit", "--attention", "--triton", "--trtexec", "--sign", "--require-signature", "--for",
    "--calibration-table", "--hardware-compatible", "--architecture", "--model", "--labels", "--crop",
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_the_version(call, name):
    outcome = call(f"ran-{name}", "--version")
    assert (outcome.status, outcome.out) == (0, f"ran-deploy {importlib.metadata.version('ran-deploy')}\n")


def test_a_missing_option_with_choices_is_told_in_one_line(call):
    (line,) = call("ran-build", "x.ran").err.splitlines()
    assert line == (
        "ran-build: Missing option '--backend'. Choose from: tensorrt, tensorrt-rtx, openvino, onnxruntime. "
        "See ran-build --help."
    )


def test_an_option_that_is_nearly_one_is_told_in_one_sentence_more(call):
    (line,) = call("ran-build", "x.ran", "--hardware").err.splitlines()
    assert line == (
        "ran-build: No such option '--hardware'. Did you mean '--hardware-compatible'? See ran-build --help."
    )


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_help_tells_the_default(command, option):
    if option.is_flag or option.required or option.opts[-1] in NOTHING_WITHOUT:
        return
    text = option.get_help_record(click.Context(command))[1]
    assert "[default: " in " ".join(text.split()) or "[required]" in text


def test_shared_options_have_the_same_help_in_every_command():
    helps = [
        (option.opts[-1], option.get_help_record(click.Context(command)))
        for command in COMMANDS.values()
        for option in command.params
        if option.opts[-1] in SAME_EVERYWHERE
    ]
    grouped = itertools.groupby(sorted(helps), key=lambda entry: entry[0])
    different = {name: {record for _, record in group} for name, group in grouped}
    assert set(different) == SAME_EVERYWHERE
    assert [name for name, records in different.items() if len(records) > 1] == []


def test_results_and_bundles_are_written_with_the_same_option():
    outputs = [option.opts for command in COMMANDS.values() for option in command.params if "--output" in option.opts]
    assert outputs == [["-o", "--output"], ["-o", "--output"]]
