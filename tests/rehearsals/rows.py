"""The rehearsals of `examples/rehearsals`, in the order of docs/agents.md. Each is a script that a user can run."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "rehearsals"
AS_OF = "2026-11-26"  # the packages that the named ones need are no newer
LIVEKIT_SERVER = "livekit-server"  # built by tests.livekit.server


@dataclass(frozen=True)
class Row:
    """One line of the table. `script`: its path in `examples/rehearsals`. `needs`: programs; one has to be there.

    `scenarios`: the only ones that are tried, where a start takes long. `reason`: why it was not rehearsed; then there
    is no script.
    """

    title: str
    script: str = ""
    needs: str = ""
    scenarios: str = ""
    reason: str = ""

    @property
    def name(self) -> str:
        """For the command line and the file with the result."""
        return Path(self.script).stem

    @property
    def path(self) -> Path:
        """The script."""
        return EXAMPLES / self.script

    @property
    def requirements(self) -> tuple[str, ...]:
        """What its line `# pip install` names."""
        found = re.search(r"^# pip install (.+)$", self.path.read_text(), re.MULTILINE)
        return tuple(shlex.split(found[1])) if found else ()

    @property
    def variables(self) -> dict[str, str]:
        """The variables of agent-init that it sets."""
        return dict(re.findall(r"^export (AGENT_INIT_\w+)=(\S+)", self.path.read_text(), re.MULTILINE))

    def missing(self) -> str:
        """Return the program that it needs and that is not here; else an empty text."""
        needed = "go" if self.needs == LIVEKIT_SERVER else self.needs
        return "" if not needed or any(map(shutil.which, needed.split())) else needed.replace(" ", " or ")


ROWS = (
    Row("LiveKit Agents", "calls/livekit.sh", needs=LIVEKIT_SERVER),
    Row("LiveKit Agents 1.0", "calls/livekit-1.0.sh", needs=LIVEKIT_SERVER),
    Row("LiveKit Agents 0.12, a task never awaited", "calls/livekit-0.12.sh", LIVEKIT_SERVER, "term,int,hup,sh-c"),
    Row("asyncio, with handlers", "plain/asyncio.sh"),
    Row("`asyncio.run` alone", "plain/asyncio-run.sh"),
    Row("uvicorn", "web/uvicorn.sh"),
    Row("uvicorn `--workers`", "web/uvicorn-workers.sh"),
    Row("gunicorn, uvicorn workers", "web/gunicorn.sh"),
    Row("Celery, prefork", "queues/celery.sh", needs="redis-server"),
    Row("Node, with handlers", "plain/node.sh", needs="node"),
    Row("an agent with an MCP server over stdio", "tools/mcp-agent.sh"),
    Row("MCP server over stdio, without work", "tools/mcp-stdio.sh"),
    Row("MCP server over HTTP", "tools/mcp-http.sh"),
    Row("hypercorn", "web/hypercorn.sh"),
    Row("hypercorn `--workers`", "web/hypercorn-workers.sh"),
    Row("granian", "web/granian.sh"),
    Row("Dramatiq (Redis)", "queues/dramatiq.sh", needs="redis-server"),
    Row("rq", "queues/rq.sh", needs="redis-server"),
    Row("arq, `job_completion_wait` set", "queues/arq.sh", needs="redis-server"),
    Row("Huey (Redis)", "queues/huey.sh", needs="redis-server"),
    Row("waitress", "web/waitress.sh"),
    Row("cheroot", "web/cheroot.sh"),
    Row("pipecat", "calls/pipecat.sh"),
    Row("LangGraph server, in memory", "graphs/langgraph.sh"),
    Row("Playwright, Chromium", "tools/playwright.sh", needs="chromium google-chrome"),
    Row("Temporal worker", reason="it takes a server that no package registry has"),
    Row("Ray Serve", "web/ray-serve.sh", scenarios="term,int,hup"),
    Row("a server with an engine process, as vLLM", "plain/engine.sh"),
)
REHEARSED = {row.name: row for row in ROWS if row.script}
QUICK = ("asyncio", "uvicorn", "rq")  # for each change: they need little
QUICK_SCENARIOS = "term,term-twice,sh-c"
