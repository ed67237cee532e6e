"""agent-init: process 1 for the container of an AI agent.

Which process a module runs in can be read from where it lies: `init/` runs in process 1, `agent/` (to come) in the
agent's own process, `cli` only where no agent is started (help, usage errors, shell completion).
"""

__version__ = "0.1.0"
