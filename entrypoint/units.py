"""Durations and sizes: numbers of seconds and bytes inside, text such as `1m30s` and `64 MiB` outside."""

INFINITY = float("inf")
SECONDS_IN = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_DURATION_SECONDS = 366 * SECONDS_IN["d"]


def parse_duration(text: str, *, infinite: bool = True) -> float:
    """Return the seconds in `25s`, `1m30s`, `500ms`, `1.5h`, a bare number of seconds, or `infinity`.

    `infinite`: whether that is accepted. Raises ValueError; the message names what is.
    """
    from .signals import quote  # probes format durations, and import nothing that they do not need

    if text == "infinity":
        if not infinite:
            raise ValueError("infinity is not accepted here; accepted: a finite time, such as 25s")
        return INFINITY
    seconds, number, rest = 0.0, "", text
    try:
        while rest:
            number = rest[: _span(rest, "0123456789.")]
            rest = rest[len(number) :]
            unit = rest[: _span(rest, "dhms")]
            rest = rest[len(unit) :]
            if not unit and number == text:  # a bare number
                unit = "s"
            seconds += float(number) * SECONDS_IN[unit]
    except (ValueError, KeyError):
        number = ""
    if not number:
        accepted = "25s, 1m30s, 500ms, 2h, a number of seconds" + ", infinity" * infinite
        raise ValueError(f"{quote(text)} is not a duration; accepted: {accepted}")
    if seconds > MAX_DURATION_SECONDS:
        raise ValueError(f"{quote(text)} is longer than a year; accepted: up to 366d{', or infinity' * infinite}")
    return seconds


def _span(text: str, characters: str) -> int:
    """Return how many of the first characters of `text` are in `characters`."""
    return len(text) - len(text.lstrip(characters))


def format_duration(seconds: float) -> str:
    """Return seconds as text for people: `1m30s`, `25s`, `2.5s`, `500ms`, `infinity`."""
    if seconds == INFINITY:
        return "infinity"
    if 0 < seconds < 0.9995:
        return f"{seconds * 1000:.3g}ms"
    if seconds < 59.95:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "") + (f"{rest}s" if rest else "")


def format_bytes(number: int) -> str:
    """Return a number of bytes as text for people: `64 MiB`, `1.5 GiB`."""
    return f"{number / (1 << 20):.3g} MiB" if number < 1 << 30 else f"{number / (1 << 30):.3g} GiB"
