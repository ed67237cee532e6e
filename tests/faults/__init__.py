"""agent-init broken on purpose: what a machine, an agent or a stranger can do to it, and that it goes on."""
