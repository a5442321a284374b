"""Machine code of `world/walk.py` and `world/memory.py`, one walker after another, with the moves drawn or given."""

# M mazes, C cells of all mazes, I cells of one maze, W walkers, N steps of all attempts, A moves, D kinds of dream,
# G gains of a dream, F features of an observation, H hidden units, Z gates: three for each hidden unit, O places for
# observations

from __future__ import annotations

import numpy as np

from protocol.compiled import Numbers, machine_code
from protocol.compiled.exact import exp_of, uniform
from protocol.compiled.policy import consult, draw, nats
from protocol.compiled.records import Ground, Met, Mind, Robot, Told
from protocol.compiled.recurrent import feed, respond
from protocol.compiled.ways import CLOSED, spread
from protocol.learning.policy import HOPE, KNOWN
from protocol.world.cells import BACK, EXIT, NO_MOVE, TRAP, UNREACHABLE, WALL, A
from protocol.world.memory import BEFORE, EACH_MARK, MARK, MOST_GAIN, NO_EXIT, NO_WAY, NOW
from protocol.world.senses import ALL_MARKS, BUMPED, EARLIER, MARK_BITS, NEVER, VISITED_0, VISITED_2
from protocol.world.ways import VISITED

ALL_DONE, MET_TOO_MANY, STEPS_TOO_MANY, UNWALKABLE = range(4)  # the reasons for which `walk_on` ends


@machine_code
def sense(cell: int, columns: int, radius: int, sensed_I: Numbers) -> None:
    """Marks the cells within the radius of a cell as sensed. `cell`: its row among the I."""
    rows = len(sensed_I) // columns
    row, column = cell // columns, cell % columns
    for r in range(max(row - radius, 0), min(row + radius + 1, rows)):
        for c in range(max(column - radius, 0), min(column + radius + 1, columns)):
            sensed_I[r * columns + c] = True


@machine_code
def enter(cell: int, first: int, ahead_CA: Numbers, state_I: Numbers) -> None:
    """Marks a cell as visited in this attempt, as `memory.enter` does. `cell`: its row among the C."""
    before = state_I[cell - first]
    state_I[cell - first] = before | NOW
    raised = VISITED_0 - (EARLIER if before & BEFORE else 0)
    for move in range(A):
        there = ahead_CA[cell, move]
        if there != cell:
            state_I[there - first] += raised << MARK_BITS * (move ^ BACK)


@machine_code
def plan(
    first: int,
    columns: int,
    goals: int,
    robot: Robot,
    kind_I: Numbers,
    visited_I: Numbers,
    next_IA: Numbers,
    state_I: Numbers,
    hope_I: Numbers,
    sensed_I: Numbers,
    queue_I: Numbers,
) -> None:
    """Dreams anew of the hopeful way, as `Memory._plan` does. `goals`: how many exits are known."""
    cells = len(state_I)
    if not robot.radius:
        for cell in range(cells):
            for move in range(A):
                if visited_I[cell] >> move & 1 or state_I[cell] >> MARK_BITS * move & MARK == BUMPED:
                    sensed_I[next_IA[cell, move] - first] = True
    count = 0
    for cell in range(cells):
        visited = visited_I[cell] & VISITED > 0 or state_I[cell] & NOW > 0
        shut = (sensed_I[cell] and kind_I[cell] == WALL) or (visited and kind_I[cell] == TRAP)
        is_goal = kind_I[cell] == EXIT and (visited or robot.compass)
        source = is_goal if goals else not visited and not shut
        hope_I[cell] = CLOSED if shut else UNREACHABLE
        if source:
            hope_I[cell] = 0
            queue_I[count] = cell
            count += 1
    spread(hope_I, queue_I, count, columns)


@machine_code
def along(cell: int, first: int, marks: int, radius: int, next_CA: Numbers, hope_I: Numbers) -> int:
    """Returns the set of moves that follow the hopeful way, one bit each, as `Memory._along` does."""
    moves, nearer = 0, hope_I[cell - first] - 1
    for move in range(A):
        may_pass = radius > 0 or marks >> MARK_BITS * move & MARK != BUMPED
        if may_pass and hope_I[next_CA[cell, move] - first] == nearer:
            moves |= 1 << move
    return moves


@machine_code
def prepare(maze: int, ground: Ground, robot: Robot, state_I: Numbers, sensed_I: Numbers) -> int:
    """Fills in what is remembered and sensed as an attempt begins, as `marked` does; counts the known exits."""
    first, columns = ground.offset_M[maze], ground.shape_M2[maze, 1]
    visited_C, ahead_CA = ground.visited_C, ground.ahead_CA
    sensed_I[:] = False
    goals = 0
    for place in range(len(state_I)):
        cell = first + place
        visited = visited_C[cell] & VISITED > 0
        state = BEFORE if visited else 0
        for move in range(A):
            there = ahead_CA[cell, move]
            mark = EARLIER if there != cell and visited_C[there] & VISITED else NEVER
            if there == cell if robot.radius else visited_C[cell] >> move & 1:
                mark = BUMPED
            state |= mark << MARK_BITS * move
        state_I[place] = state
        if visited and robot.dreams and robot.radius:
            sense(place, columns, robot.radius, sensed_I)
        if ground.cell_C[cell] == EXIT and (visited or robot.compass):
            goals += 1
    return goals


@machine_code
def walk_on(
    begin: int, count: int, ground: Ground, robot: Robot, met: Met, mind: Mind, told: Told
) -> tuple[int, int, int, int]:
    """Makes the attempts of walkers from number `begin` on.

    Returns why it ends, how many walkers are done, how many observations have been met (`count` at the start), and how
    many steps have been made. A walker for whose observations or steps there is no room is walked again from its start
    once there is.

    It stays in one piece: cut into functions, inlined by numba or not, it took 1.2 to 4.6 times as long.
    """
    # Arrays are taken out of their records here, once, for numba counts references whenever that is done.
    cell_C, ahead_CA, next_CA, way_C, visited_C = (
        ground.cell_C,
        ground.ahead_CA,
        ground.next_CA,
        ground.way_C,
        ground.visited_C,
    )
    look_C, seen_of, key_O = met.look_C, met.seen_of, met.key_O
    odds_OA, factor_CA, dream_DG, share_A16, key_W = (
        mind.odds_OA,
        mind.factor_CA,
        mind.dream_DG,
        mind.share_A16,
        mind.key_W,
    )
    state_WH, log_prob_N = mind.state_WH, told.log_prob_N
    length_W, end_W, move_N, at_N, seen_N = told.length_W, told.end_W, told.move_N, told.at_N, told.seen_N
    known_N, hope_N, gain_N = told.known_N, told.hope_N, told.gain_N
    remembers, dreams, radius = robot.remembers, robot.dreams, robot.radius
    mazes, walkers = len(ground.offset_M), len(length_W)
    each = walkers // mazes
    draws, shared, bent, recurs = len(key_W) > 0, len(mind.in_MFH) == 1, len(factor_CA) > 0, len(state_WH) > 0
    steps = length_W[:begin].sum()
    most = ground.count_M.max()  # these have room for the largest maze
    states, befores, hopes, queues = np.empty((4, most), np.int32)
    senseds, senseds_before = np.empty((2, most), np.bool_)
    state_H, again_Z = np.empty(len(mind.again_HZ), np.float32), np.empty(3 * len(mind.again_HZ), np.float32)
    odds_A, log_prob_A = np.empty(A), np.empty(A, np.float32)
    goals = 0
    for walker in range(begin, walkers):
        maze = walker // each
        first, cells, columns = ground.offset_M[maze], ground.count_M[maze], ground.shape_M2[maze, 1]
        horizon = ground.horizon_M[maze]
        length = horizon if draws else length_W[walker]
        if length > horizon:
            return UNWALKABLE, walker, count, steps
        if steps + length > len(at_N):
            return STEPS_TOO_MANY, walker, count, steps
        state_I, hope_I, sensed_I, queue_I = (
            states[:cells],
            hopes[:cells],
            senseds[:cells],
            queues[:cells],
        )
        kind_I, visited_I, next_IA = (
            cell_C[first : first + cells],
            visited_C[first : first + cells],
            next_CA[first : first + cells],
        )
        at, last = ground.first_M[maze], NO_MOVE
        if recurs:
            state_H[:] = state_WH[walker]
        if remembers:
            if walker % each == 0 or walker == begin:
                goals = prepare(maze, ground, robot, befores[:cells], senseds_before[:cells])
            state_I[:] = befores[:cells]
            if dreams:
                sensed_I[:] = senseds_before[:cells]
                if goals:
                    plan(first, columns, goals, robot, kind_I, visited_I, next_IA, state_I, hope_I, sensed_I, queue_I)
            enter(at, first, ahead_CA, state_I)
            if dreams and radius:
                sense(at - first, columns, radius, sensed_I)
        stale, over = True, False
        for time in range(length):
            here = steps + time
            marks = state_I[at - first] & ALL_MARKS if remembers else 0
            key = look_C[at] + (last << MARK_BITS * A) + marks
            seen = seen_of[key] - 1
            if seen < 0:
                if count == len(key_O):
                    return MET_TOO_MANY, walker, count, steps
                seen = count
                key_O[seen] = key
                count += 1
                seen_of[key] = count
            known, hope, gain = 0, 0, NO_EXIT if dreams else 0
            if dreams and (goals or (marks | marks >> 1 | marks >> 2) & EACH_MARK == EACH_MARK):
                hope = along(at, first, marks, radius, next_CA, hope_I) if goals or not stale else 0
                if (not hope and goals) or (stale and not goals):
                    plan(first, columns, goals, robot, kind_I, visited_I, next_IA, state_I, hope_I, sensed_I, queue_I)
                    stale = False
                    hope = along(at, first, marks, radius, next_CA, hope_I)
                way = way_C[at]
                for move in range(A):
                    if way_C[next_CA[at, move]] == way - 1:
                        known |= 1 << move
                if goals:
                    gain = NO_WAY if way == UNREACHABLE else min(way - hope_I[at - first], MOST_GAIN)
                if gain <= 0:
                    hope = 0
            if draws:
                if odds_OA[seen, 0] < 0:
                    if recurs:
                        feed(seen, met, mind)
                    else:
                        consult(seen, 0 if shared else maze, met, mind)
                up, right, down, left = odds_OA[seen, 0], odds_OA[seen, 1], odds_OA[seen, 2], odds_OA[seen, 3]
                if recurs:
                    respond(seen, mind, state_H, again_Z, odds_A, log_prob_A)
                    up, right, down, left = odds_A[0], odds_A[1], odds_A[2], odds_A[3]
                elif known | hope:
                    by_known = float(dream_DG[KNOWN, gain]) if known else 0.0
                    by_hope = float(dream_DG[HOPE, gain]) if hope else 0.0
                    total = up + right + down + left
                    ups = nats(up / total, share_A16[0, known], by_known, share_A16[0, hope], by_hope)
                    rights = nats(right / total, share_A16[1, known], by_known, share_A16[1, hope], by_hope)
                    downs = nats(down / total, share_A16[2, known], by_known, share_A16[2, hope], by_hope)
                    lefts = nats(left / total, share_A16[3, known], by_known, share_A16[3, hope], by_hope)
                    best = max(max(ups, rights), max(downs, lefts))
                    up, right = up * exp_of(ups - best), right * exp_of(rights - best)
                    down, left = down * exp_of(downs - best), left * exp_of(lefts - best)
                elif bent:
                    up, right = up * factor_CA[at, 0], right * factor_CA[at, 1]
                    down, left = down * factor_CA[at, 2], left * factor_CA[at, 3]
                move = draw(uniform(key_W[walker], time), up, right, down, left)
                move_N[here] = move
                if recurs:
                    log_prob_N[here] = log_prob_A[move]
            else:
                move = int(move_N[here])
            at_N[here], seen_N[here] = at, seen
            known_N[here], hope_N[here], gain_N[here] = known, hope, gain & 255
            to = ahead_CA[at, move]
            shift = MARK_BITS * move
            if to != at:
                last = move
                if remembers:
                    if not state_I[to - first] & NOW:
                        enter(to, first, ahead_CA, state_I)
                        stale = True
                        if dreams and radius:
                            sense(to - first, columns, radius, sensed_I)
                    if state_I[at - first] >> shift & MARK < VISITED_2:
                        state_I[at - first] += 1 << shift
                        state_I[to - first] += 1 << MARK_BITS * (move ^ BACK)
            elif remembers:
                state_I[at - first] = (state_I[at - first] & ~(MARK << shift)) | (BUMPED << shift)
                stale = True
            at = to
            if cell_C[at] == EXIT or cell_C[at] == TRAP or time + 1 == horizon:
                if not draws and time + 1 != length:
                    return UNWALKABLE, walker, count, steps
                length, over = time + 1, True
                break
        if not over:
            return UNWALKABLE, walker, count, steps
        if recurs:
            state_WH[walker] = state_H
        length_W[walker], end_W[walker] = length, at
        steps += length
    return ALL_DONE, walkers, count, steps
