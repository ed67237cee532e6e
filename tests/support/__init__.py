"""What the tests share: `actor` plays agents, `init` runs agent-init as a real process 1 or as a subreaper."""
