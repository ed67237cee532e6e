"""A folder for one run: the programs, their log, and the files that a command needs."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

from tests.field import display, install
from tests.support.init import ACTOR

DRAIN = Path(__file__).with_name("drain.py")
# Readable by any user, which the interpreter of a virtual environment below /root is not.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


class Place:
    """The working directory of a run. `agent` is an agent that drains for `seconds`; `line` is it for a shell."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        folder.chmod(0o777)  # some wrappers change the user
        self.log = folder / "agent.log"
        self.log.touch()
        self.log.chmod(0o666)
        for program in (DRAIN, ACTOR):
            shutil.copy(program, folder)
            (folder / program.name).chmod(0o755)
        self.agent = self.drain(seconds)
        self.arguments = self.agent[1:]
        self.line = shlex.join(self.agent)
        self.display = display.free()

    def drain(self, seconds: float, name: str = "agent") -> list[str]:
        """The command of an agent that drains: `drain.py`."""
        return [PYTHON, str(self.folder / DRAIN.name), f"{seconds:g}", name, str(self.log)]

    def actor(self, name: str, code: str) -> list[str]:
        """The command of a process that runs `code`, see `tests/support/actor.py`."""
        return [PYTHON, "-S", str(self.folder / ACTOR.name), str(self.log), name, code]

    def file(self, name: str, text: str, mode: int = 0o644) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def package_json(self, line: str = "") -> None:
        """Let `npm start` run this line, or the agent."""
        self.file(
            "package.json", json.dumps({"name": "x", "version": "1.0.0", "scripts": {"start": line or self.line}})
        )

    def python_project(self, more: str = "") -> None:
        self.file("pyproject.toml", f'[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\n{more}')

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the user's own configuration, nothing from the network."""
        return {
            "HOME": str(self.folder),
            "TERM": "xterm",
            "SHELL": "/bin/sh",
            "VIRTUAL_ENV": str(install.tools()),
            "UV_OFFLINE": "1",
            "UV_NO_CONFIG": "1",
            "POETRY_VIRTUALENVS_CREATE": "false",
            "PDM_CHECK_UPDATE": "false",
            "PIPENV_VERBOSITY": "-1",
            "HATCH_DATA_DIR": str(self.folder / "hatch"),
            "PM2_HOME": str(self.folder / "pm2"),
            "NO_UPDATE_NOTIFIER": "1",
        }
