"""Numbers, sizes and times as people read them; the only place that formats."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

NOTHING = "–"

_COUNT_UNITS = ("", " k", " M", " G", " T", " P")
_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")


def count(value: float | None) -> str:
    """A count with a unit of thousands.

    >>> count(25557032), count(999), count(None)
    ('25.6 M', '999', '–')
    """
    if value is None:
        return NOTHING
    scaled, unit = _scaled(float(value), 1000.0, _COUNT_UNITS)
    return f"{_three_digits(scaled)}{unit}"


def flops(value: float | None) -> str:
    """Floating-point operations of one forward pass.

    >>> flops(8178368512)
    '8.18 GFLOPs'
    """
    if value is None:
        return NOTHING
    scaled, unit = _scaled(float(value), 1000.0, _COUNT_UNITS)
    return f"{_three_digits(scaled)} {unit.strip().replace('k', 'K')}FLOPs"


def size(value: float | None) -> str:
    """Bytes, in units of 1000.

    >>> size(310755)
    '311 kB'
    """
    if value is None:
        return NOTHING
    scaled, unit = _scaled(float(value), 1000.0, _BYTE_UNITS)
    return f"{_three_digits(scaled)} {unit}"


def whole(value: int | None) -> str:
    """An exact number with thin spaces between thousands.

    >>> whole(25557032)
    '25\u202f557\u202f032'
    """
    return NOTHING if value is None else f"{value:,}".replace(",", "\u202f")


def change(before: float, after: float) -> str:
    """The relative change, with its sign.

    >>> change(200, 150), change(0, 5), change(10, 10)
    ('−25.0 %', '–', '±0 %')
    """
    if not before:
        return NOTHING
    percent = 100 * (after - before) / before
    if percent == 0:
        return "±0 %"
    digits = 1 if abs(percent) >= 1 else 2
    text = f"{abs(percent):.{digits}f} %"
    if float(f"{abs(percent):.{digits}f}") == 0:
        text = f"<{10**-digits} %"
    return f"{'−' if percent < 0 else '+'}{text}"


def share(part: float, total: float) -> float:
    """``part`` of ``total`` in percent, 0 to 100."""
    return 0.0 if total <= 0 else max(0.0, min(100.0, 100 * part / total))


def milliseconds(value: float | None) -> str:
    """A duration given in milliseconds.

    >>> milliseconds(3.14159), milliseconds(1234)
    ('3.14 ms', '1.23 s')
    """
    if value is None:
        return NOTHING
    if value >= 1000:
        return f"{_three_digits(value / 1000)} s"
    return f"{_three_digits(value)} ms"


def age(since: float | None, now: float | None = None) -> str:
    """How long ago a Unix time was, in one unit.

    >>> age(0, 90), age(0, 86400 * 3)
    ('1 min ago', '3 d ago')
    """
    if not since and since != 0:
        return NOTHING
    seconds = max(0.0, (time.time() if now is None else now) - since)
    for limit, length, unit in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds // length)} {unit} ago"
    return f"{int(seconds // 86400)} d ago"


def duration(seconds: float | None) -> str:
    """A duration given in seconds.

    >>> duration(0.25), duration(75)
    ('250 ms', '1 min 15 s')
    """
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return milliseconds(1000 * seconds)
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def shape(sizes: Sequence[int]) -> str:
    """A tensor's shape.

    >>> shape([64, 3, 7, 7]), shape([])
    ('64×3×7×7', 'scalar')
    """
    return "×".join(map(str, sizes)) if sizes else "scalar"


def plural(number: int, noun: str, many: str = "") -> str:
    """A number with its noun.

    >>> plural(1, "slice"), plural(2, "slice")
    ('1 slice', '2 slices')
    """
    return f"{number} {noun if number == 1 else many or noun + 's'}"


def listed(items: Iterable[str], most: int = 3) -> str:
    """The first few items, and how many more there are.

    >>> listed(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    found = list(items)
    if len(found) <= most:
        return ", ".join(found)
    return f"{', '.join(found[:most])} and {len(found) - most} more"


def short_name(name: str, longest: int = 28) -> str:
    """The end of a dotted name, since the end tells modules apart.

    >>> short_name("self.layer1.0.conv1", 12)
    '…1.0.conv1'
    """
    plain = name.removeprefix("self.")
    return plain if len(plain) <= longest else f"…{plain[-(longest - 3) :]}"


def _scaled(value: float, step: float, units: Sequence[str]) -> tuple[float, str]:
    position = 0
    while abs(value) >= step and position < len(units) - 1:
        value /= step
        position += 1
    return value, units[position]


def _three_digits(value: float) -> str:
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
