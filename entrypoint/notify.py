"""The wire format of sd_notify(3): an agent sends its supervisor datagrams of `KEY=VALUE` lines.

Both ends use this module: process 1, which receives, and the runner in the agent, which sends. So do `control` and
`http_state`, whose messages look the same. Imports nothing.
"""

# A field of our own: the signals that the sender handles or ignores, by number or name, separated by commas. Names that
# begin with X_ are free for such use (sd_notify(3)).
HANDLES = "X_AGENT_INIT_HANDLES"
# Another: `EVENT SECONDS TEXT`, a line for the log about an event loop of the sender (--loop-watch). `blocked`: it does
# not turn; `turned`: it does again, or has ended; `repeated`: how often and how long it was blocked at one place.
LOOP = "X_AGENT_INIT_LOOP"
LOOP_EVENTS = ("blocked", "turned", "repeated")
MAX_DATAGRAM_BYTES = 4096  # systemd's limit too (NOTIFY_BUFFER_MAX)


def encode(fields: "dict[str, object]") -> bytes:
    """Return the datagram for `fields`, in their order. A line break in a value becomes a space."""
    lines = (f"{key}={value!s}".replace("\n", " ") for key, value in fields.items())
    return "\n".join(lines).encode("utf-8", "backslashreplace")


def encode_values(fields: "dict[str, object]") -> bytes:
    """Return the message for these values. What is not known, None or an empty text, is left out.

    A float has three decimal places.
    """
    texts = {name: f"{value:.3f}" if isinstance(value, float) else value for name, value in fields.items()}
    return encode({name: text for name, text in texts.items() if text is not None and text != ""})


def number(fields: "dict[str, str]", name: str) -> "float | None":
    """Return a field as a number; None if it was left out."""
    return float(fields[name]) if name in fields else None


def pairs(fields: "dict[str, str]", name: str) -> "list[tuple[str, str]]":
    """Return the pairs in a field such as `HUP:1,USR1:3`; none if it was left out."""
    texts = (text.rpartition(":") for text in fields.get(name, "").split(",") if text)
    return [(key, value) for key, _, value in texts]


def parse(datagram: bytes) -> "dict[str, str]":
    """Return the fields in a datagram. If a key occurs twice, the last one wins. Raises ValueError for a NUL inside.

    The rules are systemd's: a NUL at the end is ignored, a NUL elsewhere makes the whole datagram invalid, and a line
    without a key or without `=` is ignored.
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
    """Return the socket address for the value of NOTIFY_SOCKET: a path, or `@name` in the abstract namespace (unix(7)).

    Raises ValueError for anything else.
    """
    if text.startswith("@"):
        return "\0" + text[1:]
    if text.startswith("/"):
        return text
    raise ValueError(f"{text!r} is no address of a socket; accepted: /path, @name")
