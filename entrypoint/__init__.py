"""agent-init: process 1 for the container of an AI agent.

The folder of a module says which process it runs in: `init/` in process 1, `agent/` in the agent's own process,
`report/` in a short-lived one that makes a stall report, `cli` where no agent is started (help, usage errors, shell
completion). The modules beside them are shared. See docs/architecture.md.
"""

__version__ = "0.1.0"
