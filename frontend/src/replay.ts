// A recorded run: the frames that were kept, under a scrubber.

import { h, icon } from "./dom";
import { ICONS } from "./icons";
import type { Recorded } from "./link";
import { store, take } from "./store";
import type { Frame } from "./wire";

/** What the page does with messages; a recording sends it the same ones as a server. */
export interface Page {
  text(message: Record<string, unknown> & { type: string }): void;
  frame(frame: Frame): void;
  refresh(...names: string[]): void;
  moment(): string; // in words
}

const PACE_MS = 100; // between frames when played

export class Scrubber {
  private readonly scrub = h("input", { type: "range", id: "scrub", min: "0", value: "0" });
  private readonly run = h("button", { type: "button", class: "primary", onclick: () => this.toggle() });
  readonly element = h("div", { class: "scrubber" }, this.run, h("label", { for: "scrub" }, "Moment"), this.scrub);
  private frames: Frame[][] = [];
  private last = 0;
  private timer = 0;

  constructor(private readonly page: Page) {
    this.label();
    this.scrub.oninput = () => {
      this.stop();
      this.show(Number(this.scrub.value));
    };
  }

  open(kept: Recorded): void {
    this.page.text({ type: "hello", ...kept.hello });
    this.page.text({ type: "state", ...kept.state });
    for (const kind of ["open", "band", "report"]) store.runs.forEach((_, i) => kept.slots.get(`${kind}${i}`)?.slice(-1).forEach(this.page.frame));
    for (const slot of ["walks", "strip", "critical"]) kept.slots.get(slot)?.slice(-1).forEach(this.page.frame);
    this.frames = store.runs.map((_, i) => kept.slots.get(`run${i}`) ?? []);
    this.last = Math.max(0, ...this.frames.map((f) => f.length - 1));
    this.scrub.max = String(this.last);
    // accuracy over time is gathered from all frames once, so that it is there at every moment
    for (const list of this.frames) for (const frame of list) take(frame);
    const curves = store.views.map((v) => structuredClone(v.accuracy));
    this.show(this.last);
    store.views.forEach((v, i) => (v.accuracy = curves[i] ?? v.accuracy));
    this.page.refresh("all");
  }

  private show(at: number): void {
    this.scrub.value = String(at);
    for (const list of this.frames) {
      const frame = list[Math.min(list.length - 1, at)];
      if (frame) this.page.frame(frame);
    }
    this.scrub.setAttribute("aria-valuetext", this.page.moment());
  }

  private toggle(): void {
    if (this.timer) return this.stop();
    if (Number(this.scrub.value) >= this.last) this.scrub.value = "0";
    this.timer = window.setInterval(() => {
      const next = Number(this.scrub.value) + 1;
      if (next > this.last) this.stop();
      else this.show(next);
    }, PACE_MS);
    this.label();
  }

  private stop(): void {
    clearInterval(this.timer);
    this.timer = 0;
    this.label();
  }

  private label(): void {
    this.run.replaceChildren(icon(this.timer ? ICONS.pause : ICONS.play), h("span", {}, this.timer ? "Pause" : "Play"));
  }
}
