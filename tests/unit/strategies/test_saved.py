"""What is told of a file that holds nothing learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cosilo.errors import ConfigError
from cosilo.strategies.saved import reading


def write(file: Path, how: str) -> None:
    if how in ("nothing", "text"):
        file.write_text("" if how == "nothing" else "Jan's words")
    elif how == "one array":
        with file.open("wb") as opened:
            np.save(opened, np.ones(3))
    elif how == "other arrays":
        np.savez(file, other=np.ones(3))


@pytest.mark.parametrize("how", ["no file", "nothing", "text", "one array", "other arrays"])
def test_the_folder_is_named_and_nothing_of_what_it_holds(how: str, tmp_path: Path) -> None:
    file = tmp_path / "learned.npz"
    write(file, how)
    with (
        pytest.raises(ConfigError, match=r"' holds no weights: \w+$") as refused,
        reading(file, "weights") as held,
    ):
        held["weights"].tolist()
    assert str(tmp_path) in str(refused.value)
    assert refused.value.__suppress_context__


def test_arrays_come_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "learned.npz", weights=np.arange(3))
    with reading(tmp_path / "learned.npz", "weights") as held:
        assert held["weights"].tolist() == [0, 1, 2]
