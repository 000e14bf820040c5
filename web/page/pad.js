// A paper to draw on: strokes of a mouse, a pen or a finger.

import { fresh } from "./canvas.js";
import { colour } from "./methods.js";

/** Width of a line, over that of the paper. */
const PEN = 0.06;

export class Pad {
  /** Calls `changed` after each piece of a stroke. */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.strokes = [];
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.strokes.push([]);
      this.extend(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) this.extend(event);
    });
  }

  extend(event) {
    const box = this.canvas.getBoundingClientRect();
    this.strokes.at(-1).push([event.clientX - box.left, event.clientY - box.top]);
    this.draw();
    this.changed();
  }

  clear() {
    this.strokes = [];
    this.draw();
    this.changed();
  }

  draw() {
    const { context, width } = fresh(this.canvas);
    context.strokeStyle = colour("ink");
    context.lineWidth = PEN * width;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of this.strokes) {
      context.beginPath();
      context.moveTo(...stroke[0]);
      // Through the middles between points, so that the line has no corners.
      stroke.forEach((point, index) => context.quadraticCurveTo(...point, ...middle(point, stroke[index + 1] ?? point)));
      context.stroke();
    }
  }
}

const middle = (a, b) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
