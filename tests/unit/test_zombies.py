"""What is known of a child before it is reaped, as the kernel has it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.fresh_interpreter import output_of

if TYPE_CHECKING:
    from pathlib import Path

# In a process that has no other children.
CHILD = """
import os, resource, signal, time
from entrypoint.init import zombies
os.chdir({directory!r})  # for the core file
pid = os.fork()
if pid == 0:
    limit = resource.getrlimit(resource.RLIMIT_CORE)[1] if {core} else 0
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    if {end} < 0:
        os.kill(os.getpid(), -{end})
    os._exit({end})
while not (found := zombies.find())[0]:
    time.sleep(0.001)
print(found[:2] == os.waitpid(pid, 0))
"""


@pytest.mark.parametrize("core", [False, True], ids=["no core", "core"])
@pytest.mark.parametrize("end", [0, 7, 255, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGQUIT])
def test_the_status_is_the_one_that_waitpid_returns(tmp_path: Path, end: int, *, core: bool) -> None:
    assert output_of(CHILD.format(directory=str(tmp_path), core=core, end=int(end))) == "True\n"
