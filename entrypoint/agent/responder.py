"""Answers what a Python process is doing: the stack of each thread and of each asyncio task.

`install()` starts a thread that listens on a socket, `<AGENT_INIT_RESPONDERS>/<our pid>` in the abstract namespace
(unix(7)). It answers every connection from root or from our own user, and closes it. The name to which the other end
is bound selects the answer: for one that ends in `/tasks`, every task on a line of its own, with one frame of its
stack; for one that ends in `/loops`, the event loops only; for any other, or none, everything. An answer is lines of
fields, with a tab between the fields; texts are escaped as by `ascii()`:

    process  pid  version
    lags     limit of the watch, s  upper bounds of classes, s  counts of lags  their sum, s  times blocked
    loop     thread  for how long it has been blocked, s, or 0  where
    thread   how many  names, ", " between them  native ids, "," between them  flags: main, daemon
    task     how many  names  what it awaits  flags: running, cancelling  type of its loop
    frame    file  line  function      of the thread or task above, the innermost last
    skip     frames left out here
    left     threads left out  tasks left out
    end

Threads or tasks with the same stack make one line. The lines `lags` and `loop` are there if event loops are watched
(`loop_watch.py`), and `loop` is there for each loop that runs.

Rules of this file. It runs in the agent's process, so it must not end it, delay it or change it:
- It runs wherever the agent runs: CPython 3.9 or later, standard library only, in one file that is loaded by path.
- It imports only built-in modules and `_socket`, and nothing at all while it answers.
- It binds names when it is loaded, because gevent and eventlet replace what is in `_thread` and `time` later on.
- It runs none of the agent's code while it answers: it reads no attribute that a class of the agent's may compute,
  calls no `repr`, and reads no variable but the `self` of asyncio's functions that run a loop. Only names of files,
  functions, types, threads and tasks leave the process.
- It holds frames and tasks for microseconds and collects no garbage, so nothing is finalized in its thread. Collections
  are put off and not disabled: whether they are enabled is the agent's to set and to query at any time.
- It reads the stack of a running thread only through its frame, because the stack itself changes (`awaited_by`).
- Its thread blocks all signals except those for its own faults; the others belong to threads that the agent knows.
- The thread does not exist while the process forks, because CPython 3.12+ warns of threads then. A forked child gets a
  socket and a thread of its own.
"""

import _signal
import _thread
import gc
import os
import sys
from _signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask
from _socket import AF_UNIX, SHUT_RDWR, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET, socket, timeout
from _weakref import ref
from time import monotonic, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import CodeType, FrameType
    from typing import Any

    from .loop_watch import Watch

    # Name, codes and lines of the stack from the outermost frame on, and the fields that follow the name.
    Task = tuple[str, list[CodeType], list[int | None], tuple[str, ...]]

PREFIX_VARIABLE = "AGENT_INIT_RESPONDERS"
WATCH_VARIABLE = "AGENT_INIT_LOOP_WATCH"  # in seconds, from process 1
MAX_ANSWER_BYTES = 60000  # without the last two lines
MAX_TASKS_BYTES = 1 << 22  # of an answer with every task
TASKS_SECONDS = 2.0  # for making it
MAX_TEXT_CHARACTERS = 300
INNERMOST_FRAMES, OUTERMOST_FRAMES = 40, 10  # of a deep stack; those between them are left out
MAX_FRAMES = 2000  # that are looked at
MAX_NAMES = 4  # of threads or tasks with the same stack
MAX_THREADS = 500
ANSWER_SECONDS = 0.4  # for making an answer
SLICE_SECONDS = 0.002  # of holding the GIL before offering it; a thread that waits gets it after 0.005 s in any case
MAX_SEARCHED_BYTES = 1 << 30  # a larger process is not searched object by object
THREAD_END_SECONDS = 1.0  # the longest that a fork waits for the thread to end; it takes 0.0002
THREAD_START_SECONDS = 1.0  # the longest wait for the thread to start
LAST_LOOK_SECONDS = 0.5  # the longest wait for the last look at event loops
SEND_SECONDS = 1.0
EXTRA_OBJECTS = 1 << 20  # container objects that may be allocated on top of the threshold before a collection

start_new_thread, allocate_lock = _thread.start_new_thread, _thread.allocate_lock
get_ident, get_native_id = _thread.get_ident, _thread.get_native_id
# The text of CPython, since 3.12.
FORK_WARNING = "This process (pid={}) is multi-threaded, use of {}() may lead to deadlocks in the child."
ALL_SIGNALS = tuple(_signal.valid_signals())
# Signals that a thread causes itself (signal(7)). If one is blocked, the process ends without the agent's handler.
FAULTS = {_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL, _signal.SIGTRAP, _signal.SIGSYS}
BLOCKED = tuple(number for number in ALL_SIGNALS if number not in FAULTS)


def _suspendable_types() -> "tuple[type, ...]":
    async def coroutine() -> None: ...

    def generator() -> "Iterator[None]":
        yield

    async def async_generator() -> "AsyncIterator[None]":
        yield

    samples = coroutine(), generator(), async_generator()
    samples[0].close()
    return tuple(type(sample) for sample in samples)


CoroutineType, GeneratorType, AsyncGeneratorType = SUSPENDABLE = _suspendable_types()
HAS_SUSPENDED = hasattr(CoroutineType, "cr_suspended")  # since 3.11; before that, running stacks are not read

_responder: "_Responder | None" = None


def install(loop_watch: "float | None" = None) -> None:
    """Start the thread if AGENT_INIT_RESPONDERS is set, or if loops are to be watched. Raises nothing.

    Works once a process, in the main thread; loops can be watched from a later call on, too. `loop_watch`: the limit in
    seconds, in place of which AGENT_INIT_LOOP_WATCH counts if it is set.
    """
    global _responder
    try:
        prefix = os.environ.get(PREFIX_VARIABLE, "")
        if not _is_main() or not _has_real_threads():
            return
        if _responder is None and prefix.startswith("@"):
            _responder = _started("\0" + prefix[1:], _operators_limit() or loop_watch)
        if loop_watch is None or (_operators_limit() and prefix.startswith("@")):
            return
        if _responder is None:
            # Nobody asks us, or another copy of this module answers: a name that nobody knows.
            _responder = _started(f"\0loop-watch-{os.getpid()}-{os.urandom(6).hex()}", loop_watch)
        elif _responder.watch is None:
            _responder.begin_watch(loop_watch)
    except Exception:
        pass


def _started(prefix: str, loop_watch: "float | None") -> "_Responder | None":
    """A responder whose thread runs; None if another copy of this module answers already. Raises OSError and more."""
    responder = _Responder(prefix)
    mask = pthread_sigmask(SIG_BLOCK, ())
    try:
        pthread_sigmask(SIG_BLOCK, BLOCKED)
        if loop_watch:
            responder.begin_watch(loop_watch)
        responder.start()
    except OSError as error:
        from errno import EADDRINUSE  # the agent has no module that it would not have without us

        if error.errno == EADDRINUSE:
            return None
        raise
    finally:
        pthread_sigmask(SIG_SETMASK, mask)
    os.register_at_fork(
        before=responder.before_fork,
        after_in_parent=responder.after_fork_in_parent,
        after_in_child=responder.after_fork_in_child,
    )
    return responder


def _operators_limit() -> "float | None":
    """The limit that process 1 has set for the watch of loops, in seconds."""
    try:
        return float(os.environ.get(WATCH_VARIABLE, "")) or None
    except ValueError:
        return None


def _make_watch(limit: float) -> "Watch":
    """Load `loop_watch.py`, which lies beside this file; there may be no package to import it from."""
    path = __file__.rpartition("/")[0] + "/loop_watch.py"
    loader = sys.modules["_frozen_importlib_external"].SourceFileLoader("agent_init_loop_watch", path)
    names: dict[str, Any] = {"__name__": "agent_init_loop_watch", "__file__": path}
    exec(loader.get_code("agent_init_loop_watch"), names)
    voice = names["Voice"](os.environ.get("NOTIFY_SOCKET", ""), os.environ.get(PREFIX_VARIABLE, ""))
    made: Watch = names["Watch"](limit, voice)
    return made


def _is_main() -> bool:
    """Whether this is the main thread of the main interpreter. Others must not have a thread that never ends.

    `signal` checks the thread first and the number second, and nobody can handle KILL.
    """
    try:
        _signal.signal(_signal.SIGKILL, _signal.SIG_DFL)
    except OSError:
        return True
    except ValueError:
        pass
    return False


def _has_real_threads() -> bool:
    """False once gevent or eventlet have replaced them: their threads answer only while their loop runs."""
    return {type(start_new_thread), type(allocate_lock), type(sleep)} == {type(len)}


class _Responder:
    """The thread and its socket, and how they are taken away and put back around a fork.

    A signal handler may raise inside a function that fork calls. Python prints such an exception and goes on, so the
    signal, most likely a stop request, would be lost. It is sent once more.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.main = get_ident()
        self.listener: socket | None = None
        self.inode = 0  # of the listener; the agent may close descriptors that are not its own
        self.closing = False  # the thread has to end
        self.native_id = 0
        self.ended = allocate_lock()  # held while the thread runs
        self.masks: dict[int, Any] = {}  # signal masks of threads that are forking
        self.lost_signals: list[int] = []  # signals to send once more
        self.is_single_threaded = False  # apart from our thread, when the process forked
        self.inherited: list[Any] = []  # tasks of our parent, of which a forked child has dead copies
        self.filters: list[tuple[Any, ...]] = []  # that we have added to `warnings.filters`
        self.watch: Watch | None = None  # of event loops
        self.waiting: _thread.LockType | None = None  # to be released after a look that does not wait until it is due
        self.is_ending = False  # that look is the last one
        self.is_told_of_workers = False  # by multiprocessing, see _tell_of_workers

    def begin_watch(self, limit: float) -> None:
        """Watch event loops from now on, until the interpreter ends. Raises OSError and more."""
        import atexit

        self.watch = _make_watch(limit)
        atexit.register(self._end_watch)
        if self.listener is not None:
            self._wake()

    def _end_watch(self) -> None:
        """The interpreter ends: a thread that wakes up now and then could crash it."""
        if self.watch is not None:
            self.is_ending = True
            self._look_once_more()
            self.watch = None
            self._attempt(self._wake_or_stop)

    def _wake_or_stop(self) -> None:
        try:
            self._wake()
        except OSError:  # no descriptor is left: the thread would go on waking up
            self._stop()

    def _look_once_more(self) -> None:
        """The process ends: have the thread look at what has been since its last look, and wait for that."""
        self._attempt(self._have_looked)

    def _have_looked(self) -> None:
        if self.listener is None or not self._is_listener_ours(self.listener):  # the thread has to open one first
            return
        looked = allocate_lock()
        looked.acquire()
        self.waiting = looked
        self._wake()
        if self.ended.locked():
            looked.acquire(True, LAST_LOOK_SECONDS)

    def _tell_of_workers(self) -> None:
        """Look once more when a worker of multiprocessing ends: forked ones do not run what atexit has (CPython)."""
        util = sys.modules.get("multiprocessing.util")
        if util is not None and not self.is_told_of_workers:
            self.is_told_of_workers = True
            util.register_after_fork(
                self, lambda responder: util.Finalize(None, responder._look_once_more, exitpriority=-100)
            )

    def start(self) -> None:
        """Open the socket if needed and start the thread. Signals must be blocked. Raises OSError, RuntimeError."""
        if self.listener is None or not self._is_listener_ours(self.listener):
            self._listen()
        self.ended, begun = allocate_lock(), allocate_lock()
        self.ended.acquire()
        begun.acquire()
        self.closing = False
        try:
            start_new_thread(self._serve, (begun, self.ended))
        except BaseException:
            self.ended.release()
            self._close_listener()
            raise
        begun.acquire(True, THREAD_START_SECONDS)  # 3.9 may crash if it ends before its thread starts

    def _listen(self) -> None:
        """Open a socket, and close the previous one if there is one. Raises OSError."""
        self._close_listener()
        listener = socket(AF_UNIX, SOCK_STREAM)  # close-on-exec
        try:
            listener.settimeout(None)  # socket.setdefaulttimeout() applies here too
            listener.bind(self._name())
            listener.listen(8)
            self.inode = os.fstat(listener.fileno()).st_ino
        except BaseException:
            listener.close()
            raise
        self.listener = listener

    def _close_listener(self) -> None:
        """Close the socket, unless the agent has: then the descriptor belongs to something else."""
        listener, self.listener = self.listener, None
        if listener is not None:
            if self._is_listener_ours(listener):
                listener.close()
            else:
                listener.detach()

    def _name(self) -> str:
        return f"{self.prefix}/{os.getpid()}"

    def _is_listener_ours(self, listener: socket) -> bool:
        try:
            return os.fstat(listener.fileno()).st_ino == self.inode
        except OSError:
            return False

    # --- The thread. ---

    def _serve(self, begun: "_thread.LockType", ended: "_thread.LockType") -> None:
        try:
            self.native_id = get_native_id()
            if self.watch is not None:
                self.watch.begin()
            begun.release()
            while not self.closing:
                listener = self.listener
                if listener is None or not self._is_listener_ours(listener):  # daemons close every descriptor
                    self._listen()
                    continue
                try:
                    fd, name = self._accept(listener)
                except OSError:
                    if self.waiting is not None:
                        self._without_collections(self._look)
                    if not self.closing:  # out of descriptors or memory, for now
                        sleep(0.1)
                    continue
                kind = name.rpartition(b"/")[2] if type(name) is bytes else b""
                since = monotonic()
                self._without_collections(lambda: self._answer(fd, kind))  # noqa: B023  (called at once)
                if self.watch is not None and monotonic() - since > self.watch.period:
                    self.watch.skip()
                self._without_collections(self._look)
        except Exception:
            pass
        finally:
            ended.release()

    def _accept(self, listener: socket) -> "tuple[int, object]":
        """Return a connection and the name of its other end. Look at the event loops while waiting. Raises OSError."""
        while True:
            wait = None if self.watch is None else self.watch.period
            if listener.gettimeout() != wait:
                listener.settimeout(wait)
            try:
                fd, name = listener._accept()  # type: ignore[attr-defined]
                return fd, name
            except timeout:
                if not self._is_listener_ours(listener):
                    raise OSError from None
                self._without_collections(self._look)

    def _look(self) -> None:
        watch, waiting, self.waiting = self.watch, self.waiting, None
        try:
            if watch is not None and not self.closing and (waiting is not None or watch.is_due()):
                watch.look()
                if self.is_ending:
                    watch.end()
        finally:
            if waiting is not None:
                waiting.release()

    def _without_collections(self, step: "Callable[[], None]") -> None:
        """Run the step, and put collections off meanwhile. Its errors are lost."""
        thresholds = gc.get_threshold()
        later = thresholds[0] and thresholds[0] + EXTRA_OBJECTS  # 0: never
        gc.set_threshold(later, *thresholds[1:])
        try:
            step()
        except Exception:
            pass
        finally:
            if gc.get_threshold()[0] == later:  # else the agent has changed it meanwhile
                gc.set_threshold(*thresholds)

    def _answer(self, fd: int, kind: bytes) -> None:
        """Answer on a connection, if root or our own user asks. `kind`: `tasks`, `loops` or anything else."""
        connection = socket(fileno=fd)
        try:
            connection.settimeout(SEND_SECONDS)
            asking = connection.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
            pid, uid = (int.from_bytes(asking[at : at + 4], sys.byteorder) for at in (0, 4))
            # Our own connections only wake the thread.
            if pid != os.getpid() and uid in (0, os.getuid(), os.geteuid()):
                connection.sendall(_make_answer(self, kind).encode("ascii"))
        finally:
            connection.close()

    # --- Forks. ---

    def before_fork(self) -> None:
        """End the thread and wait until it has ended."""
        self._attempt(self._block) or self._attempt(self._block)
        self._attempt(self._stop)
        self._attempt(self._unsilence_fork_warning)

    def after_fork_in_parent(self) -> None:
        """Start the thread again, unless another thread is forking too."""
        mask = self.masks.pop(get_ident(), None)
        if not self.masks and self.closing:
            self._attempt(self.start)
            if self.is_single_threaded:
                self._attempt(self._silence_fork_warning)
        self._restore(mask)

    def after_fork_in_child(self) -> None:
        """Start a thread for the child, under its own pid."""
        mask = self.masks.get(get_ident())
        self.masks, self.lost_signals = {}, []
        self.main = get_ident()
        self.ended = allocate_lock()
        if self.watch is not None:
            self.watch.after_fork_in_child(sys._getframe(1))
            self._attempt(self._tell_of_workers)
        self._attempt(self._note_inherited)
        self._attempt(self._close_listener)
        # A preexec_fn of subprocess may need to be the only thread: unshare(2), setns(2).
        if sys._getframe(1).f_code.co_name != "_execute_child":
            self._attempt(self.start)
        self._restore(mask)

    def _note_inherited(self) -> None:
        self.inherited = _listed_references()
        if _all_tasks() is not None:  # it gives tasks and not references; ours are the same object for a task
            self.inherited = [ref(task) for task in (reference() for reference in self.inherited) if task is not None]

    def _attempt(self, step: "Callable[[], None]") -> bool:
        """Run the step. Returns False if a signal handler raised in it."""
        try:
            step()
        except (OSError, RuntimeError):
            pass  # the process does not answer then
        except BaseException as error:
            self.lost_signals.append(_signal_of(error))
            return False
        return True

    def _block(self) -> None:
        if get_ident() not in self.masks:
            self.masks[get_ident()] = pthread_sigmask(SIG_BLOCK, ())  # runs pending handlers; so does the next call
        pthread_sigmask(SIG_BLOCK, BLOCKED)

    def _restore(self, mask: "Any") -> None:
        """Restore the signal mask. This comes last, because handlers run from here on."""
        if self.lost_signals:
            self._attempt(self._send_lost)
        if mask is not None:
            try:
                pthread_sigmask(SIG_SETMASK, mask)
            except BaseException as error:
                self.lost_signals.append(_signal_of(error))
                self._attempt(self._send_lost)

    def _send_lost(self) -> None:
        """Send the lost signals to ourselves, a moment later."""
        numbers = self.lost_signals
        self.lost_signals = []

        def send() -> None:
            pthread_sigmask(SIG_BLOCK, BLOCKED)
            sleep(0.001)
            for number in numbers:
                os.kill(os.getpid(), number)  # 0 sends nothing

        start_new_thread(send, ())

    def _stop(self) -> None:
        """End the thread. Its socket stays open, so that connections wait. May be called again."""
        self.is_single_threaded = False
        self.closing = True
        try:
            self._wake()
        except OSError:
            # There is no descriptor left to wake it with.
            if self.listener is not None and self._is_listener_ours(self.listener):
                self.listener.shutdown(SHUT_RDWR)  # makes accept fail from now on
                self._close_listener()
        if self.ended.acquire(True, THREAD_END_SECONDS):
            self.ended.release()
            if sys.version_info >= (3, 12):
                # CPython counts the threads of the kernel, which still lists ours for some microseconds.
                end = monotonic() + THREAD_END_SECONDS
                while os.path.exists(f"/proc/self/task/{self.native_id}") and monotonic() < end:
                    sleep(0.00005)
                self.is_single_threaded = len(os.listdir("/proc/self/task")) == 1

    def _wake(self) -> None:
        """Make accept return, even if the agent has closed the socket: its name exists as long as accept waits."""
        waker = socket(AF_UNIX, SOCK_STREAM)
        try:
            waker.setblocking(False)
            waker.connect(self._name())
        except BlockingIOError:
            pass  # other connections are waiting, and wake it
        finally:
            waker.close()

    def _silence_fork_warning(self) -> None:
        """Filter the warning of threads at a fork: some interpreters count only after our thread is back.

        A plain text in place of a pattern is compared for equality. Unlike an object of ours it can be copied and
        pickled.
        """
        if type(filters := _filters()) is list:
            texts = [FORK_WARNING.format(os.getpid(), name) for name in ("fork", "forkpty")]
            self.filters = [("ignore", text, DeprecationWarning, None, 0) for text in texts]
            filters[:0] = self.filters

    def _unsilence_fork_warning(self) -> None:
        """Remove the filters: at the next fork the agent may have threads of its own."""
        if self.filters and type(filters := _filters()) is list:
            filters[:] = [one for one in filters if not any(one is mine for mine in self.filters)]


def _filters() -> "Any":
    return (sys.modules.get("warnings") or sys.modules["_warnings"]).filters


def _signal_of(error: BaseException) -> int:
    """The signal whose handler raised `error`; 0 if that is not known."""
    trace = error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        if frame.f_code.co_filename != __file__ and frame.f_code.co_argcount >= 2:  # handler(number, frame)
            for name in frame.f_code.co_varnames[: frame.f_code.co_argcount]:
                value = frame.f_locals.get(name)
                if isinstance(value, int) and value in ALL_SIGNALS:
                    return int(value)
    return int(_signal.SIGINT) if isinstance(error, KeyboardInterrupt) else 0


# --- The answer. ------------------------------------------------------------------------------------------------------


class _Budget:
    """The time that an answer may take. A fork ends it early. Asking for it lets other threads run now and then."""

    def __init__(self, responder: _Responder, seconds: float) -> None:
        self.responder = responder
        self.since = monotonic()
        self.end = self.since + seconds

    def is_left(self) -> bool:
        now = monotonic()
        if now - self.since > SLICE_SECONDS:
            sleep(0)
            self.since = now = monotonic()
        return now < self.end and not self.responder.closing


class _StackGroup:
    """Threads or tasks that have the same stack."""

    def __init__(self, head: str, tail: "tuple[str, ...]") -> None:
        self.head, self.tail = head, tail
        self.count = 0
        self.names: list[str] = []
        self.native_ids: list[str] = []

    def add(self, name: str, native_id: object = None) -> None:
        self.count += 1
        if len(self.names) < MAX_NAMES:
            self.names.append(name)
        if native_id is not None:
            self.native_ids.append(str(native_id))

    def lines(self, frames: str) -> str:
        ids = (",".join(self.native_ids[:MAX_NAMES]),) if self.head == "thread" else ()
        return "\t".join((self.head, str(self.count), _escape(", ".join(self.names)), *ids, *self.tail)) + "\n" + frames


def _make_answer(responder: _Responder, kind: bytes) -> str:
    """The answer. `kind`: see `_Responder._answer`."""
    version = sys.implementation.name + " " + sys.version.split()[0]
    head = f"process\t{os.getpid()}\t{_escape(version)}\n"
    if responder.watch is not None:
        head += responder.watch.lines()
    if kind == b"loops":
        return head + "left\t0\t0\nend\n"
    if kind == b"tasks":
        return head + _every_task(responder)
    budget = _Budget(responder, ANSWER_SECONDS)
    threads, threads_left = _group_threads(responder.main, budget)
    tasks, tasks_left = _group_tasks(responder.inherited, budget)
    parts = [head]
    size = 0
    for group, frames in threads[:1] + tasks + threads[1:]:  # the main thread is the first
        lines = group.lines(frames)
        if size + len(lines) <= (MAX_ANSWER_BYTES if group.head == "thread" else MAX_ANSWER_BYTES * 2 // 3):
            parts.append(lines)
            size += len(lines)
        elif group.head == "thread":
            threads_left += group.count
        else:
            tasks_left += group.count
    parts.append(f"left\t{threads_left}\t{tasks_left}\nend\n")
    return "".join(parts)


def _every_task(responder: _Responder) -> str:
    """The lines of an answer with every task, each on its own."""
    parts: list[str] = []
    size = left = 0
    for task in _describe_tasks(responder.inherited, _Budget(responder, TASKS_SECONDS)):
        if task is None or size > MAX_TASKS_BYTES:
            left += 1
            continue
        name, codes, lines, tail = task
        group = _StackGroup("task", tail)
        group.add(name)
        at = _shown_frame(codes)
        parts.append(group.lines(_frames(codes[at : at + 1], lines[at : at + 1])))
        size += len(parts[-1])
    return "".join(parts) + f"left\t0\t{left}\nend\n"


def _shown_frame(codes: "list[CodeType]") -> int:
    """The number of the one frame that is shown for a task: the innermost of the agent's own code, or of all."""
    libraries = ("/site-packages/", "/dist-packages/", "/lib/python3")
    for at in range(len(codes) - 1, -1, -1):
        if not any(place in codes[at].co_filename for place in libraries):
            return at
    return max(0, len(codes) - 1)


def _group_threads(main: int, budget: _Budget) -> "tuple[list[tuple[_StackGroup, str]], int]":
    """The main thread, then the others; and the number of threads left out."""
    found: dict[tuple[str, str], _StackGroup] = {}
    left = 0
    known = _known_threads()
    idents = [ident for ident in sys._current_frames() if ident not in (main, get_ident())]
    for number, ident in enumerate([main, *idents]):
        if number and (number >= MAX_THREADS or not budget.is_left()):
            left += 1
            continue
        frame = sys._current_frames().get(ident)
        if frame is None:
            continue
        steps = _walk(frame)
        frame = None
        name, native_id, daemon = known.get(ident, ("", None, False))
        flags = "main" if ident == main else "daemon" if daemon else ""
        frames = _frames(steps[-2::-2], steps[::-2])
        key = (flags, frames)
        if key not in found:
            found[key] = _StackGroup("thread", (flags,))
        found[key].add(name or "unnamed", os.getpid() if ident == main else native_id)
    return [(group, key[1]) for key, group in found.items()], left


def _known_threads() -> "dict[int, tuple[str, object, bool]]":
    """What `threading` knows, by ident: name, native id, whether it is a daemon thread."""
    known = {}
    active = getattr(sys.modules.get("threading"), "_active", None)
    for ident, thread in list(active.items()) if type(active) is dict else ():
        try:
            fields = object.__getattribute__(thread, "__dict__")
            name, native_id = fields.get("_name"), fields.get("_native_id")
            known[ident] = (name if type(name) is str else "", native_id, bool(fields.get("_daemonic") is True))
        except AttributeError:
            continue
    return known


def _walk(frame: "FrameType | None") -> "list[Any]":
    """Code, line, code, line, from the frame outwards. A flat list, because each object may trigger a collection."""
    steps: list[Any] = []
    while frame is not None and len(steps) < 2 * MAX_FRAMES:
        steps.append(frame.f_code)
        steps.append(frame.f_lineno)
        frame = frame.f_back
    return steps


def _frames(codes: "list[CodeType]", lines: "list[int | None]") -> str:
    """The lines for a stack. Its outermost frame comes first."""
    parts = []
    for at, code in enumerate(codes):
        if OUTERMOST_FRAMES <= at < len(codes) - INNERMOST_FRAMES:
            if at == OUTERMOST_FRAMES:
                parts.append(f"skip\t{len(codes) - INNERMOST_FRAMES - OUTERMOST_FRAMES}\n")
            continue
        function = getattr(code, "co_qualname", code.co_name)  # qualified since 3.11
        parts.append(f"frame\t{_escape(code.co_filename)}\t{lines[at] or 0}\t{_escape(function)}\n")
    return "".join(parts)


def _escape(text: str) -> str:
    """The text without tabs, line breaks, or anything that is not ASCII."""
    plain = str.__getitem__(text, slice(MAX_TEXT_CHARACTERS))  # never a subclass, whose methods would run
    return ascii(plain)[1:-1]


# --- Tasks. -----------------------------------------------------------------------------------------------------------


def _group_tasks(inherited: "list[Any]", budget: _Budget) -> "tuple[list[tuple[_StackGroup, str]], int]":
    """The unfinished tasks of all loops by their stacks, and the number of tasks left out."""
    found: dict[tuple[str, tuple[str, ...]], _StackGroup] = {}
    left = 0
    for task in _describe_tasks(inherited, budget):
        if task is None:
            left += 1
            continue
        name, codes, lines, tail = task
        frames = _frames(codes, lines)
        key = (frames, tail[1:])  # without what it awaits, as that may have a different name for each
        if key not in found:
            found[key] = _StackGroup("task", tail)
        found[key].add(name)
    return [(group, key[0]) for key, group in found.items()], left


def _describe_tasks(inherited: "list[Any]", budget: _Budget) -> "Iterator[Task | None]":
    """The unfinished tasks of all loops, without inherited ones; None for each that is left out."""
    kinds: list[Any] = [
        kind for kind in (_asyncio_names().get(name) for name in ("Task", "_PyTask")) if type(kind) is type
    ]
    dead = {id(reference) for reference in inherited}
    references = _task_references(kinds, budget) if kinds else []
    references = [reference for reference in references if id(reference) not in dead]
    children = _children(references, budget)
    for number, reference in enumerate(references):
        if not budget.is_left():
            for _ in references[number:]:
                yield None
            return
        task = reference()
        kind = next((kind for kind in kinds if issubclass(type(task), kind)), None)
        if kind is None or kind.done(task):
            continue
        described = _describe_task(task, kind, kinds, children)
        task = None
        yield described


def _asyncio_names() -> "dict[str, Any]":
    """The names in the module asyncio.tasks; empty if it is not loaded."""
    module = sys.modules.get("asyncio.tasks")
    return vars(module) if module is not None else {}


def _task_references(kinds: "list[Any]", budget: _Budget) -> "list[Any]":
    """Weak references to all tasks.

    Up to 3.13 asyncio keeps them in sets of the module. From 3.14 on the interpreter keeps them where only
    `_asyncio.all_tasks(loop)` finds them, so the loops are needed: those that asyncio runs are in the stacks of the
    threads, for others the collector finds tasks, because they refer to their type. It does not find what was created
    before gc.freeze(), and is not used in a large process.
    """
    names = _asyncio_names()
    if sys.version_info < (3, 14) and ("_all_tasks" in names or "_scheduled_tasks" in names):
        return _listed_references()
    types = list(kinds)
    for kind in types:
        types += [subclass for subclass in type.__subclasses__(kind) if subclass not in types]
    with open("/proc/self/statm", "rb", 0) as file:
        is_large = int(file.read().split()[1]) * 4096 > MAX_SEARCHED_BYTES
    found = [] if is_large else [ref(item) for item in gc.get_referrers(*types) if type(item) in types]
    all_tasks = _all_tasks()
    if all_tasks is None or any(_overrides(kind) for kind in types if kind not in kinds):
        return found
    loops = _running_loops(budget)
    known = {id(loop) for loop in loops}
    for reference in found:
        task = reference()
        kind = next((kind for kind in kinds if issubclass(type(task), kind)), None)
        if kind is not None and id(loop := kind.get_loop(task)) not in known:
            known.add(id(loop))
            loops.append(loop)
        task = None
    # Tasks that the process has inherited in a fork are not among them.
    return [ref(task) for loop in loops if budget.is_left() for task in all_tasks(loop)]


def _all_tasks() -> "Callable[[Any], set[Any]] | None":
    """The function of the interpreter that returns the unfinished tasks of a loop, since 3.14."""
    module = sys.modules.get("_asyncio")
    function: Any = vars(module).get("all_tasks") if module is not None else None
    return function if type(function).__name__ == "builtin_function_or_method" else None


def _overrides(kind: type) -> bool:
    """Whether a class of the agent's has code that `all_tasks` runs."""
    names = type.__dict__["__dict__"].__get__(kind)
    return any(name in names for name in ("done", "get_loop", "_loop", "__hash__", "__eq__", "__getattribute__"))


def _running_loops(budget: _Budget) -> "list[Any]":
    """The loops that asyncio runs, from the stacks of all threads. A Runner is in the stack for every kind of loop."""
    run_forever = _code_of("asyncio.base_events", "BaseEventLoop", "run_forever")
    run = _code_of("asyncio.runners", "Runner", "run")
    loops: dict[int, Any] = {}
    for ident in list(sys._current_frames())[:MAX_THREADS]:
        frame = sys._current_frames().get(ident) if ident != get_ident() and budget.is_left() else None
        depth = 0
        while frame is not None and depth < MAX_FRAMES:
            code = frame.f_code
            if code is run_forever or code is run:
                loop = frame.f_locals.get("self")
                if code is run and loop is not None:
                    loop = object.__getattribute__(loop, "__dict__").get("_loop")
                if loop is not None:
                    loops[id(loop)] = loop
            frame = frame.f_back
            depth += 1
    return list(loops.values())


def _code_of(module: str, kind: str, function: str) -> "CodeType | None":
    found = vars(sys.modules[module]).get(kind) if module in sys.modules else None
    found = vars(found).get(function) if type(found) is type else None
    return found.__code__ if type(found) is type(_code_of) else None


def _children(references: "list[Any]", budget: _Budget) -> "dict[int, list[Any]]":
    """By the id of a task, references to those that it awaits: since 3.14 they refer to it.

    That is what asyncio.capture_call_graph() reads; the function itself would run code of the agent's.
    """
    module = sys.modules.get("_asyncio")
    kind: Any = vars(module).get("Future") if module is not None else None
    field: Any = vars(kind).get("_asyncio_awaited_by") if type(kind) is type else None
    children: dict[int, list[Any]] = {}
    if type(field).__name__ == "getset_descriptor":
        for reference in references:
            if not budget.is_left():
                break
            task = reference()
            if issubclass(type(task), kind):
                for parent in field.__get__(task) or ():
                    children.setdefault(id(parent), []).append(reference)
                parent = None
            task = None
    return children


def _listed_references() -> "list[Any]":
    """References from asyncio's own sets. All references to a task are the same object as long as one exists."""
    names = _asyncio_names()
    found: list[Any] = []
    for name in ("_all_tasks", "_scheduled_tasks", "_eager_tasks"):
        tasks = names.get(name)
        tasks = getattr(tasks, "data", tasks)  # of a WeakSet
        if type(tasks) is set:
            found += list(tasks)
    return [item if type(item) is ref else ref(item) for item in found]


def _describe_task(task: "Any", kind: "Any", kinds: "list[Any]", children: "dict[int, list[Any]]") -> "Task":
    """The task as text, and its stack."""
    codes, lines, running, last = _chain(kind.get_coro(task))
    waiter = object.__getattribute__(task, "_fut_waiter")
    awaits = _awaited(waiter, kinds) if waiter is not None else last
    if id(task) in children and awaits.endswith(".Future") and codes and _waits_for_children(codes[-1]):
        awaits = _name_children([reference() for reference in children[id(task)]], kinds)
    cancelling = kind.cancelling(task) if hasattr(kind, "cancelling") else object.__getattribute__(task, "_must_cancel")
    flags = ("running " if running else "") + ("cancelling" if cancelling else "")
    return kind.get_name(task), codes, lines, (_escape(awaits), flags.strip(), _type_name(kind.get_loop(task)))


def _waits_for_children(code: "CodeType") -> bool:
    """Whether it is the function in which a TaskGroup, or asyncio.wait, waits for tasks."""
    places = (("/asyncio/taskgroups.py", "_aexit"), ("/asyncio/tasks.py", "_wait"))
    return any(code.co_name == name and code.co_filename.endswith(file) for file, name in places)


def _name_children(tasks: "list[Any]", kinds: "list[Any]") -> str:
    pending = [task for task in tasks if any(issubclass(type(task), k) and not k.done(task) for k in kinds)]
    names = ", ".join(_awaited(task, kinds) for task in pending[:MAX_NAMES])
    return f"{len(pending)} of its tasks: {names}"


def _awaited(future: "Any", kinds: "list[Any]") -> str:
    """A description of a future: its type, the name of the task that it is, or the tasks that it gathers."""
    for kind in kinds:
        if issubclass(type(future), kind):
            return f"task {kind.get_name(future)}"
    children = None
    if _type_name(future) == "asyncio.tasks._GatheringFuture":
        children = object.__getattribute__(future, "_children")
    if type(children) is list:
        pending = [child for child in children if any(issubclass(type(child), k) and not k.done(child) for k in kinds)]
        names = ", ".join(_awaited(child, kinds) for child in pending[:MAX_NAMES])
        return f"{len(pending)} of {len(children)}: {names}"
    return _type_name(future)


def _type_name(thing: object) -> str:
    kind = type(thing)
    return _escape(f"{kind.__module__}.{kind.__qualname__}")


def _chain(awaitable: "Any") -> "tuple[list[CodeType], list[int | None], bool, str]":
    """The whole chain of awaits of a coroutine: codes, lines, whether it is running, and the type at the end."""
    codes: list[CodeType] = []
    lines: list[int | None] = []
    running = False
    last = ""
    while awaitable is not None and len(codes) < MAX_FRAMES:
        last = _type_name(awaitable)
        for prefix, awaited in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = _field(awaitable, prefix + "_frame")
            if frame is not None:
                codes.append(frame.f_code)
                lines.append(frame.f_lineno)
                running = prefix == "cr" and _field(awaitable, "cr_running") is True
                awaitable = awaited_by(awaitable) if type(awaitable) in SUSPENDABLE else _field(awaitable, awaited)
                break
        else:
            awaitable = next(_wrapped(awaitable), None)
    return codes, lines, running, last


def awaited_by(thing: "Any") -> "object":
    """What a coroutine or generator awaits; None unless it is suspended.

    While it runs, CPython 3.11 and 3.12 may take whatever lies next to its stack for what it awaits, and crash. No
    other thread gets the GIL between the check and the use, because both are attributes in C and on one line.
    """
    kind = type(thing)
    if kind is CoroutineType:
        return thing.cr_await if not HAS_SUSPENDED or thing.cr_suspended else None
    if kind is GeneratorType:
        return thing.gi_yieldfrom if not HAS_SUSPENDED or thing.gi_suspended else None
    if sys.version_info[:2] != (3, 11):
        return thing.ag_await if not HAS_SUSPENDED or thing.ag_suspended else None
    # 3.11 has no `ag_suspended`. The collector never visits a running stack. On a suspended one, what is awaited is the
    # last object, unless an exception is being handled.
    frame = thing.ag_frame
    if frame is None or not thing.ag_running or frame.f_back is not None:
        return None
    inside = [
        link for link in gc.get_referents(thing) if link is not None and not issubclass(type(link), BaseException)
    ]
    return inside[-1] if inside and type(inside[-1]) is not type(frame.f_code) else None


def _field(thing: object, name: str) -> "Any":
    """An attribute that a C type computes, such as those of coroutines; None if there is none of that name."""
    found: Any = type(thing).__dict__.get(name)
    return found.__get__(thing) if type(found).__name__ in ("getset_descriptor", "member_descriptor") else None


def _wrapped(thing: object) -> "Iterator[Any]":
    """The generator or coroutine behind one of the interpreter's iterators, which have no attribute for it."""
    if type(thing).__name__ in (
        "async_generator_asend",
        "async_generator_athrow",
        "anext_awaitable",
        "coroutine_wrapper",
    ):
        for referent in gc.get_referents(thing):
            if any(name in type(referent).__dict__ for name in ("cr_frame", "gi_frame", "ag_frame")):
                yield referent
