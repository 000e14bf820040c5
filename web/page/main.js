// The page: what is pressed, and what is shown.

import initialise, { Device, picture as pictureOf } from "./bindings/osculant_web.js";
import { showAnswers, showPicture } from "./answers.js";
import { drawChart } from "./chart.js";
import { METHODS } from "./methods.js";
import { Pad } from "./pad.js";
import { Run, WORK, warmUp } from "./run.js";

const at = (id) => document.getElementById(id);
const pad = new Pad(at("pad"), recognise);
let device = null;
let run = null;
/** The picture of the drawing, and whether somebody is being asked what it is. */
let picture = null;
let asking = false;

const NO_WEBGPU = "This page computes on the GPU through WebGPU, which this browser does not offer. Recent versions of Chrome, Edge, "
  + "Safari and Firefox do, on most systems; the address must begin with https:// or be on localhost.";

start().catch(fail);

async function start() {
  pad.draw();
  show();
  if (!navigator.gpu) {
    at("status").textContent = "";
    return notice(NO_WEBGPU);
  }
  await initialise();
  device = await Device.connect();
  status("Compiling the kernels …");
  await warmUp(device);
  run = new Run(device, seed());
  at("train").disabled = at("restart").disabled = false;
  status("Ready.");
}

/** For scripts: the numbers of the run, and whether what is drawn has been answered. */
globalThis.osculant = {
  get answered() {
    return !asking;
  },
  get state() {
    return run && {
      seed: run.seed,
      work: WORK,
      training: run.training,
      finished: run.finished,
      lanes: run.lanes.map(({ key, seconds, losses, points }) => ({ key, seconds, losses, last: points.at(-1) ?? null })),
    };
  },
};

at("train").addEventListener("click", () => {
  if (run.training) {
    run.training = false;
  } else {
    train().catch(fail);
  }
});

at("restart").addEventListener("click", () => restart().catch(fail));
at("seed").addEventListener("change", () => restart().catch(fail));
at("clear").addEventListener("click", () => pad.clear());
at("axis").addEventListener("change", show);
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

function seed() {
  const field = at("seed");
  const { min, max } = field;
  field.value = Math.min(Math.max(Math.round(Number(field.value)) || 0, min), max);
  return Number(field.value);
}

async function train() {
  if (run.finished) await restart();
  const current = run;
  const done = current.train(() => {
    if (current !== run) return;
    show();
    recognise();
  });
  show();
  await done;
}

async function restart() {
  if (!device) return;
  const old = run;
  run = new Run(device, seed());
  await old.end();
  show();
  recognise();
}

function redraw() {
  show();
  pad.draw();
  showPicture(at("picture"), picture);
}

function show() {
  const axis = document.querySelector("#axis :checked").value;
  drawChart(at("chart"), run?.curves ?? {}, axis, WORK);
  at("standings").replaceChildren(...METHODS.map(standing));
  if (!run) return;
  at("train").textContent = run.training ? "Pause" : run.finished ? "Again" : run.lanes.some((lane) => lane.losses.length) ? "Go on" : "Train";
  if (run.training) status("Training; draw meanwhile.");
  else if (run.finished) status("Trained.");
}

function standing({ key, name }) {
  const lane = run?.lanes.find((lane) => lane.key === key);
  const point = lane?.points.at(-1);
  const loss = (value) => value.toPrecision(3);
  const cells = point
    ? [point.steps, point.steps ? (1000 * point.seconds / point.steps).toFixed(1) : "–", loss(point.trainLoss), loss(point.testLoss),
      `${(100 * point.accuracy).toFixed(1)} %`]
    : ["–", "–", "–", "–", "–"];
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.className = key;
  head.textContent = name;
  row.append(head, ...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  return row;
}

/** Asks both networks what the drawing is; while they are being asked, what is drawn on is asked next. */
async function recognise() {
  picture = device ? pictureOf(new Float32Array(pad.strokes.flat(2)), new Uint32Array(pad.strokes.map((stroke) => stroke.length))) : null;
  showPicture(at("picture"), picture);
  if (asking) return;
  asking = true;
  try {
    let asked;
    do {
      asked = picture;
      const found = asked && run ? await run.predict(asked) : {};
      showAnswers(at("answers"), at("probabilities"), found);
    } while (asked !== picture);
  } catch (error) {
    fail(error);
  } finally {
    asking = false;
  }
}

function status(text) {
  at("status").textContent = `${text} ${device?.name ? `Device: ${device.name}.` : ""}`;
}

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = false;
}

function fail(error) {
  console.error(error);
  status("Stopped.");
  notice(error.message ?? String(error));
}
