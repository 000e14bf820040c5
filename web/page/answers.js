// What the networks make of a drawing: the picture that they see, their answers, and how sure they are of each digit.

import { METHODS, colour } from "./methods.js";

const DIGITS = Array.from({ length: 10 }, (_, digit) => digit);

/** Shows an 8x8 picture of values from 0 to 1, or an empty one. */
export function showPicture(canvas, picture) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, 8, 8);
  context.fillStyle = colour("ink");
  picture?.forEach((value, place) => {
    context.globalAlpha = value;
    context.fillRect(place % 8, Math.floor(place / 8), 1, 1);
  });
}

/** Shows probabilities {key: [of each digit]}; those of a method may be missing. */
export function showAnswers(answers, bars, probabilities) {
  const given = METHODS.filter(({ key }) => probabilities[key]);
  answers.replaceChildren(...given.map(({ key, name }) => {
    const found = probabilities[key];
    const digit = found.indexOf(Math.max(...found));
    const share = Math.floor(found[digit] * 100);
    const lines = [name, `${share} %`].map((line) => element("small", {}, line));
    return element("div", {}, element("b", { class: key }, String(digit)), ...lines);
  }));
  bars.replaceChildren(...DIGITS.map((digit) => {
    const each = given.map(({ key, name }) => {
      const percent = probabilities[key][digit] * 100;
      return element("i", { class: key, style: `height: ${percent}%`, title: `${name}: ${percent.toFixed(1)} %` });
    });
    return element("div", {}, element("div", { class: "bars" }, ...each), String(digit));
  }));
}

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
