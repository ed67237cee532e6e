"""What is known of a child before it is reaped, as the kernel has it."""

from __future__ import annotations

import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import zombies
from tests.support.init import until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("core", [False, True], ids=["no core", "core"])
@pytest.mark.parametrize("end", [0, 7, 255, signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT])
def test_the_status_is_the_one_that_waitpid_returns(tmp_path: Path, end: int, *, core: bool) -> None:
    pid = os.fork()
    if pid == 0:
        os.chdir(tmp_path)  # for the core file
        limit = resource.getrlimit(resource.RLIMIT_CORE)[1] if core else 0
        resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
        if isinstance(end, signal.Signals):
            if end != signal.SIGKILL:
                signal.signal(end, signal.SIG_DFL)
            os.kill(os.getpid(), end)
        os._exit(end)
    found = until(lambda: (one := zombies.find())[0] == pid and one, "the exit")
    assert os.waitpid(pid, 0) == (pid, found[1])
