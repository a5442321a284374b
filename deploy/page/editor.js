// Drawing in a maze: with the mouse or a finger, or with the arrow keys and the characters of clew's texts.

import { CHARACTERS, EXIT, FREE, WALL, beside } from "./maze.js";

const ARROWS = ["ArrowUp", "ArrowRight", "ArrowDown", "ArrowLeft"];

export class Editor {
  /** `maze` returns the maze as it is; `changed` takes another; `tool` returns one of # S E H; `say` tells of a cell. */
  constructor(board, { maze, changed, tool, say }) {
    Object.assign(this, { board, maze, changed, tool, say });
    this.cursor = undefined; // while the canvas has the keyboard
    const { canvas } = board;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    canvas.addEventListener("pointerup", () => (this.character = null));
    canvas.addEventListener("pointercancel", () => (this.character = null));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && this.move(this.maze().start));
    canvas.addEventListener("blur", () => this.move(undefined));
  }

  /** The tool for walls draws what the first cell was not, for as long as the button is down. */
  press(event) {
    const cell = this.board.cellAt(event);
    if (event.button || cell < 0) return;
    this.board.canvas.setPointerCapture(event.pointerId);
    const isWall = this.maze().kinds[cell] === WALL;
    this.character = this.tool() === "#" && isWall ? "." : this.tool();
    this.last = -1;
    this.drag(event);
  }

  drag(event) {
    const cell = this.character ? this.board.cellAt(event) : -1;
    if (cell < 0 || cell === this.last) return;
    this.last = cell;
    this.put(cell, this.character);
  }

  key(event) {
    const move = ARROWS.indexOf(event.key);
    const character = event.key === " " ? "." : event.key.toUpperCase();
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (move < 0 && !"#.SEH".includes(character)) return;
    event.preventDefault();
    event.stopPropagation();
    const cell = this.cursor ?? this.maze().start;
    if (move < 0) this.put(cell, character);
    const there = move < 0 ? cell : beside(this.maze(), cell, move);
    this.move(there < 0 ? cell : there);
  }

  move(cell) {
    this.cursor = cell;
    this.changed(this.maze());
    if (cell === undefined) return;
    const { columns, kinds, start } = this.maze();
    const kind = cell === start ? "start" : ["free", "wall", "exit", "trap"][kinds[cell]];
    this.say(`row ${Math.floor(cell / columns) + 1}, column ${(cell % columns) + 1}: ${kind}`);
  }

  /** Makes a cell what a character says. The start cannot be drawn over: it is moved. An exit or a trap is taken back. */
  put(cell, character) {
    const maze = this.maze();
    if (character === "S") {
      const kinds = maze.kinds.slice();
      kinds[cell] = FREE;
      this.changed({ ...maze, kinds, start: cell });
    } else if (cell !== maze.start) {
      const kinds = maze.kinds.slice();
      const kind = CHARACTERS.indexOf(character);
      kinds[cell] = kind >= EXIT && kinds[cell] === kind ? FREE : kind;
      this.changed({ ...maze, kinds });
    }
  }
}
