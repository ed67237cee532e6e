"""Who may speak for the agent on the notify socket."""

from __future__ import annotations

from tests.field.trial import DRAINED, Trial, actor, drain, drained, script, shell

TELLS = "'NOTIFY_SOCKET' in os.environ and notify({message}); "
HELPER = TELLS.format(message="f'MAINPID={os.getpid()}'") + "log('up'); time.sleep(60)"
DRAINS = (
    "stops = []\ndef stop():\n    stops.append(1)\n    if len(stops) > 1: log('work lost'); os._exit(1)\n"
    "on('TERM', stop)\n{before}\nlog('up')\nwhile not stops: time.sleep(0.02)\ntime.sleep(1)\nlog('drained')"
)
MAINPID = DRAINS.format(before=f"child('helper', {HELPER!r})")
MAINPID_GOES = DRAINS.format(before="child('helper', {!r})".format(HELPER.replace("60", "0.1")))
MAINPID_TERM = DRAINS.format(
    before="child('helper', {!r})".format(HELPER.replace("time.sleep(60)", "on('TERM', lambda: leave(0)); forever()"))
)
NAMED = DRAINS.format(before="'NOTIFY_SOCKET' in os.environ and notify(f'MAINPID={os.getpid()}')")
REDIS = (
    "import subprocess\nsubprocess.Popen(['redis-server', '--supervised', 'systemd', '--port', '0', '--save', '',"
    " '--unixsocket', 'redis.socket'], stdout=subprocess.DEVNULL)\ntime.sleep(1)\n" + TELLS.format(message="'READY=1'")
)
READY = {"readiness, after the agent's message": r"agent is ready, after [1-9][\d.]*s"}
EARLY = {"readiness, by a helper": r"agent is ready, after (\d+ms|0[\d.]*s)"}

TRIALS = [
    Trial("a helper's MAINPID", "containers/podman#4600, opencontainers/runc#1807", actor(MAINPID), drained(1),
          up=("agent", "helper")),
    Trial("MAINPID of a helper that goes", "containers/podman#7316", actor(MAINPID_GOES), drained(1),
          up=("agent", "helper")),
    Trial("MAINPID of a helper that handles TERM", "containers/podman#4600", actor(MAINPID_TERM), drained(1),
          up=("agent", "helper"), variation=True),
    Trial("a helper's MAINPID, agent behind sh", "containers/podman#4600",
          shell("sh", "CODE; exit $?", CODE=actor(MAINPID)), drained(1), up=("agent", "helper"), variation=True),
    Trial("the agent's own MAINPID", "own", actor(NAMED), drained(1)),
    Trial("the agent's own MAINPID, behind sh", "own", shell("sh", "CODE; exit $?", CODE=actor(NAMED)), drained(1)),
    Trial("a helper's READY=1", "docker-library/postgres#1325", actor(DRAINS.format(before=REDIS)),
          drained(1, printed=READY, never_printed=EARLY, also="ready when the agent says so"),
          programs=("redis-server",)),
    Trial("a helper's READY=1, agent behind sh", "docker-library/postgres#1325",
          shell("sh", "CODE; exit $?", CODE=actor(DRAINS.format(before=REDIS))),
          drained(1, printed=READY, never_printed=EARLY, also="ready when the agent says so"),
          programs=("redis-server",), variation=True),
    Trial("systemd-notify in a start script", "own",
          script("bash", "AGENT &\n[ -z \"$NOTIFY_SOCKET\" ] || systemd-notify --ready\nONE &\nwait",
                 ONE=drain(1, "one")),
          drained(1, codes=(0, 143), events={"one": DRAINED}, printed={"readiness": "agent is ready"}, also="ready"),
          drain=1, up=("agent", "one"), programs=("systemd-notify",)),
]  # fmt: skip
