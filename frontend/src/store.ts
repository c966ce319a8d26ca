// What the page knows. The server (or a recording) is the only source; the page only keeps and draws.

import { number } from "./dom";
import type { Frame, Numbers } from "./wire";

export type Config = Record<string, string | number | boolean | number[]>;
export interface RunState {
  config: Config;
  facts: Record<string, unknown>;
}
export interface Scene {
  key: string;
  group: string;
  title: string;
  text: string;
  runs: Config[];
  speed: number | string;
  task: string;
  selected: number;
}
export interface TourStep {
  title: string;
  text: string;
  question: string;
  options: string[];
  answer: number;
  reveal: string;
  scene: string;
}
export interface Hello {
  own: { title: string; loss: string } | null;
  max_runs: number;
  choices: Record<string, string[]>;
  ranges: Record<string, [number, number]>;
  defaults: Config;
  scheme_defaults: Record<string, Config>;
  labels: Record<string, string>;
  formulas: Record<string, string>;
  speeds: (number | string)[];
  scenes: Scene[];
  tour: TourStep[];
}
export interface Finding {
  code: string;
  severity: string;
  where: string;
  measured: string;
  meaning: string;
  fix: Config;
}

/** Everything about one run that was received last. */
export interface RunView {
  open: Frame | null;
  band: Frame | null;
  report: Frame | null;
  frame: Frame | null; // newest with the cost
  full: Frame | null; // newest with the layers
  accuracy: { step: number[]; train: number[]; test: number[] };
}

export const emptyView = (): RunView => ({
  open: null,
  band: null,
  report: null,
  frame: null,
  full: null,
  accuracy: { step: [], train: [], test: [] },
});

export const store = {
  hello: null as Hello | null,
  runs: [] as RunState[],
  views: [] as RunView[],
  playing: false,
  speed: 1 as number | string,
  selected: 0,
  pending: -1, // a run that was asked for and will be selected when it is there
  walks: null as Frame | null,
  seeds: null as Frame | null,
  critical: null as Frame | null,
  recorded: false,
  embed: false,
  connected: false,
  updates: 0, // frames that came
  drawn: 0, // redraws of the page that showed newer frames
  pictured: 0, // those of them that showed newer pictures of the layers
  busy: 0, // milliseconds spent on drawing
  stamp: 0, // number of the newest settings that were sent
  answered: 0, // number of the newest settings that the server has answered
  epoch: 0, // grows with every change of settings, theme or size: all pictures are then drawn anew
};

export const LETTERS = ["A", "B", "C", "D"];
/** Settings that all runs side by side share. */
export const SHARED = ["data", "noise", "count", "split", "data_seed", "seed"];

/**
 * Ask for settings. They count as set at once, so that a second change before the answer builds on the first; answers
 * to older settings are passed over. `fresh`: begin at step 0 whatever changed.
 */
export function configure(runs: Config[], send: (message: Record<string, unknown>) => void, fresh = false): void {
  store.stamp += 1;
  if (runs.length === store.runs.length) store.runs.forEach((run, i) => (run.config = { ...run.config, ...runs[i] }));
  send({ type: "configure", runs, stamp: store.stamp, ...(fresh ? { fresh } : {}) });
}

/** Take one binary frame in. Returns the names of the panels that it changes. */
export function take(frame: Frame): string[] {
  const header = frame.header;
  const index = Number(header["run"] ?? 0);
  const view = store.views[index];
  switch (header.type) {
    case "frame": {
      if (!view) return [];
      store.updates += 1;
      const before = Number(view.frame?.header["step"] ?? -1);
      const step = Number(header["step"]);
      if (step < before) view.accuracy = { step: [], train: [], test: [] };
      view.frame = frame;
      if (!header["full"]) return ["cost"];
      view.full = frame;
      note(view, step, header["scores"] as Record<string, number> | undefined);
      return ["cost", "boundary", "accuracy", "walks", "histograms", "network", "strip", "verdict"];
    }
    case "open":
      store.views[index] = { ...emptyView(), open: frame };
      store.walks = store.seeds = store.critical = null;
      return ["all"];
    case "band":
      if (view) view.band = frame;
      return ["walks", "start", "verdict", "critical"];
    case "report":
      if (view) view.report = frame;
      return ["verdict"];
    case "walks":
      store.walks = frame;
      return ["walks"];
    case "seeds":
      store.seeds = frame;
      return ["seeds"];
    case "critical":
      store.critical = frame;
      return ["critical"];
    default:
      return [];
  }
}

function note(view: RunView, step: number, scores: Record<string, number> | undefined): void {
  if (scores?.["accuracy"] === undefined) return;
  const a = view.accuracy;
  if (a.step.at(-1) === step) return;
  a.step.push(step);
  a.train.push(scores["accuracy"]);
  a.test.push(scores["test_accuracy"] ?? NaN);
  if (a.step.length > 800) for (const list of [a.step, a.train, a.test]) for (let i = list.length - 2; i > 0; i -= 2) list.splice(i, 1);
}

export const list = (frame: Frame | null | undefined, name: string): Numbers | null => frame?.arrays[name]?.data ?? null;
export const shape = (frame: Frame | null | undefined, name: string): number[] => frame?.arrays[name]?.shape ?? [];
export const layerNames = (index: number): string[] => (store.views[index]?.open?.header["layers"] as string[]) ?? [];
export const label = (name: unknown): string => store.hello?.labels[String(name)] ?? String(name).replace(/^./, (c) => c.toUpperCase());

/** A run in a few words. */
export function title(index: number): string {
  const c = store.runs[index]?.config;
  if (!c) return "";
  if (c["data"] === "own") return `${label(c["scheme"])}`;
  const widths = c["widths"] as number[];
  const even = !widths.length || widths.every((w) => w === widths[0]);
  const size = even ? `${widths.length || c["depth"]}×${widths[0] ?? c["width"]}` : widths.join("-");
  const scheme = ["gain", "identity", "constant"].includes(String(c["scheme"])) ? `${label(c["scheme"])} ${number(c["gain"])}` : label(c["scheme"]);
  const extra = [Number(c["residual"]) ? `η ${number(c["residual"])}` : "", c["normalization"] !== "none" ? `${c["normalization"]} norm` : ""].filter(Boolean);
  return [scheme, `${size} ${c["activation"]}`, ...extra].join(" · ");
}
