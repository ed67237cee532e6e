"""Installs the responder, then runs the user's own sitecustomize. `agent-init --stacks` puts it in front of PYTHONPATH.

Every Python in the agent's tree runs it, old ones included, so it uses only syntax that all of them share.
"""

import os
import sys

_place = __file__.rpartition("/")[0]

if sys.version_info >= (3, 9) and sys.implementation.name == "cpython" and "AGENT_INIT_RESPONDERS" in os.environ:
    try:
        _path = _place.rpartition("/")[0] + "/responder.py"
        _loader = sys.modules["_frozen_importlib_external"].SourceFileLoader("agent_init_responder", _path)
        _names = {"__name__": "agent_init_responder", "__file__": _path}
        exec(_loader.get_code("agent_init_responder"), _names)
        eval("install()", _names)
    except Exception:  # it never keeps the agent from starting
        pass

# From here on it is as if this directory did not exist. `site` handles the exception if the user has no sitecustomize,
# or one that fails.
sys.path[:] = [_entry for _entry in sys.path if _entry != _place]
sys.path_importer_cache.pop(_place, None)
sys.modules.pop("sitecustomize", None)
__import__("sitecustomize")
