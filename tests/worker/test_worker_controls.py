"""Control of the island: a toolbox with a module that loads something else is seen."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from tests.worker import test_island


@pytest.mark.parametrize(
    ("name", "text"),
    [("include/worker/stray.py", "import beside\n"), ("include/worker/stray.py", "import include.errors\n"), ("stray.py", "")],
    ids=["a foreign package", "a room of ours", "a file beside"],
)
def test_control_what_is_no_standard_library_is_seen(toolbox: Path, tmp_path: Path, name: str, text: str) -> None:
    shutil.copy(toolbox / "worker.pyz", tmp_path)
    with zipfile.ZipFile(tmp_path / "worker.pyz", "a") as pyz:
        pyz.writestr(name, text)
        if text:
            pyz.writestr("beside.py" if "beside" in text else "include/errors.py", "")
    with pytest.raises(AssertionError):
        test_island.test_the_zipapp_holds_and_loads_the_standard_library_only(tmp_path)
