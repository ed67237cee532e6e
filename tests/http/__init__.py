"""The HTTP server (--http): its answers, its limits, and that its failures are nobody else's."""
