"""Calls of the C library that the standard library does not have: signalfd(2) and prctl(2).

Through what `ctypes` is built on; `ctypes` itself takes 3 ms to import.
"""


def call(name: str, *arguments: int | bytes) -> int:
    """Call a function that takes and returns C ints (bytes are passed as a pointer).

    Raises OSError when it cannot be had; what it returns is for the caller to judge.
    """
    try:
        from _ctypes import call_cdeclfunction, dlopen, dlsym

        return int(call_cdeclfunction(dlsym(dlopen(None), name), arguments))  # type: ignore[arg-type]
    except (ImportError, OSError) as error:
        raise OSError(f"{name} cannot be called: {error}") from None
