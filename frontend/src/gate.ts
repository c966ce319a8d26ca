// What was drawn last: nothing is drawn again that would look the same. Software drawing is what a busy machine feels.

import { store } from "./store";

type Values = ArrayLike<number> | null | undefined;

/** Whether two lists of numbers agree within `tolerance`; NaN agrees with NaN, an infinity with itself. */
export function alike(a: Values, b: Values, tolerance: number): boolean {
  if (a === b) return true;
  if (!a || !b || a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) {
    const [u, v] = [a[i] as number, b[i] as number];
    if (!(Math.abs(u - v) <= tolerance) && !Object.is(u, v)) return false;
  }
  return true;
}

/** Lets a picture through when its key, the page's settings or its numbers have changed visibly since it was drawn. */
export class Gate {
  private key = "";
  private drawn: Values[] = [];

  /** Arrays are kept as they are, not copied: those of a frame never change. */
  open(key: string, parts: [values: Values, tolerance: number][]): boolean {
    const now = `${store.epoch} ${key}`;
    if (now === this.key && parts.length === this.drawn.length && parts.every(([v, t], i) => alike(v, this.drawn[i], t))) return false;
    this.key = now;
    this.drawn = parts.map(([v]) => v);
    return true;
  }
}
