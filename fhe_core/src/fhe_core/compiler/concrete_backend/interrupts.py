"""Keeps an interrupt (Ctrl-C) from ending the process on the spot while Concrete works.

For the time of a call, Concrete sets a handler of SIGINT that sends SIGKILL: nothing is cleaned up. There is no
option for that. Blocking the signal in the thread that calls is not enough: it goes to any other thread. So
Concrete's own calls of ``signal`` are made to do nothing, and Python's handler stays: it acts once the call is
over. The runtime that Concrete starts with the first circuit has a handler too; Python's is put back after it.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

# Tags of a dynamic section and flags in it: the ELF specification, and elf.h.
_NULL, _SIZE, _STRINGS, _SYMBOLS, _FLAGS, _SLOTS, _FLAGS_1 = 0, 2, 5, 6, 30, 23, 0x6FFFFFFB
_BIND_NOW, _NOW = 8, 1
_SYMBOL_BYTES, _SLOT_BYTES = 24, 24


@functools.cache
def leave_interrupts_to_python(extension: ModuleType) -> bool:
    """Makes an extension's calls of ``signal`` do nothing. Done once; whether it could be.

    It could not on other systems than Linux with glibc, nor where the linker has made the table read-only.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or sys.maxsize < 2**32:
        return False
    slot = _slot_of(str(extension.__file__), b"signal")
    if slot is None:
        return False
    # Takes an integer, gives one, and has no effect.
    harmless = ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p)
    ctypes.c_void_p.from_address(slot).value = harmless.value
    return True


@contextmanager
def interrupts_kept_back() -> Iterator[None]:
    """Blocks SIGINT in this thread and in those that it starts; one that comes is raised at the end."""
    libc = ctypes.CDLL(None)
    # Larger than any system's struct sigaction.
    handler = ctypes.create_string_buffer(1024)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    chosen = signal.getsignal(signal.SIGINT)
    libc.sigaction(signal.SIGINT, None, handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is chosen:  # nobody set another in Python
            libc.sigaction(signal.SIGINT, handler, None)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _slot_of(library: str, name: bytes) -> int | None:
    """The address of a loaded library's pointer to a function of another; None where it is read-only."""
    # With glibc a handle is the address of a link_map: base, name, dynamic section.
    base, _, dynamic = (ctypes.c_uint64 * 3).from_address(ctypes.CDLL(library)._handle)
    found = dict(_entries(dynamic))
    bound = found.get(_FLAGS, 0) & _BIND_NOW or found.get(_FLAGS_1, 0) & _NOW
    if bound or not {_SIZE, _STRINGS, _SYMBOLS, _SLOTS} <= set(found) or found[_STRINGS] < base:
        return None
    for place in range(found[_SLOTS], found[_SLOTS] + found[_SIZE], _SLOT_BYTES):
        offset, info = (ctypes.c_uint64 * 2).from_address(place)
        symbol = ctypes.c_uint32.from_address(found[_SYMBOLS] + _SYMBOL_BYTES * (info >> 32)).value
        if ctypes.string_at(found[_STRINGS] + symbol) == name:
            return int(base + offset)
    return None


def _entries(dynamic: int) -> Iterator[tuple[int, int]]:
    while True:
        tag, value = (ctypes.c_uint64 * 2).from_address(dynamic)
        if tag == _NULL:
            return
        yield tag, value
        dynamic += 16
