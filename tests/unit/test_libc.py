"""Calls of the C library."""

from __future__ import annotations

import os

import pytest

from entrypoint.init import libc


def test_a_call_returns_what_the_function_does() -> None:
    assert libc.call("getpid") == os.getpid()


def test_a_missing_function_is_an_oserror() -> None:
    with pytest.raises(OSError, match=r"^no_such_function cannot be called: "):
        libc.call("no_such_function", 1, b"x")
