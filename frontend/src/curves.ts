// Panels of line charts: cost, accuracy, walks, many seeds, the critical gain.

import { h, number } from "./dom";
import { LinePlot, type Series } from "./lines";
import type { Send } from "./link";
import { color, counting, legend, numbers, panel, press, selectedName, type Panel } from "./panel";
import { LETTERS, layerNames, list, shape, store } from "./store";
import { theme } from "./theme";

export function costPanel(): Panel {
  const plot = new LinePlot("Cost", "step", "cost", 310);
  plot.hint = "Press play to see it.";
  plot.logY = true;
  plot.logX = true;
  const draw = (): void => {
    plot.height = store.views.length > 2 ? 460 : 310;
    plot.series = store.views.map((view, i): Series => ({ label: store.views.length > 1 ? `${LETTERS[i]}` : "cost", color: color(i), x: list(view.frame, "cost_step") ?? [], y: list(view.frame, "cost") ?? [] }));
    plot.draw();
  };
  return panel({
    name: "cost",
    heading: "Cost",
    help: "How wrong the network is on the training points, step by step.",
    body: [legend(), plot.host, plot.readout],
    tools: [
      press("log steps", true, (on) => { plot.logX = on; draw(); }, "Logarithmic axis of steps"),
      press("log cost", true, (on) => { plot.logY = on; draw(); }, "Logarithmic axis of cost"),
    ],
    draw,
    sheet: () => plot.sheet(),
    plots: [plot],
  });
}

export function accuracyPanel(): Panel {
  const plot = new LinePlot("Accuracy", "step", "share correct", 190);
  plot.hint = "Press play to see it.";
  const draw = (): void => {
    plot.series = store.views.flatMap((view, i): Series[] => {
      const name = store.views.length > 1 ? (LETTERS[i] ?? "") : "training";
      const train: Series = { label: name, color: color(i), x: view.accuracy.step, y: view.accuracy.train };
      const held = view.accuracy.test.some(Number.isFinite);
      return held ? [train, { label: `${name === "training" ? "" : name + " "}test`, color: color(i), x: view.accuracy.step, y: view.accuracy.test, dash: [6, 4] }] : [train];
    });
    plot.draw();
  };
  return panel({
    name: "accuracy",
    heading: "Accuracy",
    help: "Share of points on the right side; dashed: points held back for testing.",
    body: [legend(), plot.host, plot.readout],
    draw,
    shown: () => store.runs[0]?.config["data"] !== "own",
    sheet: () => plot.sheet(),
    plots: [plot],
  });
}

export function walksPanel(send: Send): Panel {
  const forward = new LinePlot("Forward walk", "layer", "ln mean square of z", 210);
  const backward = new LinePlot("Backward walk", "layer", "ln ratio to the last layer", 210);
  forward.integers = backward.integers = true;
  const note = h("p", { class: "note" });
  const fill = (plot: LinePlot, key: "forward" | "backward"): void => {
    plot.height = store.views.length > 2 && innerWidth >= 2500 ? 330 : 210; // beside the boundaries of four runs
    const view = store.views[store.selected];
    plot.series = store.views.flatMap((v, i): Series[] => {
      const y = numbers(list(v.full, key));
      return y.length ? [{ label: store.views.length > 1 ? (LETTERS[i] ?? "") : "now", color: color(i), x: counting(y.length), y, points: y.length < 20 }] : [];
    });
    const band = numbers(list(view?.band, `band_${key}`));
    const count = band.length / 3;
    const x = counting(count);
    plot.bands = [];
    if (count) {
      const rows = x.map((_, i) => band.slice(3 * i, 3 * i + 3)).map((r, i) => ({ r, i })).filter(({ r }) => r.every(Number.isFinite));
      plot.bands = [{ color: theme().band, x: rows.map(({ i }) => i + 1), low: rows.map(({ r }) => r[0] ?? 0), high: rows.map(({ r }) => r[2] ?? 0) }];
      plot.series.push({ label: "predicted", color: theme().soft, x, y: x.map((_, i) => band[3 * i + 1] ?? NaN), dash: [3, 4], width: 1.5 });
    }
    const cloud = list(store.walks, key);
    const [rows, columns] = shape(store.walks, key);
    plot.clouds =
      cloud && rows && columns && Number(store.walks?.header["run"] ?? 0) === store.selected
        ? [{ color: theme().dark ? "rgba(232,237,244,.16)" : "rgba(27,36,48,.13)", x: counting(columns), rows: Array.from({ length: rows }, (_, i) => cloud.subarray(i * columns, (i + 1) * columns)) }]
        : [];
    const y = numbers(list(view?.full, key));
    plot.hint = y.length && !y.some(Number.isFinite) ? "Zero in every layer: ln 0 is below any axis." : "";
    plot.draw();
  };
  const ask = h("button", { class: "tool strong live-only", type: "button", title: "Draw the same network a hundred times", onclick: () => send({ type: "walks", run: store.selected, draws: 100 }) }, "100 walks");
  return panel({
    name: "walks",
    heading: "Walks of the signal and of the gradient",
    help: "The length of one sample's signal, and of its gradient, layer by layer on a log scale: level is good, a slope is trouble. The shaded band (±2σ) is predicted before any weight is drawn.",
    body: [legend(), note, h("div", { class: "row two" }, h("div", {}, h("h4", {}, "Forward: the signal"), forward.host, forward.readout), h("div", {}, h("h4", {}, "Backward: the gradient"), backward.host, backward.readout))],
    tools: [ask],
    draw: () => {
      fill(forward, "forward");
      fill(backward, "backward");
      const done = store.walks ? `${store.walks.header["done"]} of ${store.walks.header["draws"]} draws. ` : "";
      const start = store.views[store.selected]?.band?.header["start"] as { p: number | null; limit: string } | undefined;
      const fixed = start?.p === null && list(store.views[store.selected]?.band, "band_forward");
      note.textContent = done + (fixed ? `Dotted, without a band: ${start?.limit}.` : start && start.p === null ? `No band: ${start.limit}` : selectedName() ? `Band: ${selectedName()}.` : "");
    },
    sheet: () => {
      const names = layerNames(store.selected);
      const view = store.views[store.selected];
      const [f, b, bf, bb] = [list(view?.full, "forward"), list(view?.full, "backward"), list(view?.band, "band_forward"), list(view?.band, "band_backward")];
      return {
        columns: ["layer", "forward", "forward predicted low", "forward predicted high", "backward", "backward predicted low", "backward predicted high"],
        rows: names.map((n, i) => [n, f?.[i] ?? null, bf?.[3 * i] ?? null, bf?.[3 * i + 2] ?? null, b?.[i] ?? null, bb?.[3 * i] ?? null, bb?.[3 * i + 2] ?? null]),
      };
    },
    plots: [forward, backward],
    wide: true,
  });
}

export function seedsPanel(send: Send): Panel {
  const plot = new LinePlot("Twenty-five seeds", "step", "cost", 190);
  plot.logX = plot.logY = true;
  const note = h("p", { class: "note" }, "Not drawn yet.");
  return panel({
    name: "seeds",
    heading: "Is it luck? 25 seeds",
    help: "The same settings from 25 other draws of the weights, 200 steps each. A wide spread means luck.",
    body: [note, plot.host, plot.readout],
    tools: [h("button", { class: "tool strong live-only", type: "button", onclick: () => send({ type: "strip", run: store.selected, seeds: 25, steps: 200 }) }, "Run 25 seeds")],
    draw: () => {
      const cost = list(store.seeds, "cost");
      const [rows, columns] = shape(store.seeds, "cost");
      const x = numbers(list(store.seeds, "step"));
      const middle = list(store.seeds, "median");
      plot.clouds = cloudOf(cost, rows, columns, x);
      plot.series = middle ? [{ label: "median", color: color(store.selected), x, y: middle }] : [];
      if (cost) note.textContent = `${store.seeds?.header["done"]} of ${store.seeds?.header["seeds"]} seeds. ${store.seeds?.header["words"] ?? ""}`;
      else note.textContent = "Not drawn yet.";
      plot.draw();
    },
    sheet: () => {
      const cost = list(store.seeds, "cost");
      const [rows = 0, columns = 0] = shape(store.seeds, "cost");
      const x = numbers(list(store.seeds, "step"));
      return { columns: ["step", ...Array.from({ length: rows }, (_, i) => `seed ${i + 1}`)], rows: x.map((s, j) => [s, ...Array.from({ length: rows }, (_, i) => cost?.[i * columns + j] ?? null)]) };
    },
    plots: [plot],
  });
}

const cloudOf = (values: ReturnType<typeof list>, rows = 0, columns = 0, x: number[]): LinePlot["clouds"] =>
  values && rows && columns
    ? [{ color: theme().dark ? "rgba(232,237,244,.28)" : "rgba(27,36,48,.22)", x, rows: Array.from({ length: rows }, (_, i) => values.subarray(i * columns, (i + 1) * columns)) }]
    : [];

export function criticalPanel(send: Send): Panel {
  const plot = new LinePlot("Critical gain", "gain g", "drift per layer", 190);
  plot.logX = false;
  const note = h("p", { class: "note" }, "Not drawn yet.");
  return panel({
    name: "critical",
    heading: "Critical gain",
    help: "Weights of variance g²/n: below the critical gain signals fade with depth, above it they grow.",
    body: [note, plot.host, plot.readout],
    tools: [h("button", { class: "tool strong live-only", type: "button", onclick: () => send({ type: "critical", run: store.selected }) }, "Find it")],
    draw: () => {
      const x = numbers(list(store.critical, "gain"));
      const t = theme();
      plot.series = x.length
        ? [
            { label: "forward", color: t.runs[0] ?? "", x, y: numbers(list(store.critical, "forward")), points: true },
            { label: "backward", color: t.runs[1] ?? "", x, y: numbers(list(store.critical, "backward")), dash: [6, 4], points: true },
          ]
        : [];
      const predicted = store.critical?.header["predicted"] as number | null | undefined;
      plot.marks = x.length ? [{ y: 0, text: "", color: t.soft }, ...(predicted ? [{ x: predicted, text: `predicted ${number(predicted, 4)}`, color: t.ink }] : [])] : [];
      note.textContent = x.length ? "" : "Not drawn yet.";
      plot.draw();
    },
    sheet: () => plot.sheet(),
    plots: [plot],
  });
}
