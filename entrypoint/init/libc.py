"""Calls the C library where the standard library cannot: signalfd(2) and prctl(2).

This uses the C module that `ctypes` is built on; `ctypes` itself takes 3 ms to import.
"""


def call(name: str, *arguments: int | bytes) -> int:
    """Call a function that takes and returns C ints (bytes are passed as a pointer).

    Raises OSError if there is no such function. The caller judges the return value.
    """
    try:
        from _ctypes import call_cdeclfunction, dlopen, dlsym

        return int(call_cdeclfunction(dlsym(dlopen(None), name), arguments))  # type: ignore[arg-type]
    except (ImportError, OSError) as error:
        raise OSError(f"{name} cannot be called: {error}") from None
