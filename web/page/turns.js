// A trainer does one thing at a time: whoever wants something of one waits for a turn.

let last = Promise.resolve();

/** Calls `act` when everything before it has ended; the promise of its result. */
export function inTurn(act) {
  const result = last.then(act);
  last = result.catch(() => {});
  return result;
}
