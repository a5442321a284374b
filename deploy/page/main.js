// The page: what its buttons do, and what is shown where.

import { Board } from "./board.js";
import { Editor } from "./editor.js";
import * as mazes from "./maze.js";
import { lineAt, memoryAt } from "./memory.js";
import { Player } from "./player.js";
import { watch } from "./watch.js";

const MOST_BYTES = 16_000; // of a maze as text
const of = (id) => document.getElementById(id);
const boards = { robot: new Board(of("robot")), explorer: new Board(of("explorer")) };
const player = new Player(show);
const editor = new Editor(boards.robot, {
  maze: () => maze,
  changed: (other) => (other === maze ? show() : take(other)),
  tool: () => document.querySelector("[name=tool]:checked").value,
  say,
});
let maze = mazes.empty(15);

/** Asks the server; throws an error that holds its sentence where it refuses. */
async function ask(path, wanted) {
  const request = wanted && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(wanted) };
  const answer = await fetch(path, request).catch(() => {
    throw new Error("the server does not answer; is clew page still running?");
  });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

function say(sentence, isFault = false) {
  of("message").textContent = sentence;
  of("message").classList.toggle("fault", isFault);
}

/** Does something that may fail, and says why where it does. */
async function attempt(what) {
  try {
    await what();
  } catch (error) {
    say(error.message, true);
  }
}

/** Shows another maze, and forgets what was done in the former one. */
function take(other) {
  maze = other;
  player.unload();
  of("results").replaceChildren();
  of("text").value = mazes.toText(maze);
  history.replaceState(null, "", `#maze=${mazes.toLink(maze)}&seed=${of("seed").value}`);
  show();
}

async function newMaze() {
  const [family, side, seed] = [of("family").value, of("side").valueAsNumber, of("seed").valueAsNumber];
  if (!of("draw").reportValidity()) return;
  if (!family) return void (take(mazes.empty(side)), say("Draw walls, and press Solve it."));
  const told = await ask("/draw", { family, side, seed });
  take(mazes.fromText(told.maze));
  say(`A maze that no training has seen; its shortest way takes ${told.shortest} steps.`);
}

async function readText(text) {
  const drawings = text.replaceAll("\r", "").trim().split(/\n\s*\n/);
  if (text.length > MOST_BYTES && drawings.length === 1) throw new Error("that is too large; a maze has 63 by 63 cells at most");
  const told = await ask("/read", { maze: drawings[0] });
  take(mazes.fromText(told.maze));
  const others = drawings.length > 1 ? `The first of ${drawings.length} mazes. ` : "";
  say(`${others}Its shortest way takes ${told.shortest} steps.`);
}

async function solve() {
  if (!of("draw").reportValidity()) return;
  of("solve").disabled = true;
  say("The robot walks …");
  try {
    const asked = maze;
    const trial = await ask("/try", { maze: mazes.toText(maze), seed: of("seed").valueAsNumber, attempts: of("attempts").valueAsNumber });
    if (asked !== maze) return;
    results(trial);
    player.load(trial, !matchMedia("(prefers-reduced-motion: reduce)").matches);
    say(`The shortest way takes ${trial.shortest} steps.`);
    about();
  } finally {
    of("solve").disabled = false;
  }
}

/** The steps of an attempt, and what they are of the shortest way; a failure counts as the horizon. */
function steps(trial, cells, found) {
  const count = found ? cells.length - 1 : trial.horizon;
  return { count, ratio: count / trial.shortest, text: found ? `${count}` : "failed" };
}

/** A line for each attempt, and two for the explorer. */
function results(trial) {
  const lines = trial.attempts.map((one, number) => ({ name: `attempt ${number + 1}`, number, ...steps(trial, one.cells, one.found) }));
  trial.explorer.forEach(({ cells, found }, at) => lines.push({ name: at ? "explorer, then" : "explorer", ...steps(trial, cells, found) }));
  const most = Math.max(...lines.map(({ count }) => count));
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const name of ["", "steps", "÷ shortest", ""]) head.append(Object.assign(document.createElement("th"), { textContent: name }));
  const body = table.createTBody();
  for (const { name, number, count, ratio, text } of lines) {
    const row = body.insertRow();
    if (number === undefined) row.insertCell().textContent = name;
    else {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
      button.addEventListener("click", () => player.goTo(number, 0));
      row.insertCell().append(button);
    }
    row.insertCell().textContent = text;
    row.insertCell().textContent = ratio.toFixed(2);
    const bar = document.createElement("i");
    bar.style.width = `${(100 * count) / most}%`;
    bar.classList.toggle("explorer", number === undefined);
    const cell = row.insertCell();
    cell.className = "bar";
    cell.append(bar);
  }
  of("results").replaceChildren(table);
}

/** Draws both boards and all that depends on the step. */
function show() {
  const { trial, number, step } = player;
  for (const id of ["again", "back", "go", "step"]) of(id).disabled = !trial;
  of("go").textContent = player.isPlaying ? "Pause" : "Play";
  if (!trial) {
    boards.robot.show({ maze, cursor: editor.cursor });
    boards.explorer.show({ maze });
    of("robot-says").textContent = "The robot";
    of("explorer-says").textContent = "The explorer, a yardstick: depth first, with a full memory";
    return;
  }
  const one = trial.attempts[number];
  const time = Math.min(step, one.cells.length - 1);
  const memory = memoryAt(trial, number, time);
  const isOver = time === one.moves.length;
  const layers = {
    trail: one.cells.slice(0, time + 1),
    weights: one.weights,
    known: isOver ? [] : lineAt(one.known, time),
    hopeful: isOver ? [] : lineAt(one.hopeful, time),
    ...(one.marks.some((marks) => marks !== "0000") ? { earlier: memory.earlier, used: memory.used } : {}),
  };
  for (const box of document.querySelectorAll("[data-layer]")) {
    if (!box.checked) for (const layer of box.dataset.layer === "marks" ? ["earlier", "used"] : [box.dataset.layer]) delete layers[layer];
  }
  boards.robot.show({ maze, robot: one.cells[time], cursor: editor.cursor, ...layers });
  const { cells: way, found } = player.explorer;
  const there = Math.min(step, way.length - 1);
  boards.explorer.show({ maze, trail: way.slice(0, there + 1), robot: way[there] });
  caption("robot-says", `The robot, attempt ${number + 1} of ${trial.attempts.length}`, time, one.cells, one.found);
  const name = !number ? "The explorer, first attempt" : trial.explorer[0].found ? "The explorer, on its best known way" : "The explorer, second attempt";
  caption("explorer-says", name, there, way, found);
  [...of("results").querySelectorAll("tbody tr")].forEach((row, at) => row.classList.toggle("now", at === number));
}

function caption(id, name, time, cells, found) {
  const count = document.createElement("b");
  count.textContent = `step ${time} of ${cells.length - 1}`;
  const ending = time < cells.length - 1 ? "" : found ? ", at the exit" : ", without an exit";
  of(id).replaceChildren(`${name}: `, count, ending);
}

async function about() {
  const told = await ask("/about");
  const updates = `${told.update.toLocaleString("en")} of ${told.updates.toLocaleString("en")} updates`;
  const waits = told.waits_for ? `; ${told.waits_for} has no checkpoint so far` : "";
  of("run").textContent = told.is_own ? `run ${told.run}, ${updates}` : `parameters that ship with clew, ${updates}${waits}`;
  return told;
}

/** Takes the maze and the seed of the page's address; returns whether it holds any. */
function fromAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (asked.has("seed")) of("seed").value = Number.parseInt(asked.get("seed")) || 0;
  const found = asked.has("maze") && mazes.fromLink(asked.get("maze"));
  if (found) take(found);
  else if (asked.has("maze")) say("The address holds no whole maze; ask for the link once more.", true);
  return Boolean(found);
}

let stream = null;

/** Shows one of the two parts of the page; the stream is open while it is seen. */
function turnTo(part) {
  for (const name of ["play", "watch"]) {
    of(name).hidden = name !== part;
    of(`to-${name}`).setAttribute("aria-pressed", name === part);
  }
  stream?.close();
  of("charts").replaceChildren();
  stream = part === "watch" ? watch(of("charts"), of("watching")) : null;
  about().catch(() => {});
}

function listen() {
  const click = (id, what) => of(id).addEventListener("click", () => attempt(what));
  of("draw").addEventListener("submit", (event) => (event.preventDefault(), attempt(newMaze)));
  click("solve", solve);
  click("again", () => (player.goTo(0, 0), player.play()));
  click("back", () => player.by(-1));
  click("step", () => player.by(1));
  click("go", () => (player.isPlaying ? player.pause() : player.play()));
  click("read", () => readText(of("text").value));
  click("link", async () => (await navigator.clipboard.writeText(location.href), say("The link is copied; it holds the maze.")));
  click("to-play", () => turnTo("play"));
  click("to-watch", () => turnTo("watch"));
  of("speed").addEventListener("input", setSpeed);
  of("layers").addEventListener("change", show);
  of("file").addEventListener("change", () => attempt(async () => readText(await of("file").files[0].text())));
  addEventListener("hashchange", fromAddress);
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    attempt(async () => readText((await event.dataTransfer.files[0]?.text()) ?? event.dataTransfer.getData("text")));
  });
  addEventListener("paste", (event) => {
    if (!event.target.closest("input, textarea")) attempt(() => readText(event.clipboardData.getData("text")));
  });
  addEventListener("keydown", (event) => {
    const keys = { " ": () => of("go").click(), ArrowRight: () => of("step").click(), ArrowLeft: () => of("back").click() };
    if (of("play").hidden || event.target !== document.body || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
}

function setSpeed() {
  player.speed = 2 ** of("speed").valueAsNumber;
}

listen();
setSpeed();
await attempt(async () => {
  const told = await about();
  of("family").append(...told.families.map((family) => new Option(family, family, false, family === "braided")));
  of("attempts").value = told.attempts;
  of("attempts").max = told.most_attempts;
  show();
  if (location.hash === "#watch") turnTo("watch");
  if (fromAddress()) return;
  const fault = of("message").textContent;
  await newMaze();
  if (fault) say(fault, true);
});
of("solve").disabled = false; // before, there was no maze to solve
setInterval(() => document.hidden || about().catch(() => {}), 10_000); // the run goes on
document.documentElement.dataset.ready = "true";
