"""Lets a Python process tell what it is doing: each thread's stack and each asyncio task, to whoever makes a report.

`install()` has a thread of its own wait on a socket, `<AGENT_INIT_RESPONDERS>/<our pid>` in the abstract namespace
(unix(7)). It answers whoever connects, if that is root or our own user, and closes. An answer is lines of fields with
a tab between them, and texts are escaped as `ascii()` does:

    process  pid  version
    thread   how many alike  names, ", " between them  native ids, "," between them  flags: main, daemon
    task     how many alike  names  what it awaits  flags: running, cancelling  type of its loop
    frame    file  line  function      of the thread or task above, the innermost last
    skip     frames left out here
    left     threads left out  tasks left out
    end

Rules of this file. It runs in the agent's process, so it may neither end, nor delay, nor change it:
- It runs wherever the agent runs: CPython 3.9 or later, standard library only, in one file that is loaded by path.
- Nothing is imported but what is built in, and `_socket`; nothing at all when asked.
- Names are bound when the file is loaded: gevent and eventlet replace what is in `_thread` and `time` later on.
- No code of the agent's runs when asked: no attribute is read that a class of the agent's may compute, no `repr`, no
  value of a variable. Names of files, functions, types, threads and tasks are all that leaves the process.
- Frames and tasks are held for microseconds, and no garbage is collected here: nothing is finalised in this thread.
  That is put off, and not disabled: whether it is enabled is the agent's to say and to ask at any time.
- Of what a thread executes no stack is read, but by way of its frame: it is in motion (`awaited_by`).
- The thread blocks all signals but those for faults of its own: they are for the threads that the agent knows about.
- No thread while the process forks: CPython 3.12+ warns of it. A forked child gets a socket and a thread of its own.
"""

import _signal
import _thread
import gc
import os
import sys
from _signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask
from _socket import AF_UNIX, SHUT_RDWR, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET, socket
from _weakref import ref
from time import monotonic, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import CodeType, FrameType
    from typing import Any

VARIABLE = "AGENT_INIT_RESPONDERS"
LONGEST = 60000  # bytes in an answer, its last lines apart
LONGEST_TEXT = 300  # characters of a text
INNERMOST, OUTERMOST = 40, 10  # frames that are told of a deep stack
DEEPEST = 2000  # frames that are walked at all
NAMES = 4  # that are told of threads or tasks alike
THREADS = 500
LONGEST_LOOK = 0.4  # seconds for an answer
SLICE = 0.002  # seconds with the GIL until others may have it; who waits gets it after 0.005 in any case
LARGEST_SEARCH = 1 << 30  # bytes of a process that is searched object by object
STOPS_WITHIN = 1.0  # seconds that a fork waits at most for the thread to end; it takes 0.0002
BEGINS_WITHIN = 1.0  # the same for its begin
SEND_WITHIN = 1.0
UNCOLLECTED = 1 << 20  # container objects more than ever, until there is a collection while we answer

start_new_thread, allocate_lock = _thread.start_new_thread, _thread.allocate_lock
get_ident, get_native_id = _thread.get_ident, _thread.get_native_id
# As CPython says it since 3.12.
THREADS_AT_FORK = "This process (pid={}) is multi-threaded, use of {}() may lead to deadlocks in the child."
ALL_SIGNALS = tuple(_signal.valid_signals())
# What a thread brings upon itself (signal(7)): blocked, it ends the process without a word of the agent's handler.
OF_THE_THREAD = {_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL, _signal.SIGTRAP, _signal.SIGSYS}
BLOCKED = tuple(number for number in ALL_SIGNALS if number not in OF_THE_THREAD)


def _types_that_suspend() -> "tuple[type, ...]":
    async def coroutine() -> None: ...

    def generator() -> "Iterator[None]":
        yield

    async def async_generator() -> "AsyncIterator[None]":
        yield

    samples = coroutine(), generator(), async_generator()
    samples[0].close()
    return tuple(type(sample) for sample in samples)


CoroutineType, GeneratorType, AsyncGeneratorType = THAT_SUSPEND = _types_that_suspend()
TELLS_SUSPENDED = hasattr(CoroutineType, "cr_suspended")  # since 3.11; before that a stack in motion is not read

_responder: "_Responder | None" = None


def install() -> None:
    """Have a thread answer, where AGENT_INIT_RESPONDERS asks for it. Once for a process; raises nothing.

    To be called in the main thread.
    """
    global _responder
    try:
        prefix = os.environ.get(VARIABLE, "")
        if _responder is not None or not prefix.startswith("@") or not _is_main() or not _has_real_threads():
            return
        _responder = responder = _Responder("\0" + prefix[1:])
        mask = pthread_sigmask(SIG_BLOCK, ())
        try:
            pthread_sigmask(SIG_BLOCK, BLOCKED)
            responder.start()
        finally:
            pthread_sigmask(SIG_SETMASK, mask)
        os.register_at_fork(
            before=responder.before_fork,
            after_in_parent=responder.after_fork_in_parent,
            after_in_child=responder.after_fork_in_child,
        )
    except Exception:
        pass


def _is_main() -> bool:
    """Whether this is the main thread of the main interpreter; another one must not have a thread that never ends.

    `signal` looks at that first, and at the number after it: nobody can handle KILL.
    """
    try:
        _signal.signal(_signal.SIGKILL, _signal.SIG_DFL)
    except OSError:
        return True
    except ValueError:
        pass
    return False


def _has_real_threads() -> bool:
    """Not so once gevent or eventlet have put their own in place; those answer only while their loop runs."""
    return {type(start_new_thread), type(allocate_lock), type(sleep)} == {type(len)}


class _Responder:
    """The thread, its socket, and what it takes to be without them while the process forks.

    A signal's handler may raise in one of the functions that fork calls; Python prints such an exception and goes on,
    and the signal, a stop request most likely, would be lost. It is sent once more.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.main = get_ident()
        self.listener: socket | None = None
        self.inode = 0  # of the listener: the agent may close descriptors that it does not know
        self.closing = False  # the thread is to end
        self.native_id = 0
        self.ended = allocate_lock()  # held while the thread runs
        self.masks: dict[int, Any] = {}  # threads that are forking, and their signal masks
        self.lost: list[int] = []  # signals to send once more
        self.alone = False  # without us the process had one thread when it forked
        self.inherited: list[Any] = []  # tasks of our parent's, of which we have lifeless copies
        self.filters: list[tuple[Any, ...]] = []  # of warnings, that are ours

    def start(self) -> None:
        """Open the socket if need be and start the thread; signals must be blocked. Raises OSError, RuntimeError."""
        if self.listener is None or not self._is_ours(self.listener):
            self._listen()
        self.ended, begun = allocate_lock(), allocate_lock()
        self.ended.acquire()
        begun.acquire()
        self.closing = False
        try:
            start_new_thread(self._serve, (begun, self.ended))
        except BaseException:
            self.ended.release()
            self._let_go()
            raise
        begun.acquire(True, BEGINS_WITHIN)  # an interpreter that ends before its thread begins may crash (3.9)

    def _listen(self) -> None:
        """Open a socket in place of the one there was, if any. Raises OSError."""
        self._let_go()
        listener = socket(AF_UNIX, SOCK_STREAM)  # close-on-exec
        try:
            listener.settimeout(None)  # socket.setdefaulttimeout() holds for this one too
            listener.bind(self._name())
            listener.listen(8)
            self.inode = os.fstat(listener.fileno()).st_ino
        except BaseException:
            listener.close()
            raise
        self.listener = listener

    def _let_go(self) -> None:
        """Close the socket, unless the agent did; then its descriptor is another one's."""
        listener, self.listener = self.listener, None
        if listener is not None:
            if self._is_ours(listener):
                listener.close()
            else:
                listener.detach()

    def _name(self) -> str:
        return f"{self.prefix}/{os.getpid()}"

    def _is_ours(self, listener: socket) -> bool:
        try:
            return os.fstat(listener.fileno()).st_ino == self.inode
        except OSError:
            return False

    # --- The thread. ---

    def _serve(self, begun: "_thread.LockType", ended: "_thread.LockType") -> None:
        try:
            self.native_id = get_native_id()
            begun.release()
            while not self.closing:
                listener = self.listener
                if listener is None or not self._is_ours(listener):  # daemons close all that they find: have another
                    self._listen()
                    continue
                try:
                    fd = listener._accept()[0]  # type: ignore[attr-defined]
                except OSError:
                    if not self.closing:  # no descriptor or no memory left, as yet
                        sleep(0.1)
                    continue
                self._answer(fd)
        except Exception:
            pass
        finally:
            ended.release()

    def _answer(self, fd: int) -> None:
        thresholds = gc.get_threshold()
        later = thresholds[0] and thresholds[0] + UNCOLLECTED  # 0: never
        gc.set_threshold(later, *thresholds[1:])
        try:
            connection = socket(fileno=fd)
            try:
                connection.settimeout(SEND_WITHIN)
                asking = connection.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
                pid, uid = (int.from_bytes(asking[at : at + 4], sys.byteorder) for at in (0, 4))
                if pid != os.getpid() and uid in (0, os.getuid(), os.geteuid()):  # from ourselves it is a wake-up
                    connection.sendall(_describe(self).encode("ascii"))
            finally:
                connection.close()
        except Exception:
            pass
        finally:
            if gc.get_threshold()[0] == later:  # else the agent has set another one
                gc.set_threshold(*thresholds)

    # --- Forks. ---

    def before_fork(self) -> None:
        """End the thread, and wait for its end."""
        self._calmly(self._block) or self._calmly(self._block)
        self._calmly(self._stop)
        self._calmly(self._unhush)

    def after_fork_in_parent(self) -> None:
        """Start the thread anew, unless another thread is forking too."""
        mask = self.masks.pop(get_ident(), None)
        if not self.masks and self.closing:
            self._calmly(self.start)
            if self.alone:
                self._calmly(self._hush)
        self._restore(mask)

    def after_fork_in_child(self) -> None:
        """Start a thread of the child's, under its own pid."""
        mask = self.masks.get(get_ident())
        self.masks, self.lost = {}, []
        self.main = get_ident()
        self.ended = allocate_lock()
        self._calmly(self._note_inherited)
        self._calmly(self._let_go)
        # What subprocess runs before the exec (preexec_fn) may want to be the only thread: unshare(2), setns(2).
        if sys._getframe(1).f_code.co_name != "_execute_child":
            self._calmly(self.start)
        self._restore(mask)

    def _note_inherited(self) -> None:
        self.inherited = _listed()

    def _calmly(self, step: "Callable[[], None]") -> bool:
        """Do it; False when a handler got in between."""
        try:
            step()
        except (OSError, RuntimeError):
            pass  # then there are no answers
        except BaseException as error:
            self.lost.append(_signal_of(error))
            return False
        return True

    def _block(self) -> None:
        if get_ident() not in self.masks:
            self.masks[get_ident()] = pthread_sigmask(SIG_BLOCK, ())  # runs handlers, as the next one does
        pthread_sigmask(SIG_BLOCK, BLOCKED)

    def _restore(self, mask: "Any") -> None:
        """Open the signal mask; the last thing, since handlers run from there on."""
        if self.lost:
            self._calmly(self._send_lost)
        if mask is not None:
            try:
                pthread_sigmask(SIG_SETMASK, mask)
            except BaseException as error:
                self.lost.append(_signal_of(error))
                self._calmly(self._send_lost)

    def _send_lost(self) -> None:
        """Send ourselves what was lost, a moment later."""
        numbers = self.lost
        self.lost = []

        def send() -> None:
            pthread_sigmask(SIG_BLOCK, BLOCKED)
            sleep(0.001)
            for number in numbers:
                os.kill(os.getpid(), number)  # 0 is none

        start_new_thread(send, ())

    def _stop(self) -> None:
        """End the thread; its socket stays, and who connects meanwhile has to wait. Can be repeated."""
        self.alone = False
        self.closing = True
        try:
            self._wake()
        except OSError:
            if self.listener is not None and self._is_ours(self.listener):  # no descriptor for it
                self.listener.shutdown(SHUT_RDWR)  # makes accept fail, now and for good
                self._let_go()
        if self.ended.acquire(True, STOPS_WITHIN):
            self.ended.release()
            if sys.version_info >= (3, 12):
                # The interpreter counts the kernel's threads, where ours is for some microseconds more.
                end = monotonic() + STOPS_WITHIN
                while os.path.exists(f"/proc/self/task/{self.native_id}") and monotonic() < end:
                    sleep(0.00005)
                self.alone = len(os.listdir("/proc/self/task")) == 1

    def _wake(self) -> None:
        """Have accept return. Also where the agent has closed its socket: the name is there as long as accept waits."""
        waker = socket(AF_UNIX, SOCK_STREAM)
        try:
            waker.setblocking(False)
            waker.connect(self._name())
        except BlockingIOError:
            pass  # others do so already
        finally:
            waker.close()

    def _hush(self) -> None:
        """Have the warning of threads at a fork passed over: some interpreters look only after we have ours again.

        A text in place of a pattern is compared as it is; unlike an object of ours it can be copied and pickled.
        """
        if type(filters := _filters()) is list:
            texts = [THREADS_AT_FORK.format(os.getpid(), name) for name in ("fork", "forkpty")]
            self.filters = [("ignore", text, DeprecationWarning, None, 0) for text in texts]
            filters[:0] = self.filters

    def _unhush(self) -> None:
        """The next fork may be with threads of the agent's."""
        if self.filters and type(filters := _filters()) is list:
            filters[:] = [one for one in filters if not any(one is mine for mine in self.filters)]


def _filters() -> "Any":
    return (sys.modules.get("warnings") or sys.modules["_warnings"]).filters


def _signal_of(error: BaseException) -> int:
    """The signal whose handler raised `error`; 0 where that cannot be told."""
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
    """The time that an answer may take, which a fork ends; now and then the other threads get their turn."""

    def __init__(self, responder: _Responder) -> None:
        self.responder = responder
        self.since = monotonic()
        self.end = self.since + LONGEST_LOOK

    def is_left(self) -> bool:
        now = monotonic()
        if now - self.since > SLICE:
            sleep(0)
            self.since = now = monotonic()
        return now < self.end and not self.responder.closing


class _Alike:
    """Threads or tasks with one stack."""

    def __init__(self, head: str, tail: "tuple[str, ...]") -> None:
        self.head, self.tail = head, tail
        self.count = 0
        self.names: list[str] = []
        self.native_ids: list[str] = []

    def add(self, name: str, native_id: object = None) -> None:
        self.count += 1
        if len(self.names) < NAMES:
            self.names.append(name)
        if native_id is not None:
            self.native_ids.append(str(native_id))

    def lines(self, frames: str) -> str:
        ids = (",".join(self.native_ids[:NAMES]),) if self.head == "thread" else ()
        return "\t".join((self.head, str(self.count), _text(", ".join(self.names)), *ids, *self.tail)) + "\n" + frames


def _describe(responder: _Responder) -> str:
    """The answer."""
    budget = _Budget(responder)
    threads, threads_left = _threads(responder.main, budget)
    tasks, tasks_left = _tasks(responder.inherited, budget)
    version = sys.implementation.name + " " + sys.version.split()[0]
    parts = [f"process\t{os.getpid()}\t{_text(version)}\n"]
    size = 0
    for alike, frames in threads[:1] + tasks + threads[1:]:  # the main thread is the first
        lines = alike.lines(frames)
        if size + len(lines) <= (LONGEST if alike.head == "thread" else LONGEST * 2 // 3):
            parts.append(lines)
            size += len(lines)
        elif alike.head == "thread":
            threads_left += alike.count
        else:
            tasks_left += alike.count
    parts.append(f"left\t{threads_left}\t{tasks_left}\nend\n")
    return "".join(parts)


def _threads(main: int, budget: _Budget) -> "tuple[list[tuple[_Alike, str]], int]":
    """The main thread, then the others; and how many were not looked at."""
    found: dict[tuple[str, str], _Alike] = {}
    left = 0
    known = _known_threads()
    idents = [ident for ident in sys._current_frames() if ident not in (main, get_ident())]
    for number, ident in enumerate([main, *idents]):
        if number and (number >= THREADS or not budget.is_left()):
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
            found[key] = _Alike("thread", (flags,))
        found[key].add(name or "unnamed", os.getpid() if ident == main else native_id)
    return [(alike, key[1]) for key, alike in found.items()], left


def _known_threads() -> "dict[int, tuple[str, object, bool]]":
    """What `threading` knows, by ident: name, native id, whether it is a daemon."""
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
    """Code, line, code, line: from the frame outwards. A flat list, since each object more may set off a collection."""
    steps: list[Any] = []
    while frame is not None and len(steps) < 2 * DEEPEST:
        steps.append(frame.f_code)
        steps.append(frame.f_lineno)
        frame = frame.f_back
    return steps


def _frames(codes: "list[CodeType]", lines: "list[int | None]") -> str:
    """The lines for a stack, whose outermost frame is the first."""
    parts = []
    for at, code in enumerate(codes):
        if OUTERMOST <= at < len(codes) - INNERMOST:
            if at == OUTERMOST:
                parts.append(f"skip\t{len(codes) - INNERMOST - OUTERMOST}\n")
            continue
        function = getattr(code, "co_qualname", code.co_name)  # qualified since 3.11
        parts.append(f"frame\t{_text(code.co_filename)}\t{lines[at] or 0}\t{_text(function)}\n")
    return "".join(parts)


def _text(text: str) -> str:
    """Without a tab, a line break, or anything that is not ASCII."""
    return ascii(str.__getitem__(text, slice(LONGEST_TEXT)))[1:-1]  # that is no subclass any more


# --- Tasks. -----------------------------------------------------------------------------------------------------------


def _tasks(inherited: "list[Any]", budget: _Budget) -> "tuple[list[tuple[_Alike, str]], int]":
    """The tasks of all loops that are not done, but those that were inherited; and how many were not looked at."""
    kinds: list[Any] = [kind for kind in (_names().get(name) for name in ("Task", "_PyTask")) if type(kind) is type]
    dead = {id(reference) for reference in inherited}
    references = [reference for reference in (_references(kinds) if kinds else ()) if id(reference) not in dead]
    found: dict[tuple[str, tuple[str, ...]], _Alike] = {}
    left = 0
    for number, reference in enumerate(references):
        if not budget.is_left():
            left = len(references) - number
            break
        task = reference()
        kind = next((kind for kind in kinds if issubclass(type(task), kind)), None)
        if kind is None or kind.done(task):
            continue
        name, frames, tail = _look_at(task, kind, kinds)
        task = None
        key = (frames, tail[1:])  # what it awaits may have another name for each
        if key not in found:
            found[key] = _Alike("task", tail)
        found[key].add(name)
    return [(alike, key[0]) for key, alike in found.items()], left


def _names() -> "dict[str, Any]":
    """Those in asyncio's module of tasks, if it is loaded."""
    module = sys.modules.get("asyncio.tasks")
    return vars(module) if module is not None else {}


def _references(kinds: "list[Any]") -> "list[Any]":
    """Weak references to all tasks.

    Up to 3.13 asyncio keeps them in sets of the module. From 3.14 on they are in lists of the interpreter's, by loop:
    there the collector finds them, as what refers to their type.
    """
    names = _names()
    if sys.version_info < (3, 14) and ("_all_tasks" in names or "_scheduled_tasks" in names):
        return _listed()
    with open("/proc/self/statm", "rb", 0) as file:
        if int(file.read().split()[1]) * 4096 > LARGEST_SEARCH:
            return []
    types = list(kinds)
    for kind in types:
        types += [subclass for subclass in type.__subclasses__(kind) if subclass not in types]
    return [ref(item) for item in gc.get_referrers(*types) if type(item) in types]


def _listed() -> "list[Any]":
    """Those in asyncio's own sets. References to a task are one object as long as somebody has it."""
    names = _names()
    found: list[Any] = []
    for name in ("_all_tasks", "_scheduled_tasks", "_eager_tasks"):
        tasks = names.get(name)
        tasks = getattr(tasks, "data", tasks)  # of a WeakSet
        if type(tasks) is set:
            found += list(tasks)
    return [item if type(item) is ref else ref(item) for item in found]


def _look_at(task: "Any", kind: "Any", kinds: "list[Any]") -> "tuple[str, str, tuple[str, ...]]":
    """Its name, the lines of its stack, and the fields that follow the name."""
    codes, lines, running, last = _chain(kind.get_coro(task))
    waiter = object.__getattribute__(task, "_fut_waiter")
    awaits = _awaited(waiter, kinds) if waiter is not None else last
    cancelling = kind.cancelling(task) if hasattr(kind, "cancelling") else object.__getattribute__(task, "_must_cancel")
    flags = ("running " if running else "") + ("cancelling" if cancelling else "")
    return kind.get_name(task), _frames(codes, lines), (_text(awaits), flags.strip(), _type(kind.get_loop(task)))


def _awaited(future: "Any", kinds: "list[Any]") -> str:
    """A future in words: the task that it is, or those that it gathers."""
    for kind in kinds:
        if issubclass(type(future), kind):
            return f"task {kind.get_name(future)}"
    children = None
    if _type(future) == "asyncio.tasks._GatheringFuture":
        children = object.__getattribute__(future, "_children")
    if type(children) is list:
        pending = [child for child in children if any(issubclass(type(child), k) and not k.done(child) for k in kinds)]
        names = ", ".join(_awaited(child, kinds) for child in pending[:NAMES])
        return f"{len(pending)} of {len(children)}: {names}"
    return _type(future)


def _type(thing: object) -> str:
    kind = type(thing)
    return _text(f"{kind.__module__}.{kind.__qualname__}")


def _chain(awaitable: "Any") -> "tuple[list[CodeType], list[int | None], bool, str]":
    """What a coroutine awaits, and what that awaits, to the end: codes, lines, whether it runs, the last one's type."""
    codes: list[CodeType] = []
    lines: list[int | None] = []
    running = False
    last = ""
    while awaitable is not None and len(codes) < DEEPEST:
        last = _type(awaitable)
        for prefix, awaited in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = _field(awaitable, prefix + "_frame")
            if frame is not None:
                codes.append(frame.f_code)
                lines.append(frame.f_lineno)
                running = prefix == "cr" and _field(awaitable, "cr_running") is True
                awaitable = awaited_by(awaitable) if type(awaitable) in THAT_SUSPEND else _field(awaitable, awaited)
                break
        else:
            awaitable = next(_inside(awaitable), None)
    return codes, lines, running, last


def awaited_by(thing: "Any") -> "object":
    """What a coroutine or a generator of Python's awaits; None unless it is suspended there.

    While it executes, CPython 3.11 and 3.12 may take whatever lies next to its stack for what it awaits, and crash.
    Between the two looks nobody else gets the GIL, as long as they are attributes in C and in one line.
    """
    kind = type(thing)
    if kind is CoroutineType:
        return thing.cr_await if not TELLS_SUSPENDED or thing.cr_suspended else None
    if kind is GeneratorType:
        return thing.gi_yieldfrom if not TELLS_SUSPENDED or thing.gi_suspended else None
    if sys.version_info[:2] != (3, 11):
        return thing.ag_await if not TELLS_SUSPENDED or thing.ag_suspended else None
    # 3.11 does not tell it of these. The collector is never shown a stack in motion; on one that rests, what is awaited
    # is the last thing, unless an exception is being handled.
    frame = thing.ag_frame
    if frame is None or not thing.ag_running or frame.f_back is not None:
        return None
    inside = [
        link for link in gc.get_referents(thing) if link is not None and not issubclass(type(link), BaseException)
    ]
    return inside[-1] if inside and type(inside[-1]) is not type(frame.f_code) else None


def _field(thing: object, name: str) -> "Any":
    """An attribute that a type in C computes, as those of coroutines are; None if it has none of that name."""
    found: Any = type(thing).__dict__.get(name)
    return found.__get__(thing) if type(found).__name__ in ("getset_descriptor", "member_descriptor") else None


def _inside(thing: object) -> "Iterator[Any]":
    """What an iterator over an asynchronous generator or a coroutine iterates over: it has no attribute that tells."""
    if type(thing).__name__ in (
        "async_generator_asend",
        "async_generator_athrow",
        "anext_awaitable",
        "coroutine_wrapper",
    ):
        for referent in gc.get_referents(thing):
            if any(name in type(referent).__dict__ for name in ("cr_frame", "gi_frame", "ag_frame")):
                yield referent
