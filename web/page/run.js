// A run: both methods from one seed, turn by turn, until each has done its work.

import { Trainer } from "./bindings/osculant_web.js";
import { METHODS } from "./methods.js";
import { inTurn } from "./turns.js";

/** Work of each method, in gradients of all training pictures, and the distance between two evaluations. */
export const WORK = 60;
const DISTANCE = 0.5;

export class Run {
  constructor(device, seed) {
    this.seed = seed;
    this.training = false;
    this.ended = false;
    this.lanes = METHODS.map(({ key }) => ({
      key,
      trainer: new Trainer(device, key, seed),
      work: 0,
      seconds: 0,
      /** The loss of each step's mini-batch before the step. */
      losses: [],
      /** How well the network did on the way. */
      points: [],
    }));
  }

  /** Whether all work is done. */
  get finished() {
    return this.lanes.every((lane) => lane.work >= WORK);
  }

  /** The curves as far as they are known, by method. */
  get curves() {
    return Object.fromEntries(this.lanes.map(({ key, points }) => [key, points]));
  }

  /** Trains until the end, or until `training` is set to false; tells `watch` after each evaluation. */
  async train(watch) {
    this.training = true;
    for (const lane of this.lanes) {
      if (lane.points.length === 0) await this.turn(() => evaluate(lane));
    }
    watch();
    while (this.training && !this.finished) {
      // The method that is behind in work goes on, so that both curves grow side by side.
      const lane = this.lanes.reduce((a, b) => (b.work < a.work ? b : a));
      await this.turn(() => step(lane));
      if (lane.work >= Math.min(lane.points.at(-1).work + DISTANCE, WORK)) {
        await this.turn(() => evaluate(lane));
        watch();
      }
    }
    this.training = false;
    watch();
  }

  /** The probability of each digit for a picture, by method. */
  async predict(picture) {
    const found = {};
    for (const { key, trainer } of this.lanes) found[key] = await this.turn(() => trainer.predict(picture));
    return found;
  }

  /** Gives the memory back. Who still waits for a turn gets nothing. */
  async end() {
    this.training = false;
    await this.turn(() => {
      this.ended = true;
      this.lanes.forEach(({ trainer }) => trainer.free());
    });
  }

  turn(act) {
    return inTurn(() => (this.ended ? undefined : act()));
  }
}

async function step(lane) {
  const start = performance.now();
  lane.losses.push(await lane.trainer.step());
  lane.seconds += (performance.now() - start) / 1000;
  lane.work = lane.trainer.work;
}

async function evaluate({ trainer, work, seconds, points }) {
  const found = await trainer.evaluate();
  const { trainLoss, testLoss, accuracy } = found;
  found.free();
  points.push({ work, seconds, steps: trainer.steps, trainLoss, testLoss, accuracy });
}

/** Steps of runs that are thrown away: they compile the kernels, so that no curve has that in it. */
export async function warmUp(device) {
  for (const { key } of METHODS) {
    await inTurn(async () => {
      const trainer = new Trainer(device, key, 0);
      await trainer.step();
      (await trainer.evaluate()).free();
      trainer.free();
    });
  }
}
