// The methods that the page compares, in the order in which it names them.

export const METHODS = [
  { key: "newton-cg", name: "Newton-CG" },
  { key: "adam", name: "Adam" },
];

/** The colour of a method, or another one of the style sheet, as it is now. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
