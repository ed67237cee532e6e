"""Whatever the agent does, the responder does not end, delay or change it."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support.init import PATIENCE, until

from .running import AGENT_SIDE, PYTHONS

if TYPE_CHECKING:
    from .conftest import Run
    from .running import Program

STRICT = ("-X", "dev", "-W", "error")  # warnings are exceptions, unclosed resources are warned about
SLEEP = "print('ready', flush=True); time.sleep(100)"


def ready(run: Run, code: str, *flags: str, **more: Any) -> Program:
    """Run `code` up to its first line of output, which is `ready`."""
    program = run(*flags, "-c", f"import os, signal, socket, sys, time; signal.alarm(100)\n{code}", **more)
    assert program.line() == "ready"
    return program


def finished(run: Run, code: str, *flags: str, **more: Any) -> str:
    """Run `code` to its end and return its output. It must exit with 0 and leave stderr empty."""
    program = run(*flags, "-c", f"import os, signal, socket, sys, time; signal.alarm(100)\n{code}", **more)
    code_, out, err = program.end()
    assert (code_, err) == (0, ""), err
    return out


def thread_of(program: Program) -> Path:
    """Return the responder's thread in /proc: the one that is not the main thread."""
    tasks = Path(f"/proc/{program.pid}/task")
    return next(task for task in tasks.iterdir() if task.name != str(program.pid))


# --- Beginning and end. -----------------------------------------------------------------------------------------------


def test_a_short_program_ends_normally(run: Run, python: str) -> None:
    """Daemon threads have crashed interpreters that were shutting down."""
    for _ in range(15):
        assert run(*STRICT, "-c", "pass", python=python).end() == (0, "", "")


def test_a_program_that_ends_during_an_answer_ends_normally(run: Run, python: str) -> None:
    for _ in range(3):
        program = ready(run, "print('ready', flush=True); time.sleep(0.3)", *STRICT, python=python)
        asked = 0
        while program.process.poll() is None:
            try:
                asked += bool(program.answer())
            except OSError:
                continue
        assert asked > 0
        assert program.end() == (0, "", "")


def test_the_exit_code_stays(run: Run, python: str) -> None:
    assert run("-c", "raise SystemExit(3)", python=python).end() == (3, "", "")


def test_no_processor_time_while_idle(run: Run, python: str) -> None:
    program = ready(run, SLEEP, python=python)
    program.answer()
    schedule = thread_of(program) / "schedstat"
    until(lambda: "S (sleeping)" in (thread_of(program) / "status").read_text(), "the thread to wait")
    before = schedule.read_text()
    time.sleep(1)
    assert schedule.read_text() == before


def test_no_responder_without_the_variable(run: Run, python: str) -> None:
    out = finished(run, "print(len(os.listdir('/proc/self/task')))", python=python, AGENT_INIT_RESPONDERS="")
    assert out == "1\n"


def test_a_second_install_has_no_effect(run: Run) -> None:
    code = f"sys.path.append({str(AGENT_SIDE)!r}); import responder; responder.install(); responder.install()\n"
    program = ready(run, code + SLEEP)
    assert program.answer().endswith("end\n")
    assert len(list(Path(f"/proc/{program.pid}/task").iterdir())) == 2


# --- Forks. -----------------------------------------------------------------------------------------------------------

FORKS = """
listening = lambda: [fd for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}')
                     and os.readlink(f'/proc/self/fd/{fd}').startswith('socket:')]
reader, writer = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.write(writer, b'%d %d ' % (os.getpid(), len(listening())))
        time.sleep(100)
    os.write(writer, b'%d %d ' % (os.getpid(), len(listening())))
    time.sleep(100)
seen = b''
while seen.count(b' ') < 4:
    seen += os.read(reader, 100)
print(seen.decode(), flush=True)
time.sleep(100)
"""


def test_children_answer_for_themselves(run: Run, python: str) -> None:
    """Each has a socket under its own pid and does not keep its parent's."""
    program = run("-W", "error", "-c", "import os, time\n" + FORKS, python=python)
    first, sockets, second, more = (int(word) for word in program.line().split())
    assert (sockets, more) == (1, 1)
    for pid in (program.pid, first, second):
        assert program.answer_with("end", pid).startswith(f"process\t{pid}\t")


@pytest.mark.parametrize("flags", [("-W", "error"), ("-W", "always")], ids=str)
def test_fork_gives_no_warning_about_threads(run: Run, python: str, flags: tuple[str, ...]) -> None:
    """CPython 3.12 and later warn about a fork in a process with a second thread."""
    code = "for _ in range(20):\n    pid = os.fork()\n    if not pid: os._exit(0)\n    os.waitpid(pid, 0)\n"
    assert finished(run, code, *flags, python=python) == ""


def test_the_warning_about_other_threads_stays(run: Run, python: str) -> None:
    """Also after a fork in which our thread was ignored."""
    code = (
        "import threading\n"
        "def fork():\n    pid = os.fork()\n    if not pid: os._exit(0)\n    os.waitpid(pid, 0)\n"
        "fork(); threading.Thread(target=time.sleep, args=(100,), daemon=True).start(); fork(); os._exit(0)"
    )
    with_us, without = (
        run("-W", "always", "-c", "import os, time\n" + code, stacks=stacks, python=python).end()[2]
        for stacks in (True, False)
    )
    assert ("multi-threaded" in with_us) == ("multi-threaded" in without)


def test_the_warning_filters_can_be_copied_and_pickled(run: Run, python: str) -> None:
    """joblib sends the filters to its workers."""
    code = (
        "import copy, pickle, warnings\n"
        "before = list(warnings.filters)\n"
        "for _ in range(3): os.fork() or os._exit(0); os.wait()\n"
        "assert pickle.loads(pickle.dumps(warnings.filters)) == copy.deepcopy(warnings.filters) == warnings.filters\n"
        "print(len(warnings.filters) - len(before) <= 2)"
    )
    assert finished(run, code, python=python) == "True\n"


def test_preexec_fn_runs_in_a_single_threaded_process(run: Run, python: str) -> None:
    """unshare(2) and setns(2) refuse some flags if there is a second thread."""
    code = (
        "import subprocess\n"
        "look = lambda: os.write(1, b'%d\\n' % len(os.listdir('/proc/self/task')))\n"
        "subprocess.run(['true'], preexec_fn=look)"
    )
    assert finished(run, code, python=python) == "1\n"


TASKS = """
import asyncio
async def wait(): await asyncio.sleep(100)
async def in_child():
    kept = [asyncio.create_task(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    print('ready', flush=True)
    await wait()
async def main():
    kept = [asyncio.create_task(wait()) for _ in range(5)]
    await asyncio.sleep(0)
    if pid := os.fork():
        print(pid, flush=True)
        await wait()
    asyncio._set_running_loop(None)
    asyncio.run(in_child())
asyncio.run(main())
"""


def test_a_forked_child_does_not_report_its_parents_tasks(run: Run, python: str) -> None:
    """It has copies of them that are never resumed."""
    program = run("-W", "ignore", "-c", f"import os, time\n{TASKS}", python=python)
    lines = {program.line(), program.line()}
    child = int((lines - {"ready"}).pop())
    for pid, number in ((program.pid, 6), (child, 4)):
        answer = program.answer_with("wait", pid)
        counts = [int(line.split("\t")[1]) for line in answer.splitlines() if line.startswith("task\t")]
        assert sum(counts) == number, answer


MANY_TASKS = """
import asyncio, gc
async def wait(number):
    if number: await wait(number - 1)
    else: await asyncio.sleep(100)
async def main():
    kept = [asyncio.create_task(wait(30)) for _ in range(3000)]
    await asyncio.sleep(0.1)
    print('ready', flush=True)
    await stay()
"""


def test_a_fork_does_not_wait_for_an_answer(run: Run, python: str) -> None:
    """The answer takes more than 0.1 s on any machine. A fork cuts it short, and it counts what it left out.

    The median counts: on a busy machine some forks wait for the processor.
    """
    code = (
        "async def stay():\n"
        "    for number in range(50):\n"
        "        began = time.perf_counter()\n"
        "        os.fork() or os._exit(0)\n"
        "        took.append(time.perf_counter() - began)\n"
        "        os.wait()\n"
        "        await asyncio.sleep(0.02)\n"
        "    print(sorted(took)[25], flush=True); os._exit(0)\n"
        "took = []\n"
        "asyncio.run(main())"
    )
    program = ready(run, MANY_TASKS + code, "-W", "ignore", python=python)
    answers = []
    while program.process.poll() is None:
        try:
            answers.append(program.answer())
        except OSError:
            break
    assert float(program.line()) < 0.05
    assert any(answer.endswith("end\n") and "left\t0\t0" not in answer for answer in answers)


def test_the_agent_keeps_control_of_the_garbage_collector(run: Run, python: str) -> None:
    """What the agent sets while an answer is made stays in force."""
    code = (
        "async def stay():\n"
        "    before, wrong, end = gc.get_threshold(), 0, time.monotonic() + 2\n"
        "    while time.monotonic() < end:\n"
        "        for set_it, wanted in ((gc.disable, False), (gc.enable, True)):\n"
        "            set_it()\n"
        "            for _ in range(5):\n"
        "                await asyncio.sleep(0.003)\n"
        "                wrong += gc.isenabled() != wanted\n"
        "    print(wrong, flush=True); sys.stdin.read(1)\n"
        "    while gc.get_threshold() != before: await asyncio.sleep(0.01)\n"
        "    gc.set_threshold(123); await asyncio.sleep(0.1); print(gc.get_threshold()[0], flush=True); os._exit(0)\n"
        "asyncio.run(main())"
    )
    program = ready(run, MANY_TASKS + code, python=python)
    asked = 0
    assert program.process.stdout
    while not select.select([program.process.stdout], [], [], 0)[0]:
        asked += bool(program.answer())
    assert asked
    assert program.line() == "0"
    assert program.line() == "123"


LOST = """
import _signal
class Stop(Exception): pass
def handler(number, frame): raise Stop
signal.signal(signal.SIGTERM, handler)
os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGTERM))  # last in, first out
sys.path.append({place!r}); import responder; responder.install()
try:
    if os.fork() == 0:
        os._exit(0)
    time.sleep(50)
except Stop:
    print('stopped', _signal.pthread_sigmask(0, ()))
"""


def test_a_signal_during_a_fork_is_not_lost(run: Run, python: str) -> None:
    """An exception that a handler raises in a fork hook is discarded; the stop request must still arrive."""
    assert finished(run, LOST.format(place=str(AGENT_SIDE)), python=python, stacks=False) == "stopped set()\n"


def test_fork_keeps_the_signal_mask(run: Run, python: str) -> None:
    code = (
        "mask = {signal.SIGUSR1}; signal.pthread_sigmask(signal.SIG_SETMASK, mask); pid = os.fork()\n"
        "same = signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask\n"
        "if not pid: os._exit(0 if same else 1)\n"
        "print(same, os.waitpid(pid, 0)[1])"
    )
    assert finished(run, code, python=python) == "True 0\n"


# --- Signals. ---------------------------------------------------------------------------------------------------------


# A thread causes these itself. If they are blocked, the kernel kills the process and no handler runs.
FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS)


def test_the_responder_thread_receives_no_signals(run: Run, python: str) -> None:
    """Otherwise TERM would kill an agent that blocks it and waits in sigwait(3)."""
    code = "signal.pthread_sigmask(signal.SIG_BLOCK, {15}); print('ready', flush=True); print(signal.sigwait({15}))"
    program = ready(run, code, python=python)
    status = (thread_of(program) / "status").read_text()
    blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        assert blocked >> (number - 1) & 1 == (number not in FAULTS), number
    time.sleep(0.1)
    os.kill(program.pid, signal.SIGTERM)
    code_, out, err = program.end()
    assert (code_, err) == (0, "")
    assert "15" in out or "SIGTERM" in out


# --- Descriptors, memory, threads. ------------------------------------------------------------------------------------


def test_exec_ends_the_responder(run: Run, python: str) -> None:
    program = ready(run, "print('ready', flush=True); os.execvp('sleep', ['sleep', '100'])", python=python)
    until(lambda: program.answer() == "", "nobody to answer")


def test_an_agent_that_closes_all_descriptors(run: Run, python: str) -> None:
    """As daemons do. A socket of the agent may then reuse our descriptor; its clients must reach the agent."""
    code = (
        "os.closerange(3, 50)\n"
        "own = [socket.socket(socket.AF_UNIX) for _ in range(8)]\n"
        "[s.bind('\\0' + sys.argv[1] + str(i)) or s.listen() for i, s in enumerate(own)]\n"
        "print('ready', flush=True)\n"
        "for s in own:\n    s.settimeout(50); s.accept()\n"
        "print('all')\n"
    )
    name = f"own-{os.getpid()}-{time.monotonic()}-"
    program = run("-c", f"import os, socket, sys\n{code}", name, python=python)
    assert program.line() == "ready"
    for _ in range(2):
        assert program.answer_with("end").startswith(f"process\t{program.pid}\t")
    clients = [socket.socket(socket.AF_UNIX) for _ in range(8)]
    for number, client in enumerate(clients):
        client.connect(f"\0{name}{number}")
    assert program.end() == (0, "all\n", "")
    for client in clients:
        client.close()


def test_a_fork_after_the_agent_closed_our_socket(run: Run, python: str) -> None:
    code = "os.closerange(3, 50); pid = os.fork(); print(pid or 'ready', flush=True); time.sleep(100)"
    program = run("-W", "error", "-c", f"import os, time\n{code}", python=python)
    lines = {program.line(), program.line()}
    child = int((lines - {"ready"}).pop())
    assert program.answer_with("end").startswith(f"process\t{program.pid}\t")
    assert program.answer_with("end", child).startswith(f"process\t{child}\t")


def test_no_free_descriptors(run: Run, python: str) -> None:
    """It answers with the descriptor it keeps in reserve, and afterwards retries without a busy loop."""
    code = (
        "import resource\n"
        "thread, = set(os.listdir('/proc/self/task')) - {str(os.getpid())}\n"
        "while 'S (sleeping)' not in open(f'/proc/self/task/{thread}/status').read(): time.sleep(0.01)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 40)); print('ready', flush=True); time.sleep(100)"
    )
    program = ready(run, code, python=python)
    assert program.answer().endswith("end\n")
    time.sleep(0.2)
    schedule = thread_of(program) / "schedstat"
    before, _, slices = (int(word) for word in schedule.read_text().split())
    time.sleep(1)
    after, _, more_slices = (int(word) for word in schedule.read_text().split())
    assert more_slices > slices, "it retries"
    assert after - before < 0.1e9


def test_no_thread_can_be_started(python: str) -> None:
    """Because its stack does not fit into any address space."""
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    if hard != resource.RLIM_INFINITY:
        pytest.skip("the limit of the stack cannot be raised here")
    code = "import os; print(len(os.listdir('/proc/self/task'))); os.fork() or os._exit(0)"
    done = subprocess.run(
        [python, *STRICT, "-c", code],
        env={"AGENT_INIT_RESPONDERS": f"@none-{os.getpid()}", "PYTHONPATH": str(AGENT_SIDE / "site")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (1 << 52, hard)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_the_default_socket_timeout_does_not_apply(run: Run, python: str) -> None:
    code = "socket.setdefaulttimeout(0.05); pid = os.fork(); print(pid and 'ready', flush=True); time.sleep(100)"
    program = run("-c", f"import os, socket, time\n{code}", python=python)
    assert {program.line(), program.line()} == {"ready", "0"}
    child = psutil.Process(program.pid).children()[0].pid
    assert program.answer_with("end", child)
    (thread,) = (task for task in Path(f"/proc/{child}/task").iterdir() if task.name != str(child))
    until(lambda: "S (sleeping)" in (thread / "status").read_text(), "the thread to wait")
    before = (thread / "schedstat").read_text()
    time.sleep(1)
    assert (thread / "schedstat").read_text() == before, "it sleeps without a timeout"


def test_the_thread_functions_are_replaced_afterwards(run: Run, python: str) -> None:
    """As gevent and eventlet do. The responder keeps the functions it was loaded with."""
    code = (
        "import _thread, time as t\n"
        "def none(*a): raise RuntimeError('replaced')\n"
        "_thread.start_new_thread = _thread.allocate_lock = _thread.get_ident = none; wait = t.sleep; t.sleep = none\n"
        "pid = os.fork()\nif pid: print(pid, flush=True)\nwait(100)"
    )
    program = run("-c", f"import os\n{code}", python=python)
    child = int(program.line())
    assert program.answer_with("end").startswith(f"process\t{program.pid}\t")
    assert program.answer_with("end", child).startswith(f"process\t{child}\t")


def test_no_responder_if_the_thread_functions_were_replaced_before(run: Run, python: str) -> None:
    """A green thread answers only while its loop runs, and would block that loop."""
    code = (
        "import _thread\n_thread.start_new_thread = lambda *a: print('started')\n"
        f"sys.path.append({str(AGENT_SIDE)!r}); import responder; responder.install(); print('done')"
    )
    assert finished(run, code, python=python, stacks=False) == "done\n"


def test_no_responder_in_subinterpreters(run: Run, python: str) -> None:
    """A subinterpreter that ends with a thread in it aborts the process."""
    code = (
        "try: import _interpreters as i\nexcept ImportError: import _xxsubinterpreters as i\n"
        "os.environ['AGENT_INIT_RESPONDERS'] += '-another'  # the name is in use\n"
        "one = i.create()\n"
        "i.run_string(one, 'import os; assert os.environ')\n"
        "i.destroy(one); print(len(os.listdir('/proc/self/task')))"
    )
    assert finished(run, code, python=python) == "2\n"


# --- Answers. ---------------------------------------------------------------------------------------------------------

HOSTILE = """
import asyncio, threading
def never(*_): os._exit(9)
class Text(str):
    __str__ = __repr__ = __format__ = encode = __getitem__ = __len__ = never
class Meta(type):
    __getattribute__ = never
class Trap:
    def __await__(self): return self
    def __iter__(self): return self
    def __next__(self): return None
    send = throw = None
    __getattr__ = __repr__ = __eq__ = __hash__ = __class__ = property(never)
class Task(asyncio.Task):
    __repr__ = get_name = get_coro = done = cancelling = __hash_ = never
class Thread(threading.Thread):
    name = property(never, lambda self, value: None)
    __repr__ = getName = never
async def trapped(password):
    await Trap()
async def main():
    loop = asyncio.get_running_loop()
    loop.kept = [Task(trapped('hunter2'), loop=loop) for _ in range(3)]
    await asyncio.sleep(0.05)
    import builtins; builtins.__import__ = never; sys.meta_path[:] = sys.path[:] = []
    print('ready', flush=True)
    await asyncio.sleep(100)
threading.Thread(target=time.sleep, args=(100,), name='plain', daemon=True).start()
hostile = Thread(target=time.sleep, args=(100,), daemon=True)
hostile.start()
asyncio.run(main())
"""


def test_answers_run_no_code_of_the_agent(run: Run, python: str) -> None:
    program = ready(run, HOSTILE, python=python)
    answer = program.answer_with("trapped")
    assert "plain" in answer
    assert program.process.poll() is None
    assert "hunter2" not in answer, "answers have no arguments and no variables"


def test_answers_have_a_maximum_size(run: Run, python: str) -> None:
    """With thousands of tasks, deep stacks and many threads, it counts what does not fit."""
    code = """
import asyncio, threading
def deep(number):
    if number: return deep(number - 1)
    time.sleep(100)
def functions(number):
    names = {}
    exec(f'async def task_{number:04}_{"x" * 150}():\\n    await asyncio.sleep(100)', {'asyncio': asyncio}, names)
    return next(iter(names.values()))
async def main():
    tasks = [asyncio.ensure_future(functions(number)()) for number in range(2000)]
    await asyncio.sleep(0.5)
    print('ready', flush=True)
    await asyncio.sleep(100)
sys.setrecursionlimit(5000)
for _ in range(30): threading.Thread(target=deep, args=(900,), daemon=True).start()
asyncio.run(main())
"""
    program = ready(run, code, python=python)
    answer = program.answer_with("task_")
    assert len(answer) < 1 << 16
    *_, left, end, _ = answer.split("\n")
    assert end == "end"
    kind, _, tasks = left.split("\t")
    listed = sum(int(line.split("\t")[1]) for line in answer.splitlines() if line.startswith("task\t"))
    assert kind == "left"
    assert listed + int(tasks) == 2001
    assert "skip\t" in answer


@pytest.mark.parametrize("python", [path for name, path in PYTHONS.items() if int(name.split(".")[1]) >= 12])
def test_tasks_that_asyncio_does_not_list(run: Run, python: str) -> None:
    """Python 3.14 keeps them where Python code has no access. The garbage collector finds them."""
    code = (
        "import asyncio\n"
        "class Special(asyncio.Task): pass\n"
        "async def wait(): await asyncio.sleep(100)\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop(); kept = [asyncio.create_task(wait()), Special(wait(), loop=loop)]\n"
        "    await asyncio.sleep(0.05)\n"
        "    for name in ('_all_tasks', '_scheduled_tasks', '_eager_tasks'): vars(asyncio.tasks).pop(name, None)\n"
        "    print('ready', flush=True); await asyncio.sleep(100)\n"
        "asyncio.run(main())"
    )
    answer = ready(run, code, python=python).answer()
    assert sorted(line.split("\t")[1] for line in answer.splitlines() if line.startswith("task\t")) == ["1", "2"], (
        answer
    )


LOOPS = {
    "asyncio.run": "asyncio.run(main())",
    "a loop": "loop = asyncio.new_event_loop(); loop.run_until_complete(main())",
    "in a thread": "threading.Thread(target=asyncio.run, args=(main(),)).start()",
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("state", ["large", "frozen", "forked"])
def test_no_task_is_lost(run: Run, python: str, loop: str, state: str) -> None:
    """In a process of more than 1 GiB, after gc.freeze(), and in the child of a process that has tasks too."""
    code = f"""
import asyncio, gc, threading
async def wait(): await asyncio.sleep(100)
async def start():
    kept.extend([asyncio.create_task(wait()) for _ in range(3)])
    await asyncio.sleep(0.05)
async def main():
    await start()
    if {state == "frozen"}: gc.freeze()
    print(os.getpid(), flush=True); await asyncio.sleep(100)
kept = []
if {state == "large"}: memory = b'x' * ((1 << 30) + (1 << 20))
if {state == "forked"}:
    old = asyncio.new_event_loop()
    old.run_until_complete(start())
    if os.fork(): time.sleep(100)
{LOOPS[loop]}
"""
    program = run("-W", "ignore", "-c", f"import os, time\n{code}", python=python)
    answer = program.answer_with("wait", int(program.line()))
    counts = [int(line.split("\t")[1]) for line in answer.splitlines() if line.startswith("task\t")]
    assert sum(counts) == 4, answer


@pytest.mark.parametrize("python", [path for name, path in PYTHONS.items() if int(name.split(".")[1]) >= 11])
def test_a_task_group_waits_for_its_children(run: Run, python: str) -> None:
    code = """
import asyncio
async def wait(): await asyncio.sleep(100)
async def grouped():
    async with asyncio.TaskGroup() as group:
        for name in ('first', 'second'): group.create_task(wait(), name=name)
async def in_body():
    async with asyncio.TaskGroup() as group:
        group.create_task(wait(), name='third')
        await asyncio.sleep(100)
async def main():
    kept = [asyncio.create_task(grouped(), name='group'), asyncio.create_task(in_body(), name='body')]
    await asyncio.sleep(0.05)
    print('ready', flush=True)
    await asyncio.wait(kept)
asyncio.run(main())
"""
    answer = ready(run, code, python=python).answer_with("in_body")
    awaits = {fields[2]: fields[3] for line in answer.splitlines() if (fields := line.split("\t"))[0] == "task"}
    assert "Future" in awaits["body"]
    if next(name for name, path in PYTHONS.items() if path == python) in ("3.11", "3.12", "3.13"):
        assert "Future" in awaits["group"]
    else:
        assert awaits["group"].startswith("2 of its tasks: task ")
        assert {*awaits["group"].partition(": ")[2].split(", ")} == {"task first", "task second"}
        assert {*awaits["Task-1"].partition(": ")[2].split(", ")} == {"task group", "task body"}


def test_only_root_and_the_same_user_get_an_answer(run: Run) -> None:
    if os.getuid() != 0:
        pytest.skip("changing the user requires root")
    program = ready(run, SLEEP)
    asking = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('\\0' + sys.argv[1]); "
        "print(len(s.makefile('rb').read()))"
    )
    arguments = ["-I", "-S", "-c", asking, f"{program.responders[1:]}/{program.pid}"]
    for user, wanted in ((65534, False), (0, True)):
        done = subprocess.run(
            ["/usr/bin/python3", *arguments],
            user=user,
            group=user,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (int(done.stdout) > 0) == wanted, done


def test_control_characters_in_names_are_escaped(run: Run, python: str) -> None:
    """Tabs and line breaks in names do not split fields or lines."""
    name = "a\tb\nend\n\x1b[31mü\udcff"
    code = f"import threading; threading.Thread(target=time.sleep, args=(100,), name={name!r}, daemon=True).start()\n"
    program = ready(run, code + SLEEP, python=python)
    lines = program.answer_with("a\\tb\\nend\\n\\x1b[31m\\xfc\\udcff").splitlines()
    assert [line for line in lines if line.startswith("end")] == ["end"]


EXECUTING = """
import _thread, asyncio, threading
source = '''
async def chunks():
    for number in range(calls): lock.acquire(True, 0.00001 if number < calls - 1 else 100)
    yield
async def hold():
    for number in range(calls): lock.acquire(True, 0.00001 if number < calls - 1 else 100)
async def consume():
    async for _ in chunks(): pass
'''
lock = _thread.allocate_lock(); lock.acquire()
for calls in range(60, 140):
    names = {'lock': lock, 'calls': calls}
    exec(source, names)  # a code object each, since its inline caches count the calls
    for name in ('hold', 'consume'):
        threading.Thread(target=asyncio.run, args=(names[name](),), daemon=True).start()
"""


def test_executing_coroutines_are_not_inspected(run: Run, python: str) -> None:
    """CPython 3.11 and 3.12 may crash on that, depending on the instruction: for example 1 of 128 calls."""
    program = ready(run, EXECUTING + SLEEP, python=python)

    def is_complete() -> bool:
        answer = program.answer()
        return answer.count("task\t80\t") == answer.count("thread\t80\t") == 2

    until(is_complete, "all tasks and threads in their last call")
    assert program.process.poll() is None
