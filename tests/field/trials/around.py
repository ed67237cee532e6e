"""What is around the agent: injected start-up code, variables, platforms, and stops from inside."""

from __future__ import annotations

from collections.abc import Mapping

from tests.field.place import Place
from tests.field.running import Build
from tests.field.trial import Right, Trial, actor, drained, nothing, shell

TELEMETRY = "DataDog/dd-trace-py#12586"
BLOCKED = ("env", "--block-signal")
SERVICE_LINKS = {
    "AGENT_INIT_SERVICE_HOST": "10.0.0.1",
    "AGENT_INIT_SERVICE_PORT": "80",
    "AGENT_INIT_SERVICE_PORT_HTTP": "80",
    "AGENT_INIT_PORT": "tcp://10.0.0.1:80",
    "AGENT_INIT_PORT_80_TCP": "tcp://10.0.0.1:80",
    "AGENT_INIT_PORT_80_TCP_PROTO": "tcp",
    "AGENT_INIT_PORT_80_TCP_PORT": "80",
    "AGENT_INIT_PORT_80_TCP_ADDR": "10.0.0.1",
}
MISSPELT = {"warning about a variable": "unknown variable"}
# The agent asks for the end itself, as a health check would, and then does not end.
ASKS = "ignore('TERM'); log('up'); time.sleep(0.3); os.kill(1, 15); forever()"
CHILD_ASKS = "ignore('TERM'); child('check', 'time.sleep(0.3); os.kill(1, 15)'); log('up'); forever()"


def _injected(code: str) -> Build:
    """The agent, and a sitecustomize in the folder that PYTHONPATH names."""

    def build(place: Place) -> list[str]:
        place.file("injected/sitecustomize.py", code)
        return place.agent

    return build


def _pythonpath(place: Place) -> Mapping[str, str]:
    return {"PYTHONPATH": str(place.folder / "injected")}


def _telemetry(name: str, code: str, *, before: tuple[str, ...] = BLOCKED, variation: bool = True) -> Trial:
    return Trial(name, TELEMETRY, _injected(code), drained(1), drain=1, environment=_pythonpath, before=before,
                 options=("-t", "20s"), variation=variation)  # fmt: skip


def _python_home(
    name: str, *, value: str = "/opt/python", before: tuple[str, ...] = (), variation: bool = True
) -> Trial:
    refused = Right(
        "125 and a line that names it", codes=(125,), printed={"line that names it": "agent-init: .*PYTHONHOME"}
    )
    return Trial(name, "own", shell("sh", "unset PYTHONHOME; exec AGENT"), (drained(1), refused), drain=1,
                 environment={"PYTHONHOME": value}, before=before, variation=variation)  # fmt: skip


def _from_inside(name: str, code: str, variables: Mapping[str, str], within: float, *, variation: bool = True) -> Trial:
    right = Right("killed at the platform's usual limit, 137", {"agent": ("up",)}, codes=(137,), within=within)
    return Trial(name, "own", actor(code), right, nothing, options=(), environment=variables, variation=variation)


TRIALS = [
    _telemetry("sitecustomize that starts a process, behind env --block-signal",
               "import subprocess; subprocess.Popen(['sleep', '60'])", variation=False),
    _telemetry("sitecustomize that starts a process",
               "import subprocess; subprocess.Popen(['sleep', '60'])", before=()),
    _telemetry("sitecustomize that starts a session of its own",
               "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)"),
    _telemetry("sitecustomize that starts a thread",
               "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"),
    _telemetry("sitecustomize that fails", "raise RuntimeError('injected')"),
    _python_home("PYTHONHOME of another Python", variation=False),
    _python_home("PYTHONHOME of another Python, behind env --block-signal", before=BLOCKED),
    Trial("service links", "Kubernetes, a Service called agent-init", lambda place: place.agent,
          drained(1, never_printed=MISSPELT), drain=1, environment=SERVICE_LINKS),
    Trial("Azure Container Apps", "Azure Container Apps, 30 s before its SIGKILL", lambda place: place.agent,
          drained(1, never_printed={"deadline of its own": "KILL after 10s"}), drain=1, options=(),
          environment={"CONTAINER_APP_NAME": "x"}),
    Trial("Cloud Run jobs", "Cloud Run jobs, 10 s before its SIGKILL", lambda place: place.agent,
          drained(1, never_printed={"deadline of its own": "KILL after 10s"}), drain=1, options=(),
          environment={"CLOUD_RUN_JOB": "x"}, variation=True),
    _from_inside("a stop from inside, on Railway", ASKS, {"RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "2"}, 4.5,
                 variation=False),
    _from_inside("a stop by a child, on Railway", CHILD_ASKS, {"RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "2"}, 4.5),
    _from_inside("a stop from inside, on Nomad", ASKS, {"NOMAD_ALLOC_ID": "x"}, 7.5),
]  # fmt: skip
