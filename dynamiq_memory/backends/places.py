"""Places in the order of messages, as text that sorts: for stores that order by keys."""

from __future__ import annotations

import secrets
import struct
import threading
import time

TIME_DIGITS = 16
_NANOSECOND_DIGITS = 16
_PROCESS_DIGITS = 6
ARRIVAL_DIGITS = _NANOSECOND_DIGITS + _PROCESS_DIGITS
_SIGN = 1 << 63
_ALL = (1 << 64) - 1


def time_digits(timestamp: float) -> str:
    """A time as 16 hexadecimal digits that sort as the numbers do, negative ones too.

    The bits of a double sort like its value when the sign is turned over, and all bits of a negative one.
    """
    bits = struct.unpack(">Q", struct.pack(">d", timestamp + 0.0))[0]
    return f"{bits ^ _ALL if bits & _SIGN else bits | _SIGN:0{TIME_DIGITS}x}"


def time_of(place: str) -> float:
    """The time that a place begins with."""
    bits = int(place[:TIME_DIGITS], 16)
    value: float = struct.unpack(">d", struct.pack(">Q", bits ^ _SIGN if bits & _SIGN else bits ^ _ALL))[0]
    return value


class Arrivals:
    """Numbers messages in the order in which they arrive.

    Within a process the numbers strictly increase. Between processes their clocks decide, to the nanosecond, and
    where these agree a random number of the process.
    """

    def __init__(self) -> None:
        """Begin with the present time."""
        self._lock = threading.Lock()
        self._last = 0
        self._process = secrets.randbits(4 * _PROCESS_DIGITS)

    def next(self, count: int) -> list[str]:
        """Give that many, each 22 hexadecimal digits."""
        with self._lock:
            first = max(time.time_ns(), self._last + 1)
            self._last = first + count - 1
        return [
            f"{number:0{_NANOSECOND_DIGITS}x}{self._process:0{_PROCESS_DIGITS}x}"
            for number in range(first, first + count)
        ]
