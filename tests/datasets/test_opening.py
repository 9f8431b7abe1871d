"""What is said where no data set is."""

from __future__ import annotations

import pytest

from ran_deploy.datasets import Split, open_dataset
from ran_deploy.errors import DatasetError


@pytest.mark.parametrize("content", [None, "empty", "text"])
def test_what_is_no_data_set_is_an_error_that_lists_the_kinds(tmp_path, content):
    path = tmp_path / "data"
    if content == "empty":
        path.mkdir()
    if content == "text":
        path.write_text("hello")
    expected = "does not exist" if content is None else r"Looked for: image files.*CIFAR-10.*IDX.*\.npz"
    with pytest.raises(DatasetError, match=expected):
        open_dataset(path, Split.TEST)
