"""The wheel's command: this project's Python file, or the launcher for the machine that AGENT_INIT_LAUNCHER names.

Without the variable (`pip install .`, an editable installation, the pure wheel) no C compiler is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import shutil
import tempfile
import tomllib
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "AGENT_INIT_LAUNCHER"
COMMAND = "agent-init"


class Hook(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatchling for each wheel."""

    scratch = ""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Choose the command, the tags and the SBOM."""
        machine = os.environ.get(VARIABLE, "") if version == "standard" else ""
        if not machine:
            # The file itself and not a console script made by the installer: that one may import `re` first.
            build_data["shared_scripts"]["entrypoint/__main__.py"] = COMMAND
            return
        compiling = runpy.run_path(os.path.join(self.root, "launcher", "compile.py"))
        if machine not in compiling["TARGETS"]:
            raise SystemExit(f"{VARIABLE}={machine}: no such machine; one of {', '.join(compiling['TARGETS'])}")
        self.scratch = tempfile.mkdtemp(prefix="agent-init-wheel-")
        launcher = Path(self.scratch, COMMAND)
        compiling["with_zig"](machine, launcher)
        build_data["shared_scripts"][str(launcher)] = COMMAND
        build_data["tag"] = f"py3-none-{compiling['TARGETS'][machine].tags}"
        build_data["pure_python"] = False
        sbom = Path(self.scratch, "agent-init.cdx.json")
        sbom.write_text(self.sbom(machine, launcher.read_bytes()))
        build_data["sbom_files"].append(str(sbom))

    def dependencies(self) -> list[str]:
        """The compiler, where there is something to compile: the one version that the release is built with."""
        if not os.environ.get(VARIABLE):
            return []
        with open(os.path.join(self.root, "pyproject.toml"), "rb") as file:
            group = tomllib.load(file)["dependency-groups"]["release"]
        return [name for name in group if isinstance(name, str) and name.startswith("ziglang")]

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled."""
        if self.scratch:
            shutil.rmtree(self.scratch)

    def sbom(self, machine: str, launcher: bytes) -> str:
        """What the compiled file is made of: CycloneDX 1.6, in the place that PEP 770 gives it."""
        release = self.metadata.version
        tools = [
            {"type": "application", "name": name, "version": version_of(name)} for name in ("hatchling", "ziglang")
        ]
        binary = {
            "type": "application",
            "bom-ref": "launcher",
            "name": f"agent-init launcher for {machine}",
            "version": release,
            "description": "launcher/launcher.c, static; no other code is in it, and no C library",
            "licenses": [{"license": {"id": "MIT"}}],
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(launcher).hexdigest()}],
        }
        project = {
            "type": "application",
            "bom-ref": "agent-init",
            "name": "agent-init",
            "version": release,
            "purl": f"pkg:pypi/agent-init@{release}",
            "licenses": [{"license": {"id": "MIT"}}],
        }
        document = {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": project, "tools": {"components": tools}},
            "components": [binary],
            "dependencies": [{"ref": "agent-init", "dependsOn": ["launcher"]}, {"ref": "launcher"}],
        }
        return json.dumps(document, indent=2, sort_keys=True) + "\n"
