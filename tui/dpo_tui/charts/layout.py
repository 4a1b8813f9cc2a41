"""How many charts fit, and where each lies."""

from __future__ import annotations

from textual.geometry import Region, Size

WIDTH, HEIGHT = 52, 11
"""Cells that a chart is best read at."""
GUTTER = 2


def arrange(width: int, height: int, count: int) -> tuple[int, int]:
    """Columns and rows of the grid; fewer where there are fewer charts than would fit."""
    columns = max(1, round(width / WIDTH))
    rows = max(1, round(height / HEIGHT))
    if 0 < count < columns * rows:
        columns = min(columns, max(1, round((count * width / max(1, height) / 3) ** 0.5)))
        rows = min(rows, -(-count // columns))
        columns = min(columns, -(-count // rows))
    return columns, rows


def tile_region(place: int, grid: tuple[int, int], size: Size) -> Region:
    """Region of the chart at a place, counted by rows; charts in tall grids have a blank row between."""
    columns, rows = grid
    row, column = divmod(place, columns)
    gap = 1 if size.height // rows >= HEIGHT - 1 and rows > 1 else 0
    left, right = _span(column, columns, size.width, GUTTER)
    top, bottom = _span(row, rows, size.height, gap)
    return Region(left, top, max(0, right - left), max(0, bottom - top))


def place_at(x: int, y: int, grid: tuple[int, int], size: Size) -> int | None:
    """The place whose chart holds a cell."""
    for place in range(grid[0] * grid[1]):
        if tile_region(place, grid, size).contains(x, y):
            return place
    return None


def _span(index: int, parts: int, total: int, gap: int) -> tuple[int, int]:
    room = total + gap
    return index * room // parts, (index + 1) * room // parts - gap
