// Losses on a logarithmic scale, over work or seconds, with the names at the ends of their curves.

import { fresh } from "./canvas.js";
import { METHODS, colour } from "./methods.js";

const MARGIN = { left: 52, right: 92, top: 10, bottom: 40 };
const TITLES = { work: "work, in gradients of all training pictures", seconds: "seconds of steps" };
/** Pixels between two names. */
const LINE = 18;
/** About as many numbers stand below. */
const TICKS = 6;

/** Draws the curves {key: [{work, seconds, trainLoss}]} over "work", of which there is `least`, or "seconds". */
export function drawChart(canvas, curves, axis, least) {
  const { context, width, height } = fresh(canvas);
  const all = Object.values(curves).flat();
  const right = Math.max(axis === "work" ? least : 1, ...all.map((point) => point[axis]));
  const lowest = Math.min(0.1, ...all.map((point) => point.trainLoss).filter((loss) => loss > 0));
  const [bottom, top] = [Math.floor(Math.log10(lowest)), Math.log10(Math.max(4, ...all.map((point) => point.trainLoss)))];
  const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
  const x = (value) => MARGIN.left + (value / right) * inner.width;
  const y = (loss) => MARGIN.top + ((top - Math.log10(loss)) / (top - bottom)) * inner.height;

  const family = getComputedStyle(document.body).fontFamily;
  context.font = `12px ${family}`;
  context.lineWidth = 1;
  context.strokeStyle = colour("line");
  context.fillStyle = colour("faint");
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (let power = bottom; power <= top; power += 1) {
    rule(context, MARGIN.left, y(10 ** power), MARGIN.left + inner.width, y(10 ** power));
    context.fillText(String(Number((10 ** power).toPrecision(1))), MARGIN.left - 8, y(10 ** power));
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  const step = niceStep(right / TICKS);
  for (let tick = 0; tick * step <= right; tick += 1) {
    context.fillText(String(Number((tick * step).toPrecision(3))), x(tick * step), MARGIN.top + inner.height + 6);
  }
  context.fillText(TITLES[axis], MARGIN.left + inner.width / 2, MARGIN.top + inner.height + 23);

  const labels = [];
  for (const { key, name } of METHODS) {
    const points = (curves[key] ?? []).filter((point) => point.trainLoss > 0);
    if (points.length === 0) continue;
    context.strokeStyle = colour(key);
    context.lineWidth = 2.5;
    context.lineJoin = "round";
    context.beginPath();
    for (const point of points) context.lineTo(x(point[axis]), y(point.trainLoss));
    context.stroke();
    const last = points.at(-1);
    const end = { x: x(last[axis]), y: y(last.trainLoss) };
    context.fillStyle = colour(key);
    context.beginPath();
    context.arc(end.x, end.y, 4, 0, 2 * Math.PI);
    context.fill();
    labels.push({ ...end, name, key });
  }
  context.font = `600 13px ${family}`;
  context.textAlign = "left";
  context.textBaseline = "middle";
  for (const label of apart(labels)) {
    context.fillStyle = colour(label.key);
    context.fillText(label.name, label.x + 10, label.y);
  }
}

function rule(context, fromX, fromY, toX, toY) {
  context.beginPath();
  context.moveTo(fromX, Math.round(fromY) + 0.5);
  context.lineTo(toX, Math.round(toY) + 0.5);
  context.stroke();
}

/** Moves names up and down until none lies on another. */
function apart(labels) {
  const sorted = labels.toSorted((a, b) => a.y - b.y);
  for (let index = 1; index < sorted.length; index += 1) {
    const [above, below] = [sorted[index - 1], sorted[index]];
    const missing = LINE - (below.y - above.y);
    if (missing > 0 && Math.abs(above.x - below.x) < 80) {
      above.y -= missing / 2;
      below.y += missing / 2;
    }
  }
  return sorted;
}

/** The least of 1, 2 and 5 times a power of ten that is not below a value. */
function niceStep(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= value);
}
