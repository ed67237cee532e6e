"""Memory that is taken before it is needed: a reserve for when there is no other, and a check that there is enough.

It lies in the C library's heap. A block of 128 KiB or more would be a mapping of its own (M_MMAP_THRESHOLD in
mallopt(3)), and nobody could use that again where the limit is on address space. Its pages take no memory until they
are written to: a block is the buffer of a reader, which is not cleared as `bytes` would be.
"""

import _io

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FALLBACK_BYTES = 96 << 10
SUPERVISOR_BYTES = 512 << 10  # enough for the largest of the modules that are made later, after others: see `later`
BLOCK_BYTES = 96 << 10
# The interpreter keeps its frames in chunks of 16 KiB, or of the next power of two that has room for a frame and 1,000
# words more (push_chunk() in CPython's pystate.c). So a frame of this size makes it map 64 KiB; these words are not
# written to, and 40 KiB are left for the frames of what it calls. None of ours takes more than 0.3.
FRAME_WORDS = 3100
# What is raised for want of memory. CPython loses an error if there is no memory for a frame object while it passes
# through a function (take_ownership() in frame.c), and raises SystemError in its place.
NO_MEMORY = MemoryError, SystemError
_number = 1000  # a small one, up to 256, would take no memory


class Reserve:
    """Memory to release when there is no other: so many bytes."""

    __slots__ = ("_blocks", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._blocks: tuple[object, ...] = ()
        self.take()

    def take(self) -> None:
        """Take the reserve, if it is not taken. Raises MemoryError."""
        self._blocks = self._blocks or take(self._size)

    def release(self) -> None:
        """Make the memory available."""
        self._blocks = ()


def take(size: int) -> tuple[object, ...]:
    """Return blocks of `size` bytes together. They are free again once nothing refers to them.

    Raises MemoryError.
    """
    sizes = [min(BLOCK_BYTES, size - at) for at in range(0, size, BLOCK_BYTES)]
    return tuple([_io.BufferedReader(_io.BytesIO(), each) for each in sizes])


def ensure_two_numbers() -> None:
    """Raise MemoryError unless a call that returns two numbers can do so: what waitpid(2) returns comes only once.

    What is freed here is the first to be used again.
    """
    numbers = _number + _number, _number + _number + _number
    del numbers


def with_stack(step: "Callable[..., int]", *arguments: object) -> int:
    """Return what a call returns. It and all that it calls get their frames without memory being mapped for them.

    Else the interpreter maps memory whenever the calls get deeper than the present chunk. Where that fails, 3.11 raises
    a SystemError or crashes, in place of MemoryError.
    """
    return step(*arguments)


with_stack.__code__ = with_stack.__code__.replace(co_stacksize=FRAME_WORDS)

OF_FALLBACK, OF_SUPERVISOR = Reserve(FALLBACK_BYTES), Reserve(SUPERVISOR_BYTES)
