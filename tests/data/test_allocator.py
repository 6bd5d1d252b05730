"""The setting is one that glibc takes; a value beyond its greatest it would refuse."""

import platform

from pipeline.data.allocator import keep_small_blocks


def test_glibc_takes_the_setting() -> None:
    assert keep_small_blocks() == (platform.libc_ver()[0] == "glibc")
