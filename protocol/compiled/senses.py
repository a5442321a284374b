"""Machine code of what is sensed in each cell, of `world/senses.py`."""

# C cells of all mazes, B cells seen around one, M mazes

from __future__ import annotations

from protocol.compiled import Numbers, machine_code


@machine_code
def fill_seen(wall_C: Numbers, shape_M2: Numbers, offsets_B2: Numbers, sensed: Numbers) -> None:
    """Fills the first B columns of `sensed` [C, ...]: whether each cell around is a wall; outside counts as one."""
    cell = 0
    for maze in range(len(shape_M2)):
        rows, columns = shape_M2[maze]
        for row in range(rows):
            for column in range(columns):
                for around in range(len(offsets_B2)):
                    r, c = row + offsets_B2[around, 0], column + offsets_B2[around, 1]
                    inside = 0 <= r < rows and 0 <= c < columns
                    there = cell + offsets_B2[around, 0] * columns + offsets_B2[around, 1]
                    sensed[cell, around] = wall_C[there] if inside else True
                cell += 1
