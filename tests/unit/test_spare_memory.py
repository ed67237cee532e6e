"""What is taken before it is needed."""

from __future__ import annotations

import sys

from entrypoint.init import spare_memory


def deep(levels: int) -> int:
    return 0 if levels == 0 else deep(levels - 1)


def test_calls_have_their_frames_without_a_mapping() -> None:
    """A new chunk of frames is a mapping of its own, which shows in the address space."""

    def pages() -> int:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(64).split()[0])

    def look() -> int:
        deep(100)
        return 0

    found: list[int] = []

    def measured() -> int:
        before = pages()
        inner(before)
        return 0

    def inner(before: int, levels: int = 100) -> None:
        if levels:
            inner(before, levels - 1)
        else:
            found.append(pages() - before)

    spare_memory.with_stack(look)  # what is allocated at a first call
    spare_memory.with_stack(measured)
    assert found == [0]


def test_blocks_have_the_size_at_least() -> None:
    size = spare_memory.BLOCK_BYTES * 2 + 1
    blocks = spare_memory.take(size)
    assert sum(sys.getsizeof(block) for block in blocks) >= size
