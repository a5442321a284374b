// A maze in the browser: what each cell is and where the start is; as text, and as a link. A cell is row * columns + column.

export const CHARACTERS = ".#EH"; // what a cell of kind 0, 1, 2, 3 is written as, in clew's texts
export const [FREE, WALL, EXIT, TRAP] = [0, 1, 2, 3];
export const MOVES = [[-1, 0], [0, 1], [1, 0], [0, -1]]; // up, right, down, left as row, column
const MOST_SIDE = 63;

/** An empty maze, with the start in one corner and an exit in the opposite one. */
export function empty(side) {
  const kinds = new Uint8Array(side * side);
  kinds[side * side - 1] = EXIT;
  return { rows: side, columns: side, kinds, start: 0 };
}

/** Reads a maze as the server writes it: lines of # . E H and one S. */
export function fromText(text) {
  const lines = text.split("\n");
  const all = lines.join("");
  const kinds = Uint8Array.from(all, (character) => Math.max(0, CHARACTERS.indexOf(character)));
  return { rows: lines.length, columns: lines[0].length, kinds, start: all.indexOf("S") };
}

export function toText(maze) {
  const all = Array.from(maze.kinds, (kind, cell) => (cell === maze.start ? "S" : CHARACTERS[kind])).join("");
  return Array.from({ length: maze.rows }, (_, row) => all.slice(row * maze.columns, (row + 1) * maze.columns)).join("\n");
}

/** A maze as a part of a link: ROWSxCOLUMNS.START.CELLS, four cells a byte, in base64 that needs no escapes. */
export function toLink(maze) {
  const bytes = new Uint8Array(Math.ceil(maze.kinds.length / 4));
  maze.kinds.forEach((kind, cell) => (bytes[cell >> 2] |= kind << (2 * (cell & 3))));
  const base64 = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return `${maze.rows}x${maze.columns}.${maze.start}.${base64}`;
}

/** Reads what `toLink` has written; null where it is something else. */
export function fromLink(link) {
  const [, rows, columns, start, base64] = link.match(/^(\d{1,2})x(\d{1,2})\.(\d{1,4})\.([\w-]+)$/) ?? [];
  const maze = { rows: Number(rows), columns: Number(columns), start: Number(start) };
  const count = maze.rows * maze.columns;
  if (!(count > 1 && maze.rows <= MOST_SIDE && maze.columns <= MOST_SIDE && maze.start < count)) return null;
  if (base64.length !== Math.ceil((Math.ceil(count / 4) * 4) / 3)) return null;
  const bytes = atob(base64.replaceAll("-", "+").replaceAll("_", "/"));
  maze.kinds = Uint8Array.from({ length: count }, (_, cell) => (bytes.charCodeAt(cell >> 2) >> (2 * (cell & 3))) & 3);
  maze.kinds[maze.start] = FREE;
  return maze;
}

/** The cell that lies in the direction of a move, a wall or not; -1 over the border. */
export function beside(maze, cell, move) {
  const row = Math.floor(cell / maze.columns) + MOVES[move][0];
  const column = (cell % maze.columns) + MOVES[move][1];
  const isInside = row >= 0 && row < maze.rows && column >= 0 && column < maze.columns;
  return isInside ? row * maze.columns + column : -1;
}
