"""The pytest plug-in of agent-init: the fixture `rehearsal` (docs/rehearse.md).

pytest imports this module in every run of everybody who has agent-init installed. So it imports nothing that pytest has
not imported, and above all not `entrypoint`: an agent's own `entrypoint.py` must stay what its tests import by that
name. What the fixture needs is loaded at its first call, by another name.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType
    from typing import Protocol

    from entrypoint.rehearse.plugin import Rehearsed

    class Rehearse(Protocol):
        """The type of the fixture `rehearsal`."""

        def __call__(self, command: str | Sequence[str], **options: object) -> Rehearsed: ...


ALIAS = "_agent_init_entrypoint"


def rehearse(command: str | Sequence[str], **options: object) -> Rehearsed:
    """Rehearse the stop of an agent, as `agent-initctl rehearse` does. For fixtures with a scope of their own.

    `options` have the names of the command's options: `work="python call.py"`, `up="tcp:8080"`, `grace="1m"`,
    `scenarios="term,hup"`, `runs=3`. Raises ValueError for options that are not accepted, and RuntimeError if the
    rehearsal cannot be done.
    """
    rehearsed: Rehearsed = _plugin().rehearse(command, **options)
    return rehearsed


@pytest.fixture
def rehearsal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rehearse:
    """Rehearse the stop of an agent: `assert rehearsal("python agent.py").kept_all_work`.

    The table is in the report of a test that fails; the output of the runs is kept as `tmp_path` is.
    """

    def run(command: str | Sequence[str], **options: object) -> Rehearsed:
        keep: Path | object = options.pop("keep", None) or tmp_path_factory.mktemp("rehearsal")
        try:
            done = rehearse(command, keep=keep, **options)
        except (ValueError, RuntimeError) as error:
            raise pytest.fail.Exception(f"rehearsal: {error}", pytrace=False) from None
        request.node.add_report_section("call", "rehearsal", str(done))
        return done

    return run


def _plugin() -> ModuleType:
    """Load the package that lies beside this file as `ALIAS`, whatever `entrypoint` is in this process."""
    if ALIAS not in sys.modules:
        from importlib.machinery import PathFinder
        from importlib.util import module_from_spec, spec_from_file_location

        found = PathFinder.find_spec("entrypoint", [os.path.dirname(os.path.abspath(__file__))])
        if found is None or found.origin is None:
            raise RuntimeError(f"agent-init is not beside {__file__}: install it again")
        spec = spec_from_file_location(
            ALIAS, found.origin, submodule_search_locations=list(found.submodule_search_locations or ())
        )
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules[ALIAS] = module
        spec.loader.exec_module(module)
    return importlib.import_module(f"{ALIAS}.rehearse.plugin")
