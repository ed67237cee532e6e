"""What process 1 writes into the pipe to the HTTP server, and with which codes the server exits. Both ends use this.

The state is one record of `KEY=VALUE` lines, with a NUL after it; each replaces the one before. Times are of the
monotonic clock, which both have in common, so the server can compute ages at any time.
"""

from . import notify

END = b"\0"  # of a record
MAX_RECORD_BYTES = 4096  # PIPE_BUF: a write of this much goes into a pipe whole or not at all (pipe(7))

# Exit codes of the server: its packages are missing; the agent runs as another user now; it cannot listen, with the
# error number added.
NOT_INSTALLED, OTHER_USER, CANNOT_LISTEN = 69, 75, 100
PACKAGES = ("h11", "prometheus_client")  # what it needs
INSTALL = "pip install 'agent-init[http]'"


def encode(fields: "dict[str, object]") -> bytes:
    """Return a record. Fields with no value (None, an empty text) are left out."""
    return notify.encode_values(fields) + END


def address_of(host: str, port: int) -> str:
    """Return an address as it is typed: `:8081`, `127.0.0.1:8081`, `[::]:8081`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
