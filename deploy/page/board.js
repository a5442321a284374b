// Draws a maze on a canvas, and what a robot did, remembers and dreams of in it.

import { EXIT, MOVES, TRAP, WALL } from "./maze.js";

const GOLDEN_ANGLE = Math.PI * (3 - Math.sqrt(5));
const SHADES = 24; // of a trail, from its begin to its end

export class Board {
  constructor(canvas) {
    this.canvas = canvas;
    this.view = null; // what is drawn: { maze, cursor, earlier, used, weights, trail, known, hopeful, robot }
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(view) {
    this.view = view;
    this.draw();
  }

  /** The cell at a place on the screen; -1 outside. */
  cellAt({ clientX, clientY }) {
    const { maze } = this.view;
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor(((clientX - box.left) / box.width) * maze.columns);
    const row = Math.floor(((clientY - box.top) / box.height) * maze.rows);
    return row >= 0 && row < maze.rows && column >= 0 && column < maze.columns ? row * maze.columns + column : -1;
  }

  draw() {
    if (!this.view) return;
    const { maze } = this.view;
    this.canvas.style.aspectRatio = `${maze.columns} / ${maze.rows}`;
    this.size = (this.canvas.clientWidth / maze.columns) * devicePixelRatio; // of a cell
    this.canvas.width = Math.round(this.size * maze.columns);
    this.canvas.height = Math.round(this.size * maze.rows);
    this.pen = this.canvas.getContext("2d");
    this.pen.lineCap = this.pen.lineJoin = "round";
    const style = getComputedStyle(document.documentElement);
    this.colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.cells(this.view);
    for (const layer of ["weights", "trail", "used", "known", "hopeful"]) if (this.view[layer]) this[layer](this.view[layer]);
    this.marks(this.view);
  }

  /** A share of a cell's size, in pixels, and no less than can be seen. */
  part(share, least) {
    return Math.max(share * this.size, least * devicePixelRatio);
  }

  /** The middle of a cell, in pixels. */
  at(cell) {
    const { columns } = this.view.maze;
    return [((cell % columns) + 0.5) * this.size, (Math.floor(cell / columns) + 0.5) * this.size];
  }

  square(cell, colour) {
    const [x, y] = this.at(cell).map((middle) => middle - this.size / 2);
    this.pen.fillStyle = colour;
    this.pen.fillRect(Math.floor(x), Math.floor(y), Math.ceil(this.size) + 1, Math.ceil(this.size) + 1);
  }

  disc(x, y, radius, colour) {
    this.pen.fillStyle = colour;
    this.pen.beginPath();
    this.pen.arc(x, y, radius, 0, 2 * Math.PI);
    this.pen.fill();
  }

  path(points, width, colour, dash = []) {
    this.pen.strokeStyle = colour;
    this.pen.lineWidth = width;
    this.pen.setLineDash(dash);
    this.pen.beginPath();
    points.forEach(([x, y]) => this.pen.lineTo(x, y));
    this.pen.stroke();
    this.pen.setLineDash([]);
  }

  cells({ maze, earlier }) {
    this.pen.fillStyle = this.colour("floor");
    this.pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    earlier?.forEach((cell) => this.square(cell, this.colour("earlier")));
    const wall = this.colour("wall");
    maze.kinds.forEach((kind, cell) => kind === WALL && this.square(cell, wall));
  }

  /** An arrow in each cell: the mean direction of the moves, if the fast weights alone decided. */
  weights(weights) {
    const colour = this.colour("weights");
    for (const [cell, ...nats] of weights) {
      const odds = nats.map((one) => Math.exp(one - Math.max(...nats)));
      const total = odds.reduce((sum, one) => sum + one);
      const [down, right] = [0, 1].map((axis) => odds.reduce((sum, one, move) => sum + (one / total) * MOVES[move][axis], 0));
      const length = Math.hypot(down, right);
      if (length < 0.05) continue;
      const [x, y] = this.at(cell);
      const [dx, dy] = [right, down].map((part) => part * this.size * 0.4);
      const [tip, tail] = [[x + dx, y + dy], [x - dx, y - dy]];
      const width = this.part(0.07, 1);
      this.path([tail, tip], width, colour);
      const barb = (turn) => {
        const angle = Math.atan2(dy, dx) + turn;
        return [tip[0] - Math.cos(angle) * this.size * 0.22 * length, tip[1] - Math.sin(angle) * this.size * 0.22 * length];
      };
      this.path([barb(0.6), tip, barb(-0.6)], width, colour);
    }
  }

  /** The way that was walked, from pale to dark; later visits of a cell are drawn away from its middle. */
  trail(cells) {
    const visits = new Map();
    const points = cells.map((cell) => {
      const visit = visits.get(cell) ?? 0;
      visits.set(cell, visit + 1);
      const radius = 0.3 * (1 - 0.6 ** visit) * this.size;
      const [x, y] = this.at(cell);
      return [x + radius * Math.cos(visit * GOLDEN_ANGLE), y + radius * Math.sin(visit * GOLDEN_ANGLE)];
    });
    const [from, to] = [this.colour("trail-from"), this.colour("trail-to")];
    const each = Math.max(1, Math.ceil(points.length / SHADES));
    for (let begin = 0; begin < points.length - 1; begin += each) {
      const share = Math.round((100 * begin) / points.length);
      const shade = `color-mix(in srgb, ${to} ${share}%, ${from})`;
      this.path(points.slice(begin, begin + each + 1), this.part(0.11, 1.5), shade);
    }
  }

  /** The marks of this attempt: a dot in a passage that was used once, two in one that was used more often. */
  used(used) {
    const colour = this.colour("marks");
    for (const [passage, times] of used) {
      const [one, other] = passage.split(" ").map((cell) => this.at(Number(cell)));
      const [x, y] = [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
      const isAcross = one[1] === other[1]; // the dots of a passage stand side by side, across it
      const apart = times > 1 ? this.size * 0.13 : 0;
      for (const side of times > 1 ? [-1, 1] : [0]) {
        this.disc(x + (isAcross ? 0 : side * apart), y + (isAcross ? side * apart : 0), this.part(0.06, 0.6), colour);
      }
    }
  }

  known(cells) {
    this.path(cells.map((cell) => this.at(cell)), this.part(0.16, 2), this.colour("known"), [0.01, this.part(0.34, 4)]);
  }

  hopeful(cells) {
    const points = cells.map((cell) => this.at(cell).map((middle) => middle + this.size * 0.14));
    this.path(points, this.part(0.1, 1.5), this.colour("hopeful"), [this.part(0.2, 3), this.part(0.25, 4)]);
  }

  /** Start, exits and traps, the robot, and the cell that the keyboard draws in. */
  marks({ maze, robot, cursor }) {
    const [x, y] = this.at(maze.start);
    this.pen.strokeStyle = this.colour("start");
    this.pen.lineWidth = this.part(0.14, 1.5);
    this.pen.beginPath();
    this.pen.arc(x, y, this.part(0.3, 3.5), 0, 2 * Math.PI);
    this.pen.stroke();
    maze.kinds.forEach((kind, cell) => {
      if (kind === EXIT) this.star(cell);
      if (kind === TRAP) this.cross(cell);
    });
    if (robot !== undefined) {
      this.disc(...this.at(robot), this.part(0.3, 4.5), this.colour("ink"));
      this.disc(...this.at(robot), this.part(0.24, 3.5), this.colour("robot"));
    }
    if (cursor !== undefined) {
      const [left, top] = this.at(cursor).map((middle) => middle - this.size / 2);
      this.pen.strokeStyle = this.colour("robot");
      this.pen.lineWidth = this.part(0.12, 2);
      this.pen.strokeRect(left, top, this.size, this.size);
    }
  }

  star(cell) {
    const [x, y] = this.at(cell);
    this.pen.fillStyle = this.colour("exit");
    this.pen.beginPath();
    for (let point = 0; point < 10; point++) {
      const radius = this.part(0.44, 6) * (point % 2 ? 0.4 : 1);
      const angle = (point * Math.PI) / 5 - Math.PI / 2;
      this.pen.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
    }
    this.pen.fill();
  }

  cross(cell) {
    const [x, y] = this.at(cell);
    const arm = this.size * 0.24;
    for (const side of [-1, 1]) this.path([[x - arm, y - arm * side], [x + arm, y + arm * side]], this.size * 0.14, this.colour("trap"));
  }
}
