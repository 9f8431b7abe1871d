from __future__ import annotations

import json

import pytest

from ran_deploy.commands.labels import read_labels
from ran_deploy.errors import ConfigError

NAMES = tuple(f"class {index}" for index in range(12))

ACCEPTED = {
    "lines": "\n".join(NAMES),
    "lines of Windows": "\ufeff" + "\r\n".join(NAMES) + "\r\n\r\n",
    "list": json.dumps(NAMES),
    "list after a byte order mark": "\ufeff " + json.dumps(NAMES),
    "object": json.dumps({str(index): name for index, name in enumerate(NAMES)}),
    "object in another order": json.dumps({str(index): NAMES[index] for index in reversed(range(12))}),
    "object of Keras": json.dumps({str(index): [f"n{index:08}", name] for index, name in enumerate(NAMES)}),
    "object from name to index": json.dumps({name: index for index, name in enumerate(NAMES)}),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_names_come_in_the_order_of_their_classes(case, tmp_path, caplog):
    path = tmp_path / "labels"
    path.write_bytes(ACCEPTED[case].encode())
    assert read_labels(path) == NAMES
    assert caplog.text == ""


def test_numbers_are_names(tmp_path):
    (tmp_path / "labels").write_text("[3, 7]")
    assert read_labels(tmp_path / "labels") == ("3", "7")


REFUSED = {
    "empty": (b"", "is empty"),
    "blank": (b"\n \n", "is empty"),
    "empty list": (b"[]", "holds no names"),
    "empty object": (b"{}", "holds no names"),
    "from one": (b'{"1": "a", "2": "b"}', "has the key '2'; expected the indices 0 to 1 as keys"),
    "gap": (b'{"0": "a", "2": "b"}', "has the key '2'"),
    "report": (b'{"labels": ["a", "b"]}', "has the key 'labels'; expected the indices 0 to 0"),
    "no JSON": (b'["a", "b"', "begins like JSON but is none"),
    "deep": (b"[" * 100_000, "begins like JSON but is none"),
    "null": (b'["a", null]', "has null for class 1; expected its name"),
    "no name": (b'["a", " "]', 'has " " for class 1'),
    "object in a list": (b'[{"id": 1}]', 'has {"id": 1} for class 0'),
    "truth": (b"[true]", "has true for class 0"),
    "binary": (b"\x89PNG\xff\xfe", "is no UTF-8 text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_holds_no_names_is_refused_in_one_line(case, tmp_path):
    content, message = REFUSED[case]
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_labels(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none \(No such file or directory\)"):
        read_labels(tmp_path / "none")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_labels(tmp_path)


def test_a_name_for_several_classes_is_a_warning(tmp_path, caplog):
    path = tmp_path / "labels"
    path.write_text("crane\nmaillot\ncrane\ndog\n")
    assert read_labels(path) == ("crane", "maillot", "crane", "dog")
    assert caplog.messages == [f"{path} repeats 'crane' (2 times): results tell them apart by index only"]
