"""Each rule of `agent-initctl check`: files that it speaks about, and files like them that it is silent about."""

from __future__ import annotations

import pytest

from entrypoint.check import combine, rules
from entrypoint.check.case import ERROR, NOTE, WARNING, Finding

pytest.importorskip("yaml")

PYTHON = "FROM python:3.13-slim\nENV PYTHONUNBUFFERED=1\n"
AGENT = PYTHON + 'ENTRYPOINT ["agent-init", "--"]\n'
FLY = 'app = "x"\n[processes]\n'
FARGATE = '"requiresCompatibilities": ["FARGATE"], '
HOOK = "lifecycle: {preStop: {exec: {command: [sleep, '60']}}}\n"
SIDECAR = "initContainers: [{name: s, image: x, restartPolicy: Always, lifecycle: {preStop: {sleep: {seconds: 60}}}}]\n"
ECS_INIT = '"linuxParameters": {"initProcessEnabled": true}'
RECREATE = "strategy:\n  type: Recreate"
NO_KILL = '"linuxParameters": {"capabilities": {"drop": ["KILL"]}}'
SECONDS_20 = "terminationGracePeriodSeconds: 20"
MINUTE = "stop_grace_period: 1m\n"
ONE_DOWN = "strategy: {rollingUpdate: {maxUnavailable: 1}}"
KUBERNETES_GRACE = "terminationGracePeriodSeconds"
SUDO_USER = "securityContext: {runAsUser: 1000}"
LIVEKIT = PYTHON + "RUN pip install livekit-agents\n"


def judge(**files: str) -> list[Finding]:
    """Judge files: `dockerfile`, `compose`, `pod`, `ecs`, `fly`, `other`."""
    names = {"dockerfile": "Dockerfile", "compose": "compose.yaml", "pod": "pod.yaml", "fly": "fly.toml"}
    return rules.judge(combine.read([(names.get(kind, kind), text) for kind, text in files.items()]).all())


def found(**files: str) -> set[tuple[str, str]]:
    """Return the rules that speak, with their severities."""
    return {(made.rule, made.severity) for made in judge(**files)}


def service(lines: str, image: str = "image: python:3.13-slim") -> str:
    return "services:\n  agent:\n    " + image + "\n" + "".join(f"    {line}\n" for line in lines.splitlines())


def pod(lines: str = "", container: str = "", kind: str = "Deployment", spec: str = "") -> str:
    made = f"apiVersion: apps/v1\nkind: {kind}\nspec:\n"
    made += "".join(f"  {line}\n" for line in spec.splitlines())
    made += "  template:\n    spec:\n"
    made += "".join(f"      {line}\n" for line in lines.splitlines())
    made += "      containers:\n      - name: agent\n        image: registry/my-agent:1\n"
    return made + "".join(f"        {line}\n" for line in container.splitlines())


def task(container: str, more: str = "") -> str:
    return f'{{{more}"containerDefinitions": [{{"name": "a", {container}}}]}}'


def env(**variables: str) -> str:
    return "env:\n" + "".join(f'- {{name: {name}, value: "{value}"}}\n' for name, value in variables.items())


SPEAKS: list[tuple[str, str, dict[str, str]]] = [
    ("shell-stays", WARNING, {"dockerfile": PYTHON + "CMD python agent.py\n"}),
    ("shell-stays", WARNING, {"dockerfile": PYTHON + "CMD cd /app && python agent.py\n"}),
    ("shell-stays", WARNING, {"dockerfile": PYTHON + 'CMD ["bash", "-c", "python agent.py; exit $?"]\n'}),
    ("shell-stays", WARNING, {"dockerfile": "FROM python:3-alpine\nCMD python agent.py | tee log\n"}),
    ("shell-stays", WARNING, {"dockerfile": PYTHON + 'ENTRYPOINT ["tini", "--"]\nCMD python agent.py\n'}),
    ("shell-stays", WARNING, {"compose": service('command: sh -c "celery -A app worker"\ninit: true')}),
    ("shell-stays", NOTE, {"compose": service('command: sh -c "celery -A app worker"', "image: mine/agent")}),
    ("shell-stays", NOTE, {"dockerfile": "FROM mine/base:slim\nCMD python agent.py\n"}),
    ("background-job", WARNING, {"dockerfile": PYTHON + "CMD celery -A app worker & exec uvicorn app:app\n"}),
    ("shell-above-agent-init", ERROR, {"dockerfile": PYTHON + "CMD cd /app && agent-init -- python agent.py\n"}),
    ("shell-above-agent-init", NOTE, {"pod": pod("", 'command: [sh, -c, "agent-init -- python agent.py"]')}),
    (
        "agent-init-without-command",
        ERROR,
        {"dockerfile": PYTHON + 'ENTRYPOINT agent-init --\nCMD ["python", "a.py"]\n'},
    ),
    ("entrypoint-replaced", ERROR, {"dockerfile": AGENT, "pod": pod("", "command: [python, agent.py]")}),
    (
        "entrypoint-replaced",
        ERROR,
        {"dockerfile": AGENT, "compose": service("entrypoint: uvicorn app:app", "build: .")},
    ),
    ("entrypoint-replaced", ERROR, {"pod": pod("", "command: [python, a.py]\n" + env(AGENT_INIT_GRACE="20s"))}),
    ("two-inits", NOTE, {"dockerfile": AGENT, "compose": service("init: true", "build: .")}),
    ("two-inits", NOTE, {"dockerfile": PYTHON + 'ENTRYPOINT ["tini", "--", "agent-init", "--", "python", "a.py"]\n'}),
    ("relay", WARNING, {"dockerfile": 'FROM node:24\nCMD ["npm", "start"]\n'}),
    ("relay", NOTE, {"compose": service("command: npm start", "image: mine/web")}),
    ("relay", WARNING, {"dockerfile": PYTHON + 'CMD ["xvfb-run", "python", "agent.py"]\n'}),
    ("ender", WARNING, {"dockerfile": 'FROM node:24\nCMD ["pm2-runtime", "server.js"]\n'}),
    ("bad-option", ERROR, {"dockerfile": AGENT + 'ENV AGENT_INIT_GRACE="1 minute"\nCMD ["python", "a.py"]\n'}),
    ("bad-option", ERROR, {"dockerfile": PYTHON + 'ENTRYPOINT ["agent-init", "--graze", "--", "python", "a.py"]\n'}),
    ("bad-option", WARNING, {"dockerfile": AGENT + "ENV AGENT_INIT_GRACES=5s\n"}),
    ("log-pipe", WARNING, {"dockerfile": AGENT + "CMD python agent.py 2>&1 | tee log\n"}),
    (
        "cannot-signal",
        ERROR,
        {
            "dockerfile": AGENT + 'CMD ["gosu", "app", "python", "a.py"]\n',
            "compose": service("cap_drop: [ALL]\ncap_add: [SETUID, SETGID]", "build: ."),
        },
    ),
    ("cannot-signal", WARNING, {"dockerfile": AGENT + 'USER app\nCMD ["sudo", "-u", "x", "python", "a.py"]\n'}),
    ("unbuffered", NOTE, {"dockerfile": 'FROM python:3.13\nCMD ["python", "agent.py"]\n'}),
    (
        "grace-above-platform",
        ERROR,
        {"dockerfile": AGENT, "compose": service("environment: {AGENT_INIT_GRACE: 60s}", "build: .")},
    ),
    ("grace-above-platform", ERROR, {"pod": pod("", env(AGENT_INIT_GRACE="30s"))}),
    (
        "grace-above-platform",
        ERROR,
        {
            "pod": pod(
                "terminationGracePeriodSeconds: 60",
                env(AGENT_INIT_GRACE="55s") + "lifecycle: {preStop: {exec: {command: [sleep, '10']}}}",
            )
        },
    ),
    ("grace-above-platform", WARNING, {"pod": pod("", env(AGENT_INIT_GRACE="20s", AGENT_INIT_MAX_GRACE="1h"))}),
    ("grace-above-platform", WARNING, {"pod": pod("", env(AGENT_INIT_GRACE="20s", AGENT_INIT_PLATFORM_GRACE="60s"))}),
    (
        "grace-above-platform",
        ERROR,
        {"ecs": task('"command": ["agent-init", "-t", "90s", "--", "python", "a.py"]')},
    ),
    ("grace-one-side", NOTE, {"dockerfile": AGENT, "compose": service("stop_grace_period: 10m", "build: .")}),
    ("delay-too-long", ERROR, {"pod": pod("", env(AGENT_INIT_STOP_DELAY="30s", AGENT_INIT_GRACE="40s"))}),
    ("prestop-too-long", ERROR, {"pod": pod("", "lifecycle: {preStop: {exec: {command: [sh, -c, sleep 30]}}}")}),
    ("platform-maximum", ERROR, {"fly": 'app = "x"\nkill_timeout = "10m"\n'}),
    (
        "platform-maximum",
        ERROR,
        {"ecs": task('"stopTimeout": 300', '"requiresCompatibilities": ["FARGATE"], ')},
    ),
    ("drain-too-short", WARNING, {"compose": service("command: gunicorn --graceful-timeout 120 app:app")}),
    (
        "drain-too-short",
        WARNING,
        {"compose": service('command: gunicorn a:b\nenvironment: ["GUNICORN_CMD_ARGS=--graceful-timeout=60"]')},
    ),
    ("drain-too-short", WARNING, {"compose": service("command: dramatiq app --worker-shutdown-timeout 60000")}),
    ("drain-too-short", WARNING, {"compose": service("command: uvicorn a:b --timeout-graceful-shutdown 30")}),
    (
        "drain-too-short",
        WARNING,
        {
            "dockerfile": AGENT
            + 'ENV AGENT_INIT_GRACE=20s\nCMD ["uvicorn", "a:b", "--timeout-graceful-shutdown", "30"]\n',
        },
    ),
    ("drain-too-short", WARNING, {"dockerfile": LIVEKIT + 'CMD ["python", "agent.py", "start"]\n', "pod": pod()}),
    (
        "drain-too-short",
        WARNING,
        {"fly": 'app = "x"\n[env]\nLIVEKIT_URL = "y"\n[processes]\nw = "python agent.py start"\n'},
    ),
    ("default-grace", NOTE, {"compose": service("command: celery -A app worker")}),
    ("default-grace", NOTE, {"pod": pod("", "command: [rq, worker]")}),
    (
        "livekit-drain-timeout",
        NOTE,
        {"dockerfile": LIVEKIT + 'CMD ["python", "a.py", "start"]\n', "pod": pod("terminationGracePeriodSeconds: 600")},
    ),
    ("livekit-dev", WARNING, {"dockerfile": LIVEKIT + 'CMD ["python", "agent.py", "dev"]\n'}),
    ("stop-signal", ERROR, {"dockerfile": PYTHON + 'STOPSIGNAL SIGKILL\nCMD ["uvicorn", "a:b"]\n'}),
    ("stop-signal", ERROR, {"compose": service("stop_signal: SIGTREM")}),
    ("stop-signal", WARNING, {"dockerfile": PYTHON + 'STOPSIGNAL SIGINT\nCMD ["gunicorn", "a:b"]\n'}),
    (
        "stop-signal",
        WARNING,
        {"compose": service("stop_signal: QUIT\ncommand: celery -A a worker\nstop_grace_period: 1m")},
    ),
    ("stop-signal", WARNING, {"dockerfile": AGENT + 'STOPSIGNAL SIGQUIT\nCMD ["gunicorn", "a:b"]\n'}),
    ("stop-signal", ERROR, {"dockerfile": AGENT + "STOPSIGNAL USR1\n"}),
    ("term-loses-work", WARNING, {"dockerfile": PYTHON + 'CMD ["huey_consumer", "app.huey"]\n'}),
    ("term-loses-work", WARNING, {"dockerfile": AGENT + 'CMD ["huey_consumer", "app.huey"]\n'}),
    ("term-loses-work", WARNING, {"dockerfile": PYTHON + 'CMD ["waitress-serve", "a:b"]\n'}),
    ("job-counts-as-complete", ERROR, {"pod": pod("", env(AGENT_INIT_OK_EXIT="143"), "Job")}),
    (
        "livekit-restart",
        WARNING,
        {
            "dockerfile": LIVEKIT + 'CMD ["python", "a.py", "start"]\n',
            "compose": service("restart: on-failure:3\nstop_grace_period: 1h", "build: ."),
        },
    ),
    ("shared-processes", WARNING, {"pod": pod("shareProcessNamespace: true", env(AGENT_INIT_SUBREAPER="off"))}),
    (
        "kills-process-1",
        ERROR,
        {
            "pod": pod(
                "shareProcessNamespace: true",
                'lifecycle: {preStop: {exec: {command: [sh, -c, "kill -TERM 1; sleep 5"]}}}',
            )
        },
    ),
    (
        "readiness-as-liveness",
        ERROR,
        {
            "pod": pod(
                "",
                env(AGENT_INIT_READY_FILE="/run/ready") + "livenessProbe: {exec: {command: [cat, /run/ready]}}",
            )
        },
    ),
    (
        "loopback-probe",
        ERROR,
        {"pod": pod("", env(AGENT_INIT_HTTP=":8081") + "readinessProbe: {httpGet: {path: /readyz, port: 8081}}")},
    ),
    (
        "rollout-gap",
        WARNING,
        {
            "pod": pod(
                "",
                "command: [uvicorn, a:b]\nports: [{containerPort: 80}]\nreadinessProbe: {tcpSocket: {port: 80}}",
                spec="replicas: 2\nstrategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 2}}",
            )
        },
    ),
    (
        "rollout-gap",
        NOTE,
        {"pod": pod("", "command: [uvicorn, a:b]\nports: [{containerPort: 80}]", spec="strategy: {type: Recreate}")},
    ),
    (
        "no-readiness-probe",
        WARNING,
        {"pod": pod("terminationGracePeriodSeconds: $G", "command: [uvicorn, a:b]\nports: [{containerPort: 80}]")},
    ),
    ("no-readiness-probe", WARNING, {"pod": pod("", "command: [uvicorn, a:b]\nports: [{containerPort: 80}]")}),
    ("shell-stays", WARNING, {"dockerfile": "FROM node:24\nCMD node build\n"}),
    ("shell-stays", WARNING, {"dockerfile": PYTHON + "CMD celery -A test worker\n"}),
    ("two-inits", NOTE, {"compose": service("init: true\nenvironment: {AGENT_INIT_GRACE: 5s}", "image: mine/agent")}),
    ("grace-one-side", NOTE, {"dockerfile": AGENT, "fly": "kill_timeout = 60\n" + FLY + 'web = "uvicorn a:b"\n'}),
    (
        "grace-one-side",
        NOTE,
        {"dockerfile": AGENT, "ecs": task('"stopTimeout": 90, "secrets": [{"name": "KEY", "valueFrom": "x"}]')},
    ),
    (
        "grace-one-side",
        NOTE,
        {
            "pod": pod(
                "terminationGracePeriodSeconds: 60",
                env(AGENT_INIT_READY_FILE="/r") + "- {name: KEY, valueFrom: {secretKeyRef: {name: a, key: b}}}",
            )
        },
    ),
    ("shell-stays", WARNING, {"dockerfile": "FROM python:3-alpine\nCMD yes | python agent.py\n"}),
    ("log-pipe", WARNING, {"dockerfile": PYTHON + "CMD cat x | python agent.py | pino-pretty\n"}),
    ("ender", WARNING, {"dockerfile": 'FROM node:24\nCMD ["pm2", "start", "--no-daemon", "app.json"]\n'}),
    ("relay", NOTE, {"dockerfile": 'FROM node:24\nENTRYPOINT ["/docker-entrypoint.sh"]\nCMD ["npm", "start"]\n'}),
    (
        "drain-too-short",
        WARNING,
        {
            "dockerfile": LIVEKIT + 'CMD ["python", "a.py", "start", "--drain-timeout", "600"]\n',
            "pod": pod("terminationGracePeriodSeconds: 600"),
        },
    ),
    ("term-loses-work", WARNING, {"compose": service("command: python manage.py run_huey")}),
    ("default-grace", NOTE, {"compose": service("command: ./manage.py rqworker default")}),
    ("default-grace", NOTE, {"compose": service("command: celery --broker x -A beat worker")}),
    (
        "livekit-restart",
        WARNING,
        {"fly": FLY + 'w = "python agent.py start"\n[env]\nLIVEKIT_URL = "y"\n[[restart]]\npolicy = "on-failure"\n'},
    ),
    ("relay", WARNING, {"dockerfile": 'FROM node:24\nRUN yarn install\nCMD ["yarn", "start"]\n'}),
    ("two-inits", NOTE, {"ecs": task('"command": ["agent-init", "a"], ' + ECS_INIT)}),
    ("relay", WARNING, {"dockerfile": PYTHON + 'CMD ["su", "app", "-c", "python agent.py"]\n'}),
    ("relay", WARNING, {"dockerfile": PYTHON + 'CMD ["runuser", "-u", "app", "--", "python", "agent.py"]\n'}),
    ("relay", WARNING, {"dockerfile": PYTHON + 'CMD ["setsid", "-w", "python", "agent.py"]\n'}),
    ("relay", WARNING, {"dockerfile": PYTHON + 'CMD ["task", "agent"]\n'}),
    ("relay", NOTE, {"dockerfile": 'FROM node:24\nCMD ["pnpm", "start"]\n'}),
    ("prestop-too-long", ERROR, {"pod": pod("", 'lifecycle: {preStop: {exec: {command: [sh, -c, "sleep 45; x"]}}}')}),
    ("prestop-too-long", ERROR, {"pod": pod("", "lifecycle: {preStop: {exec: {command: [sleep, 1m]}}}")}),
    ("prestop-too-long", ERROR, {"pod": pod().replace("containers:", SIDECAR + "      containers:", 1)}),
    (
        "drain-too-short",
        WARNING,
        {"dockerfile": LIVEKIT + 'CMD ["python", "-m", "src.agent", "start"]\n', "pod": pod()},
    ),
    ("livekit-dev", WARNING, {"dockerfile": LIVEKIT + 'CMD ["uv", "run", "-m", "src.agent", "dev"]\n'}),
    (
        "drain-too-short",
        WARNING,
        {"compose": service("command: uvicorn a:b\nenvironment: {UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN: 60}")},
    ),
    (
        "drain-too-short",
        WARNING,
        {"compose": service("command: granian a:b\nenvironment: {GRANIAN_WORKERS_KILL_TIMEOUT: 60}")},
    ),
    ("stop-signal", WARNING, {"compose": service("command: fastapi run app.py\nstop_signal: QUIT")}),
    ("stop-signal", WARNING, {"compose": service("command: gunicorn a:b\nstop_signal: HUP")}),
    ("stop-signal", NOTE, {"fly": FLY + 'web = "gunicorn a:b"\n'}),
    (
        "loopback-probe",
        ERROR,
        {"pod": pod("", env(AGENT_INIT_HTTP=":8081") + "livenessProbe: {tcpSocket: {port: 8081}}")},
    ),
    (
        "loopback-probe",
        ERROR,
        {"pod": pod("", env(AGENT_INIT_HTTP=":8081") + "startupProbe: {httpGet: {path: /startupz, port: 8081}}")},
    ),
    (
        "readiness-as-liveness",
        ERROR,
        {
            "pod": pod(
                "",
                env(AGENT_INIT_HTTP="0.0.0.0:8081")
                + "ports: [{name: health, containerPort: 8081}]\n"
                + "livenessProbe: {httpGet: {path: /readyz, port: health}}",
            )
        },
    ),
    (
        "rollout-gap",
        WARNING,
        {
            "dockerfile": LIVEKIT + 'CMD ["python", "agent.py", "start"]\n',
            "pod": pod(spec="replicas: 1\n" + ONE_DOWN),
        },
    ),
    (
        "rollout-gap",
        WARNING,
        {"pod": pod("", "ports: [{containerPort: 80}]", spec="replicas: 1\n" + ONE_DOWN)},
    ),
    (
        "rollout-gap",
        WARNING,
        {"pod": pod("", "ports: [{containerPort: 80}]", spec="replicas: 1\nstrategy: {rollingUpdate: {maxSurge: 0}}")},
    ),
    (
        "rollout-gap",
        NOTE,
        {"pod": pod("", "ports: [{containerPort: 80}]", spec=ONE_DOWN)},
    ),
]

SILENT: list[tuple[str, dict[str, str]]] = [
    ("shell-stays", {"dockerfile": "FROM python:3-alpine\nCMD cd /app && python agent.py\n"}),
    ("shell-stays", {"dockerfile": PYTHON + 'CMD ["bash", "-c", "cd /app && python agent.py"]\n'}),
    ("shell-stays", {"dockerfile": PYTHON + "CMD cd /app && exec python agent.py\n"}),
    ("shell-stays", {"dockerfile": PYTHON + "CMD trap 'kill $p' TERM; python a.py & p=$!; wait $p\n"}),
    ("shell-stays", {"dockerfile": AGENT + "CMD cd /app && python agent.py; exit $?\n"}),
    ("shell-stays", {"dockerfile": PYTHON + "CMD alembic upgrade head\n"}),
    ("shell-stays", {"dockerfile": PYTHON + "CMD while true; do python agent.py; done\n"}),
    ("shell-stays", {"pod": pod("", 'args: [sh, -c, "python a.py"]\n' + env(AGENT_INIT_GRACE="20s"))}),
    ("shell-stays", {"dockerfile": PYTHON + 'CMD ["zsh", "-c", "cd /app && python agent.py"]\n'}),
    ("shell-stays", {"dockerfile": PYTHON + "CMD ['python', 'agent.py']\n"}),
    ("background-job", {"dockerfile": AGENT + "CMD celery -A app worker & exec uvicorn app:app\n"}),
    ("shell-above-agent-init", {"dockerfile": PYTHON + "CMD cd /app && exec agent-init -- python agent.py\n"}),
    ("shell-above-agent-init", {"dockerfile": AGENT + "CMD cd /app && agent-init -- python agent.py\n"}),
    ("agent-init-without-command", {"dockerfile": AGENT}),
    ("agent-init-without-command", {"dockerfile": PYTHON + "ENTRYPOINT exec agent-init -- python agent.py\n"}),
    ("entrypoint-replaced", {"dockerfile": AGENT, "pod": pod("", "args: [python, agent.py]")}),
    ("entrypoint-replaced", {"dockerfile": AGENT, "pod": pod("", 'command: ["agent-init", "--", python, a.py]')}),
    ("entrypoint-replaced", {"dockerfile": AGENT, "pod": pod("", "command: [/app/start.sh]")}),
    ("entrypoint-replaced", {"dockerfile": AGENT, "pod": pod("", "command: [alembic, upgrade, head]", "Job")}),
    ("two-inits", {"dockerfile": AGENT, "compose": service("init: false", "build: .")}),
    ("relay", {"dockerfile": 'FROM node:24-alpine\nCMD ["npm", "start"]\n'}),
    ("relay", {"dockerfile": 'FROM node:24\nENTRYPOINT ["agent-init", "--"]\nCMD ["npm", "start"]\n'}),
    ("relay", {"dockerfile": PYTHON + 'CMD ["uv", "run", "python", "agent.py"]\n'}),
    ("relay", {"compose": service("command: npm run dev", "image: node:24")}),
    ("ender", {"dockerfile": 'FROM node:24\nENV PM2_KILL_TIMEOUT=30000\nCMD ["pm2-runtime", "server.js"]\n'}),
    ("bad-option", {"compose": service('command: agent-init -- a\nenvironment: {AGENT_INIT_GRACE: "${GRACE}"}')}),
    ("log-pipe", {"dockerfile": AGENT + 'SHELL ["bash", "-o", "pipefail", "-c"]\nCMD python a.py | tee log\n'}),
    ("log-pipe", {"dockerfile": AGENT + "CMD set -o pipefail; python agent.py | tee log\n"}),
    (
        "cannot-signal",
        {
            "dockerfile": PYTHON + 'ENTRYPOINT ["gosu", "app", "agent-init", "--"]\nCMD ["python", "a.py"]\n',
            "compose": service("cap_drop: [ALL]\ncap_add: [SETUID, SETGID]", "build: ."),
        },
    ),
    ("cannot-signal", {"dockerfile": AGENT + 'CMD ["gosu", "app", "python", "a.py"]\n'}),
    ("unbuffered", {"dockerfile": 'FROM python:3.13\nCMD ["python", "-u", "agent.py"]\n'}),
    ("unbuffered", {"dockerfile": 'FROM python:3.13\nCMD ["uvicorn", "a:b"]\n'}),
    (
        "unbuffered",
        {
            "dockerfile": 'FROM python:3.13\nCMD ["python", "a.py"]\n',
            "compose": service("environment: [PYTHONUNBUFFERED=1]", "build: ."),
        },
    ),
    (
        "grace-above-platform",
        {
            "dockerfile": AGENT,
            "compose": service("stop_grace_period: 1m\nenvironment: {AGENT_INIT_GRACE: 58s}", "build: ."),
        },
    ),
    ("grace-above-platform", {"dockerfile": AGENT + "ENV AGENT_INIT_GRACE=590s\n"}),
    ("grace-above-platform", {"pod": pod("", env(AGENT_INIT_GRACE="40s", AGENT_INIT_PLATFORM_GRACE="30s"))}),
    ("grace-above-platform", {"pod": pod("", env(AGENT_INIT_GRACE="infinity"))}),
    ("grace-above-platform", {"pod": pod("", env(AGENT_INIT_GRACE="90s")).replace("image:", "imagePullPolicy:")}),
    (
        "grace-above-platform",
        {"pod": pod("terminationGracePeriodSeconds: '{{ .Values.grace }}'", env(AGENT_INIT_GRACE="90s"))},
    ),
    ("grace-above-platform", {"compose": service("stop_grace_period: ${G}\ncommand: agent-init -t 60s a")}),
    ("grace-one-side", {"dockerfile": AGENT, "compose": service("restart: always", "build: .")}),
    ("delay-too-long", {"pod": pod("", env(AGENT_INIT_STOP_DELAY="5s"))}),
    ("prestop-too-long", {"pod": pod("", "lifecycle: {preStop: {httpGet: {path: /x, port: 1}}}")}),
    ("prestop-too-long", {"pod": pod("", "lifecycle: {preStop: {exec: {command: [sleep, '10']}}}")}),
    ("platform-maximum", {"fly": 'app = "x"\nkill_timeout = 300\n'}),
    ("drain-too-short", {"compose": service("command: gunicorn app:app")}),
    ("drain-too-short", {"compose": service("command: gunicorn --graceful-timeout 30 a:b\nstop_grace_period: 35s")}),
    ("drain-too-short", {"dockerfile": LIVEKIT + 'CMD ["python", "agent.py", "start"]\n'}),
    ("default-grace", {"compose": service("command: celery -A app beat")}),
    ("default-grace", {"compose": service("command: celery -A app worker\nstop_grace_period: 5s")}),
    ("default-grace", {"compose": service("command: celery -A app worker", "ports: []")}),
    (
        "livekit-drain-timeout",
        {
            "dockerfile": LIVEKIT + 'CMD ["python", "a.py", "start", "--drain-timeout", "500"]\n',
            "pod": pod("terminationGracePeriodSeconds: 600"),
        },
    ),
    ("livekit-dev", {"dockerfile": PYTHON + 'CMD ["python", "manage.py", "dev"]\n'}),
    ("stop-signal", {"dockerfile": PYTHON + 'STOPSIGNAL SIGINT\nCMD ["uvicorn", "a:b"]\n'}),
    ("stop-signal", {"dockerfile": AGENT + 'STOPSIGNAL SIGINT\nCMD ["gunicorn", "a:b"]\n'}),
    (
        "stop-signal",
        {"dockerfile": AGENT + 'ENV AGENT_INIT_STOP_ON=TERM,QUIT\nSTOPSIGNAL QUIT\nCMD ["gunicorn", "a:b"]\n'},
    ),
    ("stop-signal", {"dockerfile": "FROM nginx\nSTOPSIGNAL SIGQUIT\n"}),
    ("term-loses-work", {"dockerfile": PYTHON + 'STOPSIGNAL SIGINT\nCMD ["huey_consumer", "app.huey"]\n'}),
    ("term-loses-work", {"dockerfile": AGENT + 'ENV AGENT_INIT_STOP_SIGNAL=INT\nCMD ["huey_consumer", "app.huey"]\n'}),
    ("term-loses-work", {"dockerfile": AGENT + 'CMD ["waitress-serve", "a:b"]\n'}),
    ("job-counts-as-complete", {"pod": pod("", env(AGENT_INIT_OK_EXIT="143"))}),
    ("livekit-restart", {"compose": service("restart: on-failure\ncommand: python agent.py start")}),
    ("shared-processes", {"pod": pod("shareProcessNamespace: true", env(AGENT_INIT_GRACE="20s"))}),
    ("kills-process-1", {"pod": pod("", 'lifecycle: {preStop: {exec: {command: [sh, -c, "kill -TERM 1"]}}}')}),
    (
        "kills-process-1",
        {
            "pod": pod(
                "shareProcessNamespace: true", 'lifecycle: {preStop: {exec: {command: [sh, -c, "kill 17; sleep 1"]}}}'
            )
        },
    ),
    ("readiness-as-liveness", {"pod": pod("", "livenessProbe: {httpGet: {path: /readyz, port: 80}}")}),
    (
        "loopback-probe",
        {
            "pod": pod(
                "", env(AGENT_INIT_HTTP="0.0.0.0:8081") + "readinessProbe: {httpGet: {path: /readyz, port: 8081}}"
            )
        },
    ),
    (
        "rollout-gap",
        {
            "pod": pod(
                "",
                "command: [uvicorn, a:b]\nports: [{containerPort: 80}]",
                spec="replicas: 3\nstrategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}",
            )
        },
    ),
    ("no-readiness-probe", {"pod": pod("", "command: [celery, worker]")}),
    ("no-readiness-probe", {"pod": pod("", "ports: [{containerPort: 80}]")}),
    ("shell-stays", {"dockerfile": PYTHON + "CMD python -m build\n"}),
    ("shell-stays", {"dockerfile": "FROM mcr.microsoft.com/windows/servercore:ltsc2022\nCMD python a.py\n"}),
    ("relay", {"dockerfile": 'FROM node:24\nRUN yarn install --immutable\nCMD ["yarn", "start"]\n'}),
    ("default-grace", {"compose": service("command: celery -A worker beat")}),
    ("default-grace", {"compose": service("command: python manage.py worker")}),
    ("entrypoint-replaced", {"dockerfile": AGENT, "pod": pod("", "command: [bash, start]")}),
    ("entrypoint-replaced", {"dockerfile": AGENT, "pod": pod("", "command: [docker-entrypoint.sh, python, a.py]")}),
    ("ender", {"dockerfile": "FROM node:24\nCMD pm2 start app.json && tail -f log\n"}),
    ("unbuffered", {"dockerfile": 'FROM python:3.13\nCMD ["python", "-Eum", "agent"]\n'}),
    ("log-pipe", {"dockerfile": AGENT + "CMD yes | python agent.py\n"}),
    ("log-pipe", {"dockerfile": AGENT + "CMD cat x | exec python agent.py\n"}),
    (
        "grace-one-side",
        {"dockerfile": AGENT, "ecs": task('"stopTimeout": 90, "secrets": [{"name": "AGENT_INIT_GRACE"}]')},
    ),
    (
        "grace-one-side",
        {"dockerfile": AGENT, "compose": service(MINUTE + "environment: [AGENT_INIT_GRACE]", "build: .")},
    ),
    (
        "grace-one-side",
        {"dockerfile": AGENT, "compose": service(MINUTE + "environment: {AGENT_INIT_GRACE:}", "build: .")},
    ),
    ("entrypoint-replaced", {"dockerfile": AGENT, "pod": pod("", "command: []\nargs: [python, agent.py]")}),
    ("relay", {"dockerfile": PYTHON + 'ENTRYPOINT ["agent-init", "--"]\nCMD ["su", "app", "-c", "python a.py"]\n'}),
    ("relay", {"dockerfile": PYTHON + 'CMD ["setsid", "python", "agent.py"]\n'}),
    ("prestop-too-long", {"pod": pod("", 'lifecycle: {preStop: {exec: {command: [sh, -c, "x || sleep 45"]}}}')}),
    ("prestop-too-long", {"pod": pod("", 'lifecycle: {preStop: {exec: {command: [sh, -c, "sleep 45 & x"]}}}')}),
    ("prestop-too-long", {"pod": pod("", 'lifecycle: {preStop: {exec: {command: [sh, -c, "exit; sleep 45"]}}}')}),
    ("platform-maximum", {"fly": 'app = "x"\nkill_timeout = "10m"\n[[vm]]\nsize = "performance-2x"\n'}),
    ("platform-maximum", {"fly": 'app = "x"\nkill_timeout = "10m"\n[[vm]]\ncpu_kind = "performance"\n'}),
    ("stop-signal", {"fly": 'kill_signal = "SIGTERM"\n' + FLY + 'web = "gunicorn a:b"\n'}),
    ("stop-signal", {"fly": FLY + 'web = "agent-init -- gunicorn a:b"\n'}),
    ("stop-signal", {"fly": FLY + 'web = "uvicorn a:b"\n'}),
    ("loopback-probe", {"pod": pod("", env(AGENT_INIT_HTTP=":8081") + "readinessProbe: {tcpSocket: {port: 80}}")}),
    (
        "loopback-probe",
        {
            "pod": pod(
                "hostNetwork: true",
                env(AGENT_INIT_HTTP=":8081") + "readinessProbe: {httpGet: {host: 127.0.0.1, port: 8081}}",
            )
        },
    ),
    (
        "rollout-gap",
        {
            "pod": pod("", "command: [celery, worker]", spec="replicas: 1\n" + ONE_DOWN),
        },
    ),
    ("rollout-gap", {"pod": pod("", "ports: [{containerPort: 80}]", spec="strategy: {type: Recreate}")}),
    ("rollout-gap", {"pod": pod("", "ports: [{containerPort: 80}]", spec="replicas: 4\n" + ONE_DOWN)}),
    (
        "rollout-gap",
        {
            "pod": pod("", "ports: [{containerPort: 80}]", spec="replicas: 1\n" + ONE_DOWN).replace(
                "registry/my-agent:1", "docker.io/library/postgres:17"
            )
        },
    ),
    ("rollout-gap", {"pod": pod("", "ports: [{containerPort: 80}]", spec="replicas: 0\n" + ONE_DOWN)}),
    (
        "no-readiness-probe",
        {
            "pod": pod(
                "", "command: [uvicorn, a:b]\nports: [{containerPort: 80}]\nstartupProbe: {tcpSocket: {port: 80}}"
            )
        },
    ),
]


@pytest.mark.parametrize(("rule", "severity", "files"), SPEAKS, ids=[f"{row[0]}-{n}" for n, row in enumerate(SPEAKS)])
def test_a_rule_speaks(rule: str, severity: str, files: dict[str, str]) -> None:
    assert (rule, severity) in found(**files)


@pytest.mark.parametrize(("rule", "files"), SILENT, ids=[f"{row[0]}-{n}" for n, row in enumerate(SILENT)])
def test_a_rule_is_silent(rule: str, files: dict[str, str]) -> None:
    assert rule not in {name for name, _ in found(**files)}


def test_an_init_that_signals_all_processes_is_another_reason() -> None:
    for init in ('"dumb-init"', '"tini", "-g", "--"'):
        (made,) = judge(dockerfile=PYTHON + f"ENTRYPOINT [{init}]\nCMD cd /app && python agent.py\n")
        assert "gets it too, but is killed at once" in made.reason
    (made,) = judge(dockerfile=PYTHON + 'ENTRYPOINT ["dumb-init", "-c", "--"]\nCMD cd /app && python agent.py\n')
    assert "passes no signal on" in made.reason


def test_every_rule_is_tried_both_ways() -> None:
    assert {rule.name for rule in rules.RULES} == {row[0] for row in SPEAKS}
    assert {rule.name for rule in rules.RULES} == {row[0] for row in SILENT}


def test_the_highest_severity_of_each_rule_is_the_one_in_the_table() -> None:
    for rule in rules.RULES:
        tried = [severity for name, severity, _ in SPEAKS if name == rule.name]
        assert rule.severity == min(tried, key=rules.SEVERITIES.index), rule.name


# --- The lines to write. ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "rule", "line", "remedy"),
    [
        ({"dockerfile": PYTHON + "CMD python agent.py\n"}, "shell-stays", 3, 'CMD ["python", "agent.py"]'),
        (
            {"dockerfile": PYTHON + "CMD gunicorn -b :$PORT app:app\n"},
            "shell-stays",
            3,
            'CMD ["sh", "-c", "exec gunicorn -b :$PORT app:app"]',
        ),
        (
            {"pod": pod("", 'command: ["bash", "-c"]\nargs: ["cd /app; python a.py >log"]')},
            "shell-stays",
            10,
            'args: ["cd /app; exec python a.py >log"]',
        ),
        (
            {"dockerfile": PYTHON + 'ENTRYPOINT ["tini", "--", "sh", "-c", "cd /app; python a.py"]\n'},
            "shell-stays",
            3,
            'ENTRYPOINT ["tini", "--", "sh", "-c", "cd /app; exec python a.py"]',
        ),
        (
            {"pod": pod("", 'command: ["bash", "-c", "python a.py; exit $?"]')},
            "shell-stays",
            9,
            'command: ["agent-init", "--", "bash", "-c", "python a.py; exit $?"]',
        ),
        (
            {"compose": service('command: sh -c "a.py; exit $$?"')},
            "shell-stays",
            4,
            'entrypoint: ["agent-init", "--"]',
        ),
        (
            {"compose": service('command: sh -c "gunicorn -b :$$PORT a:b"')},
            "shell-stays",
            4,
            'command: ["sh", "-c", "exec gunicorn -b :$$PORT a:b"]',
        ),
        (
            {"compose": service("entrypoint: [sh, -c, 'cd /app; \"$$@\"', --]\ncommand: python a.py")},
            "shell-stays",
            5,
            r'entrypoint: ["agent-init", "--", "sh", "-c", "cd /app; \"$$@\"", "--"]',
        ),
        (
            {"fly": FLY + "w = \"sh -c 'cd /app && python a.py'\"\n"},
            "shell-stays",
            3,
            "w = \"sh -c 'cd /app && exec python a.py'\"",
        ),
        (
            {"dockerfile": AGENT, "ecs": task('"image": "my-agent", "entryPoint": ["python", "a.py"]')},
            "entrypoint-replaced",
            1,
            '"entryPoint": ["agent-init", "--", "python", "a.py"]',
        ),
        (
            {"pod": pod(SUDO_USER, 'command: ["agent-init", "--", "sudo", "-u", "x", "a.py"]')},
            "cannot-signal",
            10,
            "runAsUser: 0",
        ),
        (
            {"ecs": task('"environment": [{"name": "AGENT_INIT_STOP_DELAY", "value": "100s"}]', FARGATE)},
            "delay-too-long",
            1,
            '{"name": "AGENT_INIT_STOP_DELAY", "value": "15s"}',
        ),
        ({"pod": pod("", HOOK + env(AGENT_INIT_STOP_DELAY="40s"))}, "delay-too-long", 11, f"{KUBERNETES_GRACE}: 130"),
        ({"pod": pod("", HOOK + env(AGENT_INIT_GRACE="20s"))}, "grace-above-platform", 11, f"{KUBERNETES_GRACE}: 82"),
        ({"dockerfile": PYTHON + "CMD a & exec b\n"}, "background-job", 3, 'ENTRYPOINT ["agent-init", "--"]'),
        (
            {"ecs": task('"stopTimeout": 20, "command": ["uvicorn", "a:b", "--timeout-graceful-shutdown", "40"]')},
            "drain-too-short",
            1,
            '"stopTimeout": 45',
        ),
        (
            {"fly": 'app = "x"\n[processes]\nw = "gunicorn --graceful-timeout 60 a:b"\n'},
            "drain-too-short",
            3,
            'kill_timeout = "65s"',
        ),
        (
            {"dockerfile": AGENT, "pod": pod("", env(AGENT_INIT_GRACE="58s"))},
            "grace-above-platform",
            10,
            "terminationGracePeriodSeconds: 60",
        ),
        (
            {"dockerfile": AGENT, "pod": pod("terminationGracePeriodSeconds: 50", env(AGENT_INIT_GRACE="58s"))},
            "grace-above-platform",
            11,
            "- {name: AGENT_INIT_GRACE, value: 48s}",
        ),
        (
            {"dockerfile": AGENT, "compose": service("environment: {AGENT_INIT_GRACE: 1m}", "build: .")},
            "grace-above-platform",
            4,
            "stop_grace_period: 1m2s",
        ),
        (
            {"dockerfile": AGENT, "pod": pod("", "command: [python, agent.py]")},
            "entrypoint-replaced",
            9,
            'command: ["agent-init", "--", "python", "agent.py"]',
        ),
        (
            {
                "dockerfile": LIVEKIT + 'CMD ["python", "a.py", "start"]\n',
                "pod": pod("terminationGracePeriodSeconds: 600"),
            },
            "livekit-drain-timeout",
            4,
            'CMD ["python", "a.py", "start", "--drain-timeout", "572"]',
        ),
        (
            {"dockerfile": LIVEKIT + 'CMD ["uv", "run", "-m", "src.agent", "dev", "--x"]\n'},
            "livekit-dev",
            4,
            'CMD ["uv", "run", "-m", "src.agent", "start", "--x"]',
        ),
        (
            {"dockerfile": LIVEKIT + "CMD cd /app && exec uv run agent.py dev\n"},
            "livekit-dev",
            4,
            'CMD ["/bin/sh", "-c", "cd /app && exec uv run agent.py start"]',
        ),
        (
            {
                "dockerfile": LIVEKIT + 'ENTRYPOINT ["tini", "--", "python3", "a.py", "start"]\n',
                "pod": pod("terminationGracePeriodSeconds: 600", "args: [--log-level, info]"),
            },
            "livekit-drain-timeout",
            10,
            'ENTRYPOINT ["tini", "--", "python3", "a.py", "start", "--drain-timeout", "572"]',
        ),
        (
            {"dockerfile": "FROM python:3-alpine\nCMD python a.py | tee log\n"},
            "log-pipe",
            2,
            'CMD ["/bin/sh", "-o", "pipefail", "-c", "python a.py | tee log"]',
        ),
        (
            {"dockerfile": PYTHON + 'ENTRYPOINT ["gosu", "app", "busybox", "sh", "-c", "a.py | tee log"]\n'},
            "log-pipe",
            3,
            'ENTRYPOINT ["gosu", "app", "busybox", "sh", "-o", "pipefail", "-c", "a.py | tee log"]',
        ),
        (
            {"compose": service("entrypoint: [sh, -c, '\"$$@\" | tee log', --]\ncommand: python a.py")},
            "log-pipe",
            5,
            r'entrypoint: ["bash", "-o", "pipefail", "-c", "\"$$@\" | tee log", "--"]',
        ),
        (
            {"dockerfile": PYTHON + 'CMD python -c "print(\\"a\\")"\n'},
            "shell-stays",
            3,
            r'CMD ["python", "-c", "print(\"a\")"]',
        ),
        (
            {"pod": pod("", "command: [uvicorn, a:b]\nports: [{containerPort: 80}]")},
            "no-readiness-probe",
            7,
            "readinessProbe: {tcpSocket: {port: 80}}",
        ),
        (
            {
                "dockerfile": AGENT + 'CMD ["gosu", "app", "python", "a.py"]\n',
                "pod": pod("", "securityContext: {capabilities: {drop: [ALL], add: [SETUID, SETGID]}}"),
            },
            "cannot-signal",
            9,
            "add: [SETUID, SETGID, KILL]",
        ),
        (
            {
                "ecs": task('"command": ["agent-init", "gosu", "x", "y"], ' + NO_KILL),
            },
            "cannot-signal",
            1,
            '"add": ["KILL"]',
        ),
        ({"pod": pod("", "ports: [{}]\ncommand: [uvicorn]", spec=RECREATE)}, "rollout-gap", 5, "type: RollingUpdate"),
        ({"dockerfile": 'FROM node:24\nCMD ["npm", "start"]\n'}, "relay", 2, 'ENTRYPOINT ["agent-init", "--"]'),
        (
            {"dockerfile": 'FROM node:24\nCMD ["npx", "-y", "tsx", "src/agent.ts", "start"]\n'},
            "relay",
            2,
            'CMD ["node_modules/.bin/tsx", "src/agent.ts", "start"]',
        ),
        ({"compose": service("command: npm start", "image: node:24")}, "relay", 4, 'entrypoint: ["agent-init", "--"]'),
        (
            {
                "dockerfile": LIVEKIT + 'CMD ["python", "a.py", "start"]\n',
                "compose": service("deploy:\n  restart_policy:\n    condition: on-failure", "build: ."),
            },
            "livekit-restart",
            6,
            "condition: any",
        ),
        (
            {
                "dockerfile": LIVEKIT + 'CMD ["python", "a.py", "start", "--drain-timeout", "600"]\n',
                "pod": pod("terminationGracePeriodSeconds: 600"),
            },
            "drain-too-short",
            6,
            f"{KUBERNETES_GRACE}: 628",
        ),
        (
            {"dockerfile": PYTHON + 'CMD sh -c "uvicorn a:b --port $PORT"\n'},
            "shell-stays",
            3,
            'CMD ["sh", "-c", "exec uvicorn a:b --port $PORT"]',
        ),
        (
            {"dockerfile": PYTHON + "CMD cd /app && sh -c 'python a.py'\n"},
            "shell-stays",
            3,
            'ENTRYPOINT ["agent-init", "--"]',
        ),
        (
            {"dockerfile": 'FROM node:24\nCMD ["tini", "-g", "--", "npm", "start"]\n'},
            "relay",
            2,
            'CMD ["agent-init", "--", "npm", "start"]',
        ),
        (
            {"dockerfile": PYTHON + 'ENTRYPOINT ["/usr/bin/tini", "-e", "143", "--"]\nCMD python a.py; exit $?\n'},
            "shell-stays",
            4,
            'ENTRYPOINT ["agent-init", "--"]',
        ),
        (
            {"compose": service("entrypoint: [tini, --]\ncommand: npm start", "image: node:24")},
            "relay",
            5,
            'entrypoint: ["agent-init", "--"]',
        ),
        (
            {
                "dockerfile": PYTHON + 'ENTRYPOINT ["agent-init", "-t", "25s", "--"]\n',
                "compose": service("stop_grace_period: 20s\ncommand: gunicorn -t 9 a:b", "build: ."),
            },
            "grace-above-platform",
            3,
            'ENTRYPOINT ["agent-init", "-t", "18s", "--"]',
        ),
        (
            {"pod": pod(SECONDS_20, "command: [agent-init, --grace=25s, --]\nargs: [gunicorn, -t, '9', a]")},
            "grace-above-platform",
            10,
            'command: ["agent-init", "--grace=18s", "--"]',
        ),
        (
            {"pod": pod(SECONDS_20, 'command: [sh, -c, "exec agent-init -t25s -- gunicorn -t 9 a"]')},
            "grace-above-platform",
            10,
            'command: ["sh", "-c", "exec agent-init -t18s -- gunicorn -t 9 a"]',
        ),
        (
            {"pod": pod(SECONDS_20, "command: [agent-init, -t25s, --]\nargs: [gunicorn, -t, '9', a]")},
            "grace-above-platform",
            10,
            'command: ["agent-init", "-t18s", "--"]',
        ),
        ({"ecs": task('"command": ["agent-init", "a"], ' + ECS_INIT)}, "two-inits", 1, '"initProcessEnabled": false'),
    ],
)
def test_the_line_to_write(files: dict[str, str], rule: str, line: int, remedy: str) -> None:
    made = next(made for made in judge(**files) if made.rule == rule)
    assert (made.place.line, made.remedy) == (line, remedy)


def test_a_hook_of_an_unknown_length_is_no_excuse() -> None:
    request = "lifecycle: {preStop: {httpGet: {path: /x, port: 1}}}\n"
    assert ("grace-above-platform", ERROR) in found(pod=pod("", request + env(AGENT_INIT_GRACE="40s")))
    alone = env(AGENT_INIT_READY_FILE="/run/ready")
    assert found(pod=pod("terminationGracePeriodSeconds: 60", alone)) == {("grace-one-side", NOTE)}
    assert not found(pod=pod("terminationGracePeriodSeconds: 60", request + alone))
    partly = 'lifecycle: {preStop: {exec: {command: [sh, -c, "sleep 10; x"]}}}\n'
    (made,) = judge(pod=pod("", partly + env(AGENT_INIT_GRACE="25s")))
    assert "at most 20s after the preStop hook" in made.reason


def test_both_lines_for_a_livekit_worker_leave_nothing_to_say() -> None:
    dockerfile = LIVEKIT + 'CMD ["python", "a.py", "start"]\n'
    worker = pod("", "readinessProbe: {exec: {command: [test, -e, /tmp/ready]}}")
    lines = {made.rule: made.remedy for made in judge(dockerfile=dockerfile, pod=worker)}
    assert lines == {
        "drain-too-short": "terminationGracePeriodSeconds: 600",
        "livekit-drain-timeout": 'CMD ["python", "a.py", "start", "--drain-timeout", "572"]',
    }
    dockerfile = LIVEKIT + lines["livekit-drain-timeout"] + "\n"
    worker = worker.replace("containers:", lines["drain-too-short"] + "\n      containers:")
    assert judge(dockerfile=dockerfile, pod=worker) == []
    fly = FLY + 'w = "python a.py start"\n[env]\nLIVEKIT_URL = "y"\n'
    assert {made.remedy for made in judge(fly=fly)} == {
        'kill_timeout = "300s"', 'w = "python a.py start --drain-timeout 272"',
    }  # fmt: skip


# --- Files together. --------------------------------------------------------------------------------------------------


def test_a_dockerfile_that_another_file_runs_is_not_judged_alone() -> None:
    dockerfile = PYTHON + "CMD python agent.py\n"
    assert ("shell-stays", WARNING) in found(dockerfile=dockerfile)
    assert not found(dockerfile=dockerfile, compose=service("command: uvicorn a:b", "build: ."))


def test_the_target_of_a_build_is_what_runs() -> None:
    dockerfile = "FROM python:3.13 AS web\nCMD uvicorn a:b\nFROM python:3.13 AS worker\nCMD exec uvicorn a:b\n"
    build = "build: {context: ., target: %s}"
    assert ("shell-stays", WARNING) in found(dockerfile=dockerfile, compose=service("ports: []", build % "web"))
    assert not found(dockerfile=dockerfile, compose=service("ports: []", build % "worker"))


def test_an_image_is_known_by_its_name() -> None:
    both = service("init: false", "build: .\n    image: registry/my-agent:2") + "  db: {image: postgres}\n"
    made = pod("", "command: [python, a.py]") + "      - {name: other, image: x}\n"
    assert ("entrypoint-replaced", ERROR) in found(dockerfile=AGENT, compose=both, pod=made)


def test_a_sidecar_is_not_taken_for_the_image() -> None:
    made = pod("", "command: [python, a.py]") + "      - {name: db, image: 'postgres:17', command: [postgres]}\n"
    assert [rule for rule, _ in found(dockerfile=AGENT, pod=made)] == ["entrypoint-replaced"]


def test_an_override_file_completes_the_service_that_it_overrides() -> None:
    base = service("command: celery -A app worker")
    override = "services:\n  agent:\n    stop_grace_period: 5m\n"
    files = [("compose.yaml", base), ("compose.override.yaml", override)]
    assert rules.judge(combine.read(files).all()) == []
    unknown = override.replace("5m", "${GRACE}")
    assert rules.judge(combine.read([files[0], ("compose.override.yaml", unknown)]).all()) == []


def test_a_service_is_completed_by_the_one_that_it_extends() -> None:
    base = "services:\n  base: {build: ., command: celery -A a worker, environment: {A: 1}, stop_grace_period: 1m}\n"
    for extends in ("base", "{service: base}"):
        worker = f"  worker:\n    extends: {extends}\n    environment: [AGENT_INIT_GRACE=2m]\n"
        made = [one for one in judge(dockerfile=AGENT, compose=base + worker) if one.rule == "grace-above-platform"]
        assert [one.place.line for one in made] == [5]
    default = "  worker: {extends: other}\n  other: {image: x, command: celery -A a worker}\n"
    assert [one.place.line for one in judge(compose="services:\n" + default)] == [2, 3]
    elsewhere = "  worker: {extends: {service: base, file: base.yaml}, command: celery -A a worker}\n"
    assert not judge(compose="services:\n" + elsewhere)
    assert not judge(compose="services:\n  a: {image: x, extends: b}\n  b: {extends: a}\n  c: {extends: none}\n")


def test_a_dockerfile_in_a_compose_file_is_not_the_one_beside_it() -> None:
    inline = "build:\n      dockerfile_inline: |\n        FROM a\n"
    assert judge(dockerfile=AGENT, compose=service("init: true", inline)) == []


def test_a_patch_completes_the_object_that_it_patches() -> None:
    def named(text: str) -> str:
        return text.replace("spec:", "metadata: {name: worker}\nspec:", 1)

    base = named(pod("", env(AGENT_INIT_GRACE="55s")))
    patch = named(pod("terminationGracePeriodSeconds: 60")).replace("        image: registry/my-agent:1\n", "")
    assert [made.rule for made in judge(base=base)] == ["grace-above-platform"]
    assert judge(base=base, patch=patch) == []
    too_short = patch.replace("60", "50")
    assert [made.rule for made in judge(base=base, patch=too_short)] == ["grace-above-platform"]
    assert judge(base=base, patch=patch, another=too_short) == []  # one of two overlays: which one is not known
    other = patch.replace("worker", "another")
    assert [made.rule for made in judge(base=base, patch=other)] == ["grace-above-platform"]


def test_lists_and_cron_jobs_are_read() -> None:
    inner = "    spec: {containers: [{name: a, image: x, lifecycle: {preStop: {sleep: {seconds: 60}}}}]}\n"
    cron = "apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a, "
    cron += "image: x, lifecycle: {preStop: {sleep: {seconds: 60}}}}]}}}}}\n"
    assert ("prestop-too-long", ERROR) in found(pod=cron)
    several = "apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: Pod\n" + inner
    assert ("prestop-too-long", ERROR) in found(pod=several)


def test_our_own_examples_have_no_finding_that_counts() -> None:
    from pathlib import Path

    root = Path(__file__).parents[2]
    names = ["Dockerfile.example", "examples/compose.yaml", "examples/livekit/Dockerfile"]
    names += [str(path.relative_to(root)) for path in (root / "examples" / "kubernetes").glob("*.yaml")]
    for name in names:
        made = rules.judge(combine.read([(name, (root / name).read_text())]).all())
        assert [finding for finding in made if finding.severity in rules.COUNTING] == [], name


def test_an_image_that_may_be_either_of_two_is_neither() -> None:
    files = [
        ("a/agent/Dockerfile", AGENT),
        ("b/agent/Dockerfile", PYTHON),
        ("pod.yaml", pod("", "command: [python, a.py]")),
    ]
    files = [(name, text.replace("my-agent", "agent")) for name, text in files]
    assert not [made for made in rules.judge(combine.read(files).all()) if made.place.file == "pod.yaml"]
    assert [made.rule for made in rules.judge(combine.read([files[0], files[2]]).all())] == ["entrypoint-replaced"]


def test_an_option_has_the_line_of_the_part_that_it_is_in() -> None:
    lines = 'entrypoint: ["agent-init", "--grace", "60s", "--"]\ncommand: python agent.py'
    assert [made.place.line for made in judge(compose=service(lines)) if made.rule == "grace-above-platform"] == [4]
    lines = 'entrypoint: ["agent-init"]\ncommand: ["--grace=60s", "--", "python", "agent.py"]'
    assert [made.place.line for made in judge(compose=service(lines)) if made.rule == "grace-above-platform"] == [5]
