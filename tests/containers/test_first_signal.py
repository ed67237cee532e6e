"""No TERM is lost in the first milliseconds. test_musl.py has the same for an image like Alpine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from .container import Containers
from .engine import Engine
from .first_signal import assert_no_stop_is_lost
from .images import PROBE, build

BARE = "agent-init-test/bare"
# As in a distroless image: no shell, no coreutils, no package manager.
REMOVE = """\
import os
for folder in ("/usr/bin", "/usr/sbin"):
    for name in os.listdir(folder):
        if not name.startswith("python"):
            os.unlink(os.path.join(folder, name))
"""


@pytest.fixture
def bare(engine: Engine, tmp_path: Path) -> Containers:
    (tmp_path / "remove.py").write_text(REMOVE)
    build(engine, BARE, tmp_path, f'FROM {PROBE}\nCOPY remove.py /\nUSER 0\nRUN ["python3", "/remove.py"]\n')
    return Containers(engine, BARE)


def test_no_stop_is_lost_on_debian(containers: Containers) -> None:
    assert_no_stop_is_lost(containers)


def test_no_stop_is_lost_without_a_shell_and_coreutils(bare: Containers) -> None:
    with bare:
        shell = bare.start("create", "--entrypoint", "/bin/sh", BARE)
        assert "no such file" in bare.engine("start", shell.name, check=False).stderr
        assert_no_stop_is_lost(bare)
