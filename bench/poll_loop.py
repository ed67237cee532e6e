"""The smallest process 1 in Python that forwards signals: what no init in Python can be faster than.

    python poll_loop.py COMMAND [ARG]...

It waits in poll(2), reads a signalfd(2), and sends each signal on, whatever the agent handles. It reaps, and exits with
the agent's code. Nothing else.
"""

import _signal

_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())

import os  # noqa: E402
import select  # noqa: E402
import sys  # noqa: E402
from _ctypes import call_cdeclfunction, dlopen, dlsym  # noqa: E402

command = sys.argv[1:]
agent = os.posix_spawn(command[0], command, os.environ, setpgroup=0, setsigmask=())
mask = (b"\xff" * 8).ljust(128, b"\0")
signals: int = call_cdeclfunction(dlsym(dlopen(None), "signalfd"), (-1, mask, os.O_CLOEXEC))  # type: ignore[arg-type]
poll = select.poll()
poll.register(signals, select.POLLIN)
while True:
    poll.poll()
    number = os.read(signals, 128)[0]
    if number != _signal.SIGCHLD:
        os.kill(agent, number)
        continue
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == agent:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
        if pid == 0:
            break
