"""The wire format of sd_notify(3): what an agent tells its supervisor, one datagram of `KEY=VALUE` lines a message.

Both ends use it: process 1, which offers the socket, and the runner in the agent. Standard library only, imports
nothing.
"""

LONGEST = 4096  # bytes in a datagram; systemd takes no more either (NOTIFY_BUFFER_MAX)


def encode(fields: "dict[str, object]") -> bytes:
    """The datagram that carries `fields`, in their order. A line break in a value becomes a space."""
    lines = (f"{key}={value!s}".replace("\n", " ") for key, value in fields.items())
    return "\n".join(lines).encode("utf-8", "backslashreplace")


def parse(datagram: bytes) -> "dict[str, str]":
    """The fields in a datagram; of two with one key the last counts. Raises ValueError for what is no message.

    As systemd has it: one NUL at the end is passed over, one elsewhere spoils the whole; a line without `=` is none.
    """
    text = datagram.removesuffix(b"\0")
    if b"\0" in text:
        raise ValueError("a NUL in the message")
    fields = {}
    for line in text.decode("utf-8", "backslashreplace").split("\n"):
        key, equals, value = line.partition("=")
        if equals and key:
            fields[key] = value
    return fields


def address(text: str) -> str:
    """The socket address that NOTIFY_SOCKET names: a path, or `@name` for the abstract namespace (unix(7)).

    Raises ValueError for any other kind.
    """
    if text.startswith("@"):
        return "\0" + text[1:]
    if text.startswith("/"):
        return text
    raise ValueError(f"{text!r} is no address of a socket; accepted: /path, @name")
