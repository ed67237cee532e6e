"""The table of rules, and the judge: it asks each rule about each container.

docs/check.md has the table, written by `python -m tests.unit.test_readme`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import rules_pods, rules_start, rules_time
from .case import ERROR, NOTE, WARNING, Case, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .model import Container

SEVERITIES = (ERROR, WARNING, NOTE)
COUNTING = frozenset((ERROR, WARNING))  # these make the exit code 1


@dataclass(frozen=True)
class Rule:
    """A rule. `severity`: the highest one that it has. `wrong`: what goes wrong at a stop. `remedy`: what helps."""

    name: str
    severity: str
    wrong: str
    example: str
    remedy: str
    judge: Callable[[Case], Iterator[Finding]]


RULES = (
    Rule(
        "shell-stays",
        WARNING,
        "A shell is process 1, or the child of a small init, and passes no signal on. The program gets no stop "
        "signal and is killed when the time is over. A note where it is not known whether `sh` is dash, which "
        "always stays.",
        "`CMD cd /app && python agent.py` on Debian",
        "the exec form, `exec` before the program, or agent-init as the entry point: it looks through shells",
        rules_start.shell_stays,
    ),
    Rule(
        "background-job",
        WARNING,
        "A program in the background of a shell gets no stop signal. It is killed when the other program ends.",
        "`CMD celery -A app worker & exec uvicorn app:app`",
        "agent-init as the entry point, or a container for each",
        rules_start.background_job,
    ),
    Rule(
        "shell-above-agent-init",
        ERROR,
        "A shell is process 1, and agent-init below it gets no stop request.",
        "`CMD cd /app && agent-init -- python agent.py` on Debian",
        '`ENTRYPOINT ["agent-init", "--"]` in the exec form, or `exec agent-init`',
        rules_start.shell_above_agent_init,
    ),
    Rule(
        "agent-init-without-command",
        ERROR,
        "ENTRYPOINT in the shell form drops the CMD: agent-init gets no command and exits with 125.",
        "`ENTRYPOINT agent-init --`",
        '`ENTRYPOINT ["agent-init", "--"]`',
        rules_start.agent_init_without_command,
    ),
    Rule(
        "entrypoint-replaced",
        ERROR,
        "`command:` in Kubernetes, `entrypoint:` in Compose or `entryPoint` in ECS replaces the image's ENTRYPOINT, "
        "so agent-init does not run.",
        "`command: [python, agent.py]` in a pod",
        "`args:` (Compose: `command:`), or agent-init there too",
        rules_start.entrypoint_replaced,
    ),
    Rule(
        "two-inits",
        NOTE,
        "A second init runs beside agent-init. Both work, but one of them is superfluous.",
        "`init: true` in Compose",
        "no `init: true`, no tini",
        rules_start.two_inits,
    ),
    Rule(
        "relay",
        WARNING,
        "A package runner or another wrapper does not pass the stop signal on ([which ones](wrappers.md)), or kills "
        "its program 2 s later (su, runuser). `uv run`, `poetry run` and pnpm 12 pass it on; for pnpm a note.",
        '`CMD ["npm", "start"]` on Debian',
        "the program itself, or agent-init as the entry point",
        rules_start.relay,
    ),
    Rule(
        "ender",
        WARNING,
        "pm2, GNU parallel and gdb end their program in their own way, whatever process 1 does.",
        '`CMD ["pm2-runtime", "server.js"]`',
        "the program itself, or the supervisor's own time limit",
        rules_start.ender,
    ),
    Rule(
        "bad-option",
        ERROR,
        "agent-init refuses an option or a variable and exits with 125. A warning for a variable that it does not "
        "know.",
        "`AGENT_INIT_GRACE: 1 minute`",
        "what [options](options.md) accepts",
        rules_start.bad_option,
    ),
    Rule(
        "log-pipe",
        WARNING,
        "The exit code of a pipe is that of its last part, so a failure of the agent counts as success.",
        "`CMD python agent.py 2>&1 | tee agent.log`",
        "`bash -o pipefail -c`, or no pipe",
        rules_start.log_pipe,
    ),
    Rule(
        "cannot-signal",
        ERROR,
        "agent-init may not signal the agent: it runs as root without CAP_KILL above `gosu` and the like, or as "
        "another user above `sudo` (a warning).",
        "`cap_drop: [ALL]`, `cap_add: [SETUID, SETGID]` and `agent-init -- gosu app python agent.py`",
        "CAP_KILL, or `USER` in place of `gosu`",
        rules_start.cannot_signal,
    ),
    Rule(
        "unbuffered",
        NOTE,
        "A Python program that is killed loses its last output.",
        '`CMD ["python", "agent.py"]` without PYTHONUNBUFFERED',
        "`ENV PYTHONUNBUFFERED=1`",
        rules_start.unbuffered,
    ),
    Rule(
        "grace-above-platform",
        ERROR,
        "agent-init's deadline, with the preStop hook, is not before the platform's SIGKILL: no log line explains "
        "the end. A warning for `AGENT_INIT_MAX_GRACE` and `AGENT_INIT_PLATFORM_GRACE` above the "
        "platform's figure.",
        "`AGENT_INIT_GRACE: 60s` without `stop_grace_period`",
        "2 s between the two",
        rules_time.grace_above_platform,
    ),
    Rule(
        "grace-one-side",
        NOTE,
        "The platform's figure was set, and agent-init has no grace: when the time is over, the log does not name "
        "what was left.",
        "`terminationGracePeriodSeconds: 600` alone",
        "`AGENT_INIT_GRACE`, 2 s less",
        rules_time.grace_one_side,
    ),
    Rule(
        "delay-too-long",
        ERROR,
        "The stop delay leaves no time for the stop signal.",
        "`AGENT_INIT_STOP_DELAY: 30s` on Kubernetes",
        "a shorter delay, or more time",
        rules_time.delay_too_long,
    ),
    Rule(
        "prestop-too-long",
        ERROR,
        "The preStop hook takes the whole grace. The agent has 2 s after TERM.",
        '`preStop: {exec: {command: [sleep, "30"]}}` with the default of 30 s',
        "a longer `terminationGracePeriodSeconds`",
        rules_time.prestop_too_long,
    ),
    Rule(
        "platform-maximum",
        ERROR,
        "The platform's figure is above its maximum: 120 s on Fargate, 300 s on Fly.io with shared processors.",
        '`kill_timeout = "10m"`',
        "the maximum",
        rules_time.platform_maximum,
    ),
    Rule(
        "drain-too-short",
        WARNING,
        "The program's own option lets it finish its work for longer than the platform or agent-init waits "
        "(gunicorn's `--graceful-timeout`, uvicorn's `--timeout-graceful-shutdown`, LiveKit's `--drain-timeout` and "
        "the like). Or a LiveKit worker has only the platform's default.",
        "`gunicorn --graceful-timeout 120` without `stop_grace_period`",
        "a longer time for the platform to wait",
        rules_time.drain_too_short,
    ),
    Rule(
        "default-grace",
        NOTE,
        "A worker of a queue (Celery, Dramatiq, rq, Huey) finishes its task, but the platform waits only its default "
        "time: a longer task is killed.",
        "`command: celery -A app worker` without `stop_grace_period`",
        "the length of your longest task plus 5 s",
        rules_time.default_grace,
    ),
    Rule(
        "livekit-drain-timeout",
        NOTE,
        "A LiveKit worker drains for an hour unless its own code or `--drain-timeout` has a limit, and the platform "
        "waits less: a call that lasts longer is killed and not saved.",
        "`stop_grace_period: 10m` and `python agent.py start`",
        "`--drain-timeout`, 28 s less ([why](agents.md#livekit-how-long-is-long-enough))",
        rules_time.livekit_drain_timeout,
    ),
    Rule(
        "livekit-dev",
        WARNING,
        "`dev` does not drain: at a stop every call is over at once. A note in Compose.",
        '`CMD ["python", "agent.py", "dev"]`',
        "`start`",
        rules_time.livekit_dev,
    ),
    Rule(
        "stop-signal",
        ERROR,
        "The stop signal is KILL or no signal, or agent-init does not take it for a stop request. A warning if "
        "the program takes it as a request to quit now, or for something else. A note for gunicorn on Fly.io, "
        "which sends INT by default.",
        "`STOPSIGNAL SIGQUIT` with gunicorn",
        "`STOPSIGNAL SIGTERM`",
        rules_time.stop_signal,
    ),
    Rule(
        "term-loses-work",
        WARNING,
        "The program finishes its work for INT and loses it for TERM (Huey; waitress without agent-init).",
        '`CMD ["huey_consumer", "app.huey"]`',
        "`STOPSIGNAL SIGINT`, or `AGENT_INIT_STOP_SIGNAL=INT`",
        rules_time.term_loses_work,
    ),
    Rule(
        "job-counts-as-complete",
        ERROR,
        "In a Job, `-e 143` makes an interrupted run count as complete. It is not run again.",
        '`AGENT_INIT_OK_EXIT: "143"` in a Job',
        "no `-e 143`",
        rules_pods.job_counts_as_complete,
    ),
    Rule(
        "livekit-restart",
        WARNING,
        "A LiveKit worker that finds no server gives up with exit code 0, and `on-failure` does not start it again.",
        "`restart: on-failure`",
        "`restart: always`",
        rules_pods.livekit_restart,
    ),
    Rule(
        "shared-processes",
        WARNING,
        "In a shared PID namespace agent-init is not process 1, and `--no-subreaper` leaves orphans to another "
        "process.",
        "`shareProcessNamespace: true` and `AGENT_INIT_SUBREAPER: off`",
        "no `--no-subreaper`",
        rules_pods.shared_processes,
    ),
    Rule(
        "kills-process-1",
        ERROR,
        "In a shared PID namespace, a preStop hook that signals process 1 ends the whole pod.",
        "`shareProcessNamespace: true` and `kill -TERM 1`",
        "`agent-initctl stop`",
        rules_pods.kills_process_1,
    ),
    Rule(
        "readiness-as-liveness",
        ERROR,
        "The liveness probe asks whether the agent is ready, so an agent that is starting or stopping fails it "
        "and is stopped.",
        "`livenessProbe: {exec: {command: [agent-initctl, ready]}}`",
        "`agent-initctl live`",
        rules_pods.readiness_as_liveness,
    ),
    Rule(
        "loopback-probe",
        ERROR,
        "The kubelet cannot reach what agent-init serves on the loopback interface, so the probe fails and the "
        "container is stopped.",
        "`AGENT_INIT_HTTP: :8081` and `httpGet: {port: 8081}`",
        "`AGENT_INIT_HTTP: 0.0.0.0:8081`",
        rules_pods.loopback_probe,
    ),
    Rule(
        "rollout-gap",
        WARNING,
        "A rollout may stop every pod before a new one is ready. A note for `Recreate`, and without `replicas:`.",
        "`replicas: 1` and `maxUnavailable: 1`",
        "`rollingUpdate: {maxSurge: 1, maxUnavailable: 0}`",
        rules_pods.rollout_gap,
    ),
    Rule(
        "no-readiness-probe",
        WARNING,
        "A Deployment of a server or of a LiveKit worker without a readiness or a startup probe: a rollout stops "
        "the old pod before the new one can work.",
        "`uvicorn app:app` with `ports:` and no `readinessProbe:`",
        "a `readinessProbe:`",
        rules_pods.no_readiness_probe,
    ),
)
BY_NAME = {rule.name: rule for rule in RULES}


def judge(containers: Iterable[Container]) -> list[Finding]:
    """Return the findings, sorted by their places. The same one, of two containers of one line, is there once."""
    found: dict[tuple[object, ...], Finding] = {}
    for container in containers:
        case = Case(container)
        for rule in RULES:
            for finding in rule.judge(case):
                found.setdefault((finding.rule, finding.place, finding.reason), finding)
    return sorted(found.values(), key=lambda finding: (finding.place, SEVERITIES.index(finding.severity), finding.rule))
