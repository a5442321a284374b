// Draws the figures of a run's updates as they come from the server.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, BELOW] = [480, 190, 46, 20];
const MOST_POINTS = 4000; // beyond which every second one goes

// A point of the server: update, steps over the shortest way of first and last attempts, success of both, speed, actors.
const CHARTS = [
  { title: "Steps ÷ shortest way", first: 1, last: 2, names: ["first attempt", "last attempt"], isLog: true, low: 1, digits: 3 },
  { title: "Success", first: 3, last: 4, names: ["first attempt", "last attempt"], low: 0, high: 1, digits: 3 },
  { title: "Attempts per second", last: 5, names: ["", "all actors"], low: 0, digits: 0 },
  { title: "Actors", last: 6, names: ["", "at work"], low: 0, digits: 0, isExact: true },
];

/** Shows the charts in `folder`, and says in `status` what comes. Returns the stream. */
export function watch(folder, status) {
  let points = [];
  const drawers = CHARTS.map((chart) => drawer(folder, chart));
  const show = () => {
    if (points.length > MOST_POINTS) points = points.filter((_, at) => at % 2 === 0);
    const last = points.at(-1);
    status.textContent = last ? `${last[0].toLocaleString("en")} updates` : "No update so far.";
    drawers.forEach((draw) => draw(points));
  };
  const stream = new EventSource("/watch");
  stream.addEventListener("history", ({ data }) => ((points = JSON.parse(data)), show()));
  stream.addEventListener("points", ({ data }) => (points.push(...JSON.parse(data)), show()));
  stream.addEventListener("error", () => (status.textContent = "The server does not answer; this page tries again."));
  show();
  return stream;
}

/** Makes the place of a chart, and returns the function that draws points there. */
function drawer(folder, chart) {
  const section = folder.appendChild(document.createElement("section"));
  section.innerHTML = "<h2></h2><p></p>"; // nothing in it comes from anywhere else
  const [title, figures] = section.children;
  title.textContent = chart.title;
  const svg = section.appendChild(document.createElementNS(SVG, "svg"));
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("role", "img");
  return (points) => {
    const series = ["first", "last"].filter((name) => name in chart).map((name) => ({
      name,
      label: chart.names[name === "first" ? 0 : 1],
      points: points.filter((point) => point[chart[name]] !== null).map((point) => [point[0], point[chart[name]]]),
    }));
    figures.replaceChildren(...series.flatMap(({ name, label, points }) => {
      const figure = document.createElement("b");
      figure.className = name;
      figure.textContent = points.length ? points.at(-1)[1].toFixed(chart.digits) : "–";
      return [`${label} `, figure, "   "];
    }));
    svg.setAttribute("aria-label", `${chart.title}: ${figures.textContent}`);
    svg.replaceChildren(...shapes(chart, series));
  };
}

function shapes(chart, series) {
  const all = series.flatMap(({ points }) => points);
  if (!all.length) return [];
  const scale = chart.isLog ? Math.log : (value) => value;
  const low = chart.low;
  const high = chart.high ?? Math.max(low + 0.1, ...all.map(([, value]) => value));
  const [begin, end] = [all[0][0], Math.max(all[0][0] + 1, ...series.map(({ points }) => points.at(-1)?.[0] ?? 0))];
  const x = (update) => LEFT + ((update - begin) / (end - begin)) * (WIDTH - LEFT - 6);
  const y = (value) => 6 + (1 - (scale(value) - scale(low)) / (scale(high) - scale(low))) * (HEIGHT - BELOW - 12);
  const line = (points, className) => shape("polyline", {
    class: className,
    points: points.map(([update, value]) => `${x(update).toFixed(1)},${y(Math.max(value, low)).toFixed(1)}`).join(" "),
  });
  const middle = chart.isLog ? Math.sqrt(low * high) : (low + high) / 2;
  const digits = chart.isExact || high - low > 20 ? 0 : high - low > 2 ? 1 : 2;
  const written = (value) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return [
    ...(chart.isExact ? [low, high] : [low, middle, high]).flatMap((value) => [
      shape("line", { class: "grid", x1: LEFT, x2: WIDTH - 6, y1: y(value), y2: y(value) }),
      shape("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, written(value)),
    ]),
    shape("text", { x: LEFT, y: HEIGHT - 4 }, `update ${begin.toLocaleString("en")}`),
    shape("text", { x: WIDTH - 6, y: HEIGHT - 4, "text-anchor": "end" }, end.toLocaleString("en")),
    ...series.flatMap(({ name, points }) => chart.isExact
      ? [line(points, `mean ${name}`)]
      : [line(points, `raw ${name}`), line(smooth(points), `mean ${name}`)]),
  ];
}

/** The mean of the points around each, which shows where noisy figures go. */
function smooth(points) {
  const reach = Math.floor(points.length / 60);
  return points.map(([update], at) => {
    const around = points.slice(Math.max(0, at - reach), at + reach + 1);
    return [update, around.reduce((sum, [, value]) => sum + value, 0) / around.length];
  });
}

function shape(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}
