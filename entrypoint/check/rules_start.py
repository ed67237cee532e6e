"""Rules about how the program is started: whether the stop signal reaches it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from . import launch, shell
from .case import ERROR, MAY_START_AGENT_INIT, NOTE, WARNING, Case, Finding
from .model import COMPOSE, IMAGE, KUBERNETES

if TYPE_CHECKING:
    from collections.abc import Iterator

# These leave the program behind them without the stop signal, under no init and under tini: docs/wrappers.md. npm 11
# passes TERM on to the shell that it starts: the program gets it where that shell replaces itself (bash, busybox).
# pnpm 10 does so too, pnpm 12 passes it to the program. Yarn has a shell of its own since version 2, and passes TERM on
# to what that has started (`sigtermHandler` in its packages/yarnpkg-shell/sources/pipe.ts).
YARN_2 = re.compile(r"--immutable|yarn set version|yarn@[2-9]|corepack prepare yarn|yarn workspaces focus")
OF_NODE = frozenset("npm npx yarn yarnpkg pnpm pnpx".split())
SWITCH_USER = ("su", "runuser")  # they send KILL 2 s after they have passed TERM on
NOT_PASSED_ON = OF_NODE | frozenset(
    "hatch invoke inv nox watchfiles flock time unbuffer xvfb-run dbus-run-session xargs entr "
    "chronic watch script bwrap py-spy setsid task go-task strace proot su runuser".split()
)
ENDS_ITS_PROGRAM = {
    "pm2-runtime": "sends it INT, and KILL 1.6s later",
    "pm2": "sends it INT, and KILL 1.6s later",
    "parallel": "sends it TERM twice",
    "gdb": "kills it",
}
OF_THE_STOP = ("AGENT_INIT_GRACE", "AGENT_INIT_PLATFORM_GRACE", "AGENT_INIT_STOP_DELAY")
NOT_FOR_LONG = frozenset("dev build test lint install ci migrate watch storybook typecheck format".split())


def shell_stays(case: Case) -> Iterator[Finding]:
    """A shell stays process 1 (or the child of a small init), and passes no signal on."""
    if case.expects_agent_init or case.runs_once:
        return
    init = case.container.init
    above = "the init's child" if (init and init.value) or case.launch.inits else "process 1"
    for made in case.launch.above:
        line, kind = made.line, case.shell_kind(made)
        fate = shell.REPLACED if line is None or line.has_trap else line.fate(kind)
        if fate == shell.REPLACED:
            continue
        which = f"{made.name} ({kind})" if made.name == "sh" and kind else made.name
        reason = f"{which} stays {above} and passes no signal on: {case.who} gets no stop signal, and is killed"
        if case.signals_group:
            reason = f"{which} stays {above} and ends at the stop signal: {case.who} gets it too, but is killed at once"
        if fate == shell.MAYBE:
            reason = f"sh stays {above} where it is dash (Debian, Ubuntu): then {case.who} gets no stop signal"
        severity = WARNING if fate == shell.STAYS else NOTE
        yield _unless_entrypoint(case, "shell-stays", severity, reason, _with_exec(case, made))
        return


def _unless_entrypoint(case: Case, rule: str, severity: str, reason: str, remedy: str) -> Finding:
    """Return a finding about a command: a note where an entrypoint that is not known may run it."""
    if case.entrypoint_is_unknown:
        severity, reason = NOTE, f"{reason}; unless the image's ENTRYPOINT is agent-init, or starts it"
    return Finding(rule, severity, case.container.words_place, reason, remedy)


def _with_exec(case: Case, made: launch.Shell) -> str:
    """Return a line in which the program takes the shell's place, or has agent-init above the shell."""
    line = made.line
    assert line is not None
    text = line.with_exec
    if text is None or line.background:
        return _under_agent_init(case)
    given = case.written
    if given and given[0] == line.text:  # the shell and `-c` are in the entrypoint
        return case.command_line([text, *given[1:]])
    before = [index for index, word in enumerate(given) if word.rpartition("/")[2] == made.name]
    if not before:  # the shell is in the entrypoint, and its line there has the command's words only as "$@"
        return _under_agent_init(case)
    prefix = given[: before[0]]  # such as tini
    program = line.program
    simple = len(line.commands) == 1 and not program.is_redirected and program.words == program.bare
    inner = case.launch.above[case.launch.above.index(made) + 1 :]
    inner_texts = {one.line.text: one.line.with_exec for one in inner if one.line}
    if simple and inner_texts and None not in inner_texts.values():  # `sh -c "sh -c LINE"`
        return case.command_line([*prefix, *(inner_texts.get(word) or word for word in program.argv)])
    if inner:
        return _under_agent_init(case)
    if simple and not any(character in line.text for character in "$*?~`"):
        return case.command_line([*prefix, *program.argv])
    return case.command_line([*prefix, made.name, *made.flags.split(), text])


def _under_agent_init(case: Case) -> str:
    """Return a line with agent-init as the entry point, in the place of a small init if there is one."""
    container = case.container
    for part in case.written_parts:
        behind = launch.behind_init(part.value)
        if behind is not None:
            return case.line_of(part, ["agent-init", "--", *behind])
    given = container.entrypoint.value if container.entrypoint else ()
    words = ["agent-init", "--", *given]
    if container.entrypoint is None and (container.image_is_known or case.platform is IMAGE):
        return f"ENTRYPOINT {json.dumps(words)}"
    return case.entrypoint_line(words)


def background_job(case: Case) -> Iterator[Finding]:
    """A program in the background of a shell is killed without a stop signal when the other one ends."""
    if case.expects_agent_init:
        return
    for made in case.launch.above:
        line = made.line
        if line is None or line.has_trap or line.fate(case.shell_kind(made)) != shell.REPLACED:
            continue
        for job in line.background:
            name = " ".join(job.argv[:2])
            reason = f"{name} runs in the background: it gets no stop signal, and is killed when {case.who} ends"
            yield _unless_entrypoint(case, "background-job", WARNING, reason, _under_agent_init(case))


def shell_above_agent_init(case: Case) -> Iterator[Finding]:
    """A shell that stays above agent-init passes no signal on to it."""
    for made in case.launch.above if case.has_agent_init else ():
        line = made.line
        if line is None or line.has_trap:
            continue
        fate = line.fate(case.shell_kind(made))
        if fate == shell.REPLACED:
            continue
        severity = ERROR if fate == shell.STAYS else NOTE
        where = "" if fate == shell.STAYS else " where sh is dash (Debian, Ubuntu)"
        reason = f"{made.name} is process 1{where} and passes no signal on, so agent-init gets no stop request"
        words = case.launch.agent_init or ()
        yield Finding(
            "shell-above-agent-init", severity, case.container.words_place, reason,
            _with_exec(case, made) if line.with_exec else case.command_line(["agent-init", *words]),
        )  # fmt: skip


def agent_init_without_command(case: Case) -> Iterator[Finding]:
    """ENTRYPOINT in the shell form drops the CMD, so agent-init gets no command and exits with 125."""
    words = case.launch.agent_init
    if words is None or launch.command_of(words) or not case.launch.above:
        return
    given = case.container.entrypoint or (case.container.image_of.entrypoint if case.container.image_of else None)
    if given is None or not any(made.line and made.line.program.name == "agent-init" for made in case.launch.above):
        return
    reason = "a shell's line takes no arguments: agent-init gets no command, and exits with 125"
    yield Finding("agent-init-without-command", ERROR, given.place, reason, 'ENTRYPOINT ["agent-init", "--"]')


def entrypoint_replaced(case: Case) -> Iterator[Finding]:
    """The image's entrypoint, which is agent-init, is replaced by one without it."""
    container = case.container
    if container.entrypoint is None or case.has_agent_init or case.runs_once or not case.launch.program:
        return
    program = case.launch.program[0]
    if program.endswith(MAY_START_AGENT_INIT) or program in shell.SHELLS or "entrypoint" in program:
        return
    if case.entrypoint_is_unknown:
        return
    replaced = container.replaced_entrypoint
    if replaced is not None and launch.find(replaced.value).agent_init is not None:
        reason = f"{case.entrypoint_key} replaces the image's ENTRYPOINT ({replaced.place}), so agent-init does not run"
    elif not container.image_is_known and any(name in case.own_variables for name in OF_THE_STOP):
        reason = f"{case.entrypoint_key} replaces the image's ENTRYPOINT, so agent-init does not run, although "
        reason += "AGENT_INIT_* is set"
    else:
        return
    remedy = case.entrypoint_line(["agent-init", "--", *container.entrypoint.value])
    yield Finding("entrypoint-replaced", ERROR, container.entrypoint.place, reason, remedy)


def two_inits(case: Case) -> Iterator[Finding]:
    """A second init beside agent-init has no use."""
    if not case.expects_agent_init:
        return
    init = case.container.init
    if init is not None and init.value:
        reason = "the engine's init is process 1 and agent-init only its child: agent-init needs no other init"
        remedy = "init: false" if case.platform is COMPOSE else '"initProcessEnabled": false'
        yield Finding("two-inits", NOTE, init.place, reason, remedy)
    for name in case.launch.inits[:1]:
        reason = f"{name} and agent-init are both there: agent-init needs no other init"
        yield Finding("two-inits", NOTE, case.container.words_place, reason)


def relay(case: Case) -> Iterator[Finding]:
    """A package runner without agent-init does not pass the stop signal on."""
    if case.expects_agent_init or case.runs_once:
        return
    for name in case.launch.relays:
        if name not in NOT_PASSED_ON or NOT_FOR_LONG & set(case.container.words or ()):
            continue
        if any(word.startswith("dev") for word in case.container.words or ()):
            continue
        reason = f"{name} does not pass the stop signal on: the program behind it gets none, and is killed"
        severity = WARNING
        if name in SWITCH_USER:
            reason = f"{name} passes the stop signal on and kills its program 2s later, whatever that has in hand"
        if name.startswith("yarn") and case.container.image_of and YARN_2.search(case.container.image_of.mentions):
            continue
        if name in OF_NODE:
            kind = case.sh
            if kind in ("bash", "busybox"):
                continue
            severity = WARNING if kind == "dash" and not name.startswith("pnp") else NOTE
            which = f"{name} 10" if name.startswith("pnp") else name
            reason = f"{which} passes the stop signal to its shell, and dash"
            reason += " (Debian, Ubuntu)" if kind == "dash" else ", if sh is that (Debian, Ubuntu),"
            reason += " does not pass it on: the program gets none, and is killed"
        yield _unless_entrypoint(case, "relay", severity, reason, _instead_of_relay(case, name))


def _instead_of_relay(case: Case, name: str) -> str:
    words = list(case.written)
    if name == "npx" and words[0] == name:
        behind = [index for index, word in enumerate(words) if index and not word.startswith("-")]
        if behind and words[behind[0]].isidentifier():
            return case.command_line([f"node_modules/.bin/{words[behind[0]]}", *words[behind[0] + 1 :]])
    return _under_agent_init(case)


def ender(case: Case) -> Iterator[Finding]:
    """A supervisor that ends its program in its own way, whatever process 1 does."""
    for name in case.launch.relays:
        if name in ENDS_ITS_PROGRAM:
            text = " ".join(case.container.words or ())
            if "--kill-timeout" in text:
                continue
            if name == "pm2" and "--no-daemon" not in text:  # nobody stops its daemon
                continue
            if "PM2_KILL_TIMEOUT" in case.container.variables:
                continue
            reason = f"at a stop {name} ends its program itself: it {ENDS_ITS_PROGRAM[name]}"
            remedy = case.variable_line("PM2_KILL_TIMEOUT", "30000") if name.startswith("pm2") else ""
            yield Finding("ender", WARNING, case.container.words_place, reason, remedy)


def bad_option(case: Case) -> Iterator[Finding]:
    """agent-init refuses its settings, and exits with 125."""
    problem = case.settings_or_problem
    if isinstance(problem, str):
        source = problem.partition(":")[0]
        given = case.container.variables.get(source)
        place = given.place if given else case.container.words_place
        yield Finding("bad-option", ERROR, place, f"agent-init refuses this and exits with 125: {problem}")
    for name in case.settings.unknown if case.settings else ():
        reason = f"agent-init knows no {name}, so it is ignored"
        yield Finding("bad-option", WARNING, case.container.variables[name].place, reason)


def log_pipe(case: Case) -> Iterator[Finding]:
    """The exit code of a pipe is that of its last part."""
    for made in case.launch.shells:
        line = made.line
        if line is None or not line.is_piped or line.has_pipefail or "pipefail" in made.flags or case.runs_once:
            continue
        last = line.commands[line.main + 1 :]
        reader = last[-1].name if last else "the reader"
        reason = f"the exit code is that of {reader}: a failure of {case.who} counts as success"
        yield Finding("log-pipe", WARNING, case.container.words_place, reason, _with_pipefail(case, made))


def _with_pipefail(case: Case, made: launch.Shell) -> str:
    """Return the line that has a shell with pipefail, which dash has not, in the place of one without."""
    for part in case.written_parts:
        words = list(part.value)
        found = [index for index, word in enumerate(words) if word.rpartition("/")[2] == made.name]
        if found:
            index = found[0]
            if case.shell_kind(made) not in ("bash", "busybox"):
                words[index] = "bash"
            index += 2 if made.name == "busybox" else 1  # busybox sh
            return case.line_of(part, [*words[:index], "-o", "pipefail", *words[index:]])
    return ""


def cannot_signal(case: Case) -> Iterator[Finding]:
    """agent-init may not signal the agent, which runs as another user."""
    if not case.has_agent_init or not case.launch.drops:
        return
    container, name = case.container, case.launch.drops[-1]
    user = (container.effective_user.value if container.effective_user else "").partition(":")[0]
    is_root = user in ("", "0", "root")
    dropped, added = container.dropped_capabilities, set(container.added_capabilities)
    if not is_root and name == "sudo" and "$" not in user:
        reason = f"agent-init runs as user {user} and may not signal what sudo starts as another one"
        yield Finding("cannot-signal", WARNING, container.words_place, reason, _as_root(case))
    elif is_root and dropped and dropped.value & {"ALL", "KILL"} and not added & {"ALL", "KILL"}:
        if "ALL" in dropped.value and "SETUID" not in added:
            return  # then it cannot change the user either
        reason = f"without CAP_KILL agent-init may not signal the agent, which {name} runs as another user"
        names = [*container.added_capabilities, "KILL"]
        text = f"[{', '.join(names)}]" if case.platform in (COMPOSE, KUBERNETES) else json.dumps(names)
        remedy = case.setting_line("cap_add" if case.platform is COMPOSE else "add", text)
        yield Finding("cannot-signal", ERROR, dropped.place, reason, remedy)


def _as_root(case: Case) -> str:
    """Return the line that has agent-init run as root, where the user is set now."""
    if case.container.user is None:
        return "USER root"
    return "runAsUser: 0" if case.platform is KUBERNETES else case.setting_line("user", '"root"')


def unbuffered(case: Case) -> Iterator[Finding]:
    """Python's last lines are lost if it is killed."""
    container = case.container
    if not case.launch.is_python or case.launch.is_unbuffered or case.use or case.runs_once:
        return
    if not container.image_is_known or not container.environment_is_known or container.is_fragment:
        return
    given = container.variables.get("PYTHONUNBUFFERED")
    if given is not None and given.value:
        return
    reason = "what Python has printed and not written yet is lost if it is killed: set PYTHONUNBUFFERED"
    in_image = container.image_of is not None and container.words_place.file == container.image_of.place.file
    remedy = case.variable_line("PYTHONUNBUFFERED", "1", in_image=in_image)
    yield Finding("unbuffered", NOTE, container.words_place, reason, remedy)
