// What the robot remembers at a step of an attempt: Trémaux's marks of this attempt, and where it was in earlier ones.

import { WALL, beside } from "./maze.js";

const passage = (one, other) => `${Math.min(one, other)} ${Math.max(one, other)}`;

/** The cells visited in earlier attempts and in this one, and how often this one has used each passage. */
export function memoryAt(trial, number, step) {
  const attempt = trial.attempts[number];
  const earlier = new Set(trial.attempts.slice(0, attempt.learned).flatMap((one) => one.cells));
  const now = new Set([attempt.cells[0]]);
  const used = new Map();
  for (let time = 0; time < step; time++) {
    const [from, to] = [attempt.cells[time], attempt.cells[time + 1]];
    if (from !== to) used.set(passage(from, to), (used.get(passage(from, to)) ?? 0) + 1);
    now.add(to);
  }
  return { earlier, now, used };
}

/** The marks of the four directions of a cell, a digit each, as the server sends them. */
export function marksOf(maze, cell, { earlier, now, used }) {
  return [0, 1, 2, 3].map((move) => {
    const there = beside(maze, cell, move);
    if (there < 0 || maze.kinds[there] === WALL) return 5;
    if (now.has(there)) return 2 + Math.min(2, used.get(passage(cell, there)) ?? 0);
    return earlier.has(there) ? 1 : 0;
  }).join("");
}

/** The line that holds at a step, of those that the server sends: each loses its first cell with every step. */
export function lineAt(lines, step) {
  const [begin, cells] = lines.findLast(([first]) => first <= step) ?? [0, []];
  return cells.slice(step - begin);
}
