"""Prints a small aligned table, and the median of a few runs with its range."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def show(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * w for w in widths], *rows]:
        print(
            "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(),
            flush=True,
        )


def spread(values: Sequence[float], unit: str = "s") -> str:
    """'0.31 s (0.28–0.40)': median, minimum, maximum."""
    return f"{statistics.median(values):.3g} {unit} ({min(values):.3g}–{max(values):.3g})"
