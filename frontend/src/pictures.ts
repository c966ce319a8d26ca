// Panels of drawings: decision boundary, histograms, the network, its layers as a strip, P(start).

import { h, percent, put } from "./dom";
import { Gate } from "./gate";
import type { Sheet } from "./lines";
import * as maps from "./maps";
import { bins, color, numbers, panel, press, selectedName, type Panel } from "./panel";
import { LETTERS, layerNames, list, shape, store } from "./store";

export function boundaryPanel(): Panel {
  const row = h("div", { class: "row maps" });
  let cells: { box: HTMLElement; canvas: HTMLCanvasElement; caption: HTMLElement; gate: Gate }[] = [];
  const planar = (): boolean => store.views.some((v) => v.open?.header["window"]);
  const picture = (i: number) => (target: maps.Target): void => {
    const view = store.views[i];
    const window = view?.open?.header["window"] as [number[], number[]] | undefined;
    if (!view || !window) return;
    const classes = (store.runs[i]?.facts["classes"] as string[] | undefined) ?? [];
    const points = { x: list(view.open, "points"), y: list(view.open, "labels"), testX: list(view.open, "test_points"), testY: list(view.open, "test_labels"), window };
    maps.boundary(target, list(view.full, "boundary"), shape(view.full, "boundary")[0] ?? 0, points, classes.length <= 2);
  };
  const draw = (): void => {
    if (cells.length !== store.views.length) {
      cells = store.views.map((_, i) => {
        const canvas = h("canvas", { class: "square", role: "img", "aria-label": `Decision boundary of run ${LETTERS[i]}` });
        const caption = h("figcaption", {});
        return { canvas, caption, gate: new Gate(), box: h("figure", {}, canvas, caption) };
      });
      row.replaceChildren(...cells.map((c) => c.box));
    }
    row.dataset["count"] = String(cells.length);
    store.views.forEach((view, i) => {
      const cell = cells[i];
      if (!cell || !view.open) return;
      // a step of 1/200 is less than one of the screen's 256 shades
      if (cell.gate.open(`${cell.canvas.clientWidth}`, [[list(view.full, "boundary"), 0.005]])) picture(i)(cell.canvas);
      const scores = view.full?.header["scores"] as Record<string, number> | undefined;
      put(cell.caption, `${store.views.length > 1 ? LETTERS[i] + " · " : ""}${percent(scores?.["accuracy"])} right`);
    });
  };
  return panel({
    name: "boundary",
    heading: "Decision boundary",
    help: "What the network says at every place. Diamonds on orange, circles on blue: learned. Hollow points are held back.",
    body: [row],
    draw,
    shown: planar,
    pictures: () => store.views.map((_, i) => picture(i)),
    canvases: () => cells.map((c) => c.canvas),
    sheet: () => {
      const open = store.views[0]?.open;
      const rows: Sheet["rows"] = [];
      for (const [what, points, labels] of [["point", "points", "labels"], ["held back", "test_points", "test_labels"]] as const) {
        const x = list(open, points);
        numbers(list(open, labels)).forEach((k, i) => rows.push([what, x?.[2 * i] ?? 0, x?.[2 * i + 1] ?? 0, k]));
      }
      store.views.forEach((view, run) => {
        const [values, side] = [list(view.full, "boundary"), shape(view.full, "boundary")[0] ?? 0];
        const [low, high] = (view.open?.header["window"] as [number[], number[]] | undefined) ?? [[], []];
        const at = (axis: number, i: number): number => (low[axis] ?? 0) + (((high[axis] ?? 0) - (low[axis] ?? 0)) * i) / (side - 1);
        numbers(values).forEach((v, i) => rows.push([`run ${LETTERS[run]} says`, at(0, i % side), at(1, Math.floor(i / side)), v]));
      });
      return { columns: ["what", "x₁", "x₂", "class"], rows };
    },
  });
}

export function histogramPanel(): Panel {
  const [act, grad] = [0, 1].map((i) => h("canvas", { class: "full", role: "img", "aria-label": i ? "Sizes of gradients by layer" : "Sizes of activations by layer" })) as [HTMLCanvasElement, HTMLCanvasElement];
  const gates = [new Gate(), new Gate()];
  const data = (kind: "act" | "grad"): maps.Histogram => {
    const view = store.views[store.selected];
    return { shares: list(view?.full, `${kind}_hist`), zero: list(view?.full, `${kind}_zero`), bad: list(view?.full, `${kind}_bad`), layers: shape(view?.full, `${kind}_hist`)[0] ?? 0, bins: bins(store.selected) };
  };
  const name = h("p", { class: "note" });
  return panel({
    name: "histograms",
    heading: "Activations and gradients by layer",
    help: "Sizes of the entries on one log axis. Zeros, and NaN or infinite entries, are counted in rows of their own.",
    body: [name, h("div", { class: "row two" }, h("div", {}, h("h4", {}, "|activation|"), act), h("div", {}, h("h4", {}, "|∂cost/∂z|"), grad))],
    draw: () => {
      put(name, selectedName());
      [act, grad].forEach((canvas, i) => {
        const shown = data(i ? "grad" : "act");
        // a bar as wide as its layer's place stands for the largest share, a fifth or so: half a pixel of sixty
        if (gates[i]?.open(`${canvas.clientWidth}`, [[shown.shares, 0.002], [shown.zero, 0.005], [shown.bad, 0]])) maps.histogram(canvas, shown, color(store.selected));
      });
    },
    pictures: () => (["act", "grad"] as const).map((kind) => (target) => maps.histogram(target, data(kind), color(store.selected))),
    canvases: () => [act, grad],
    sheet: () => {
      const [a, g] = [data("act"), data("grad")];
      const [low, high, count] = a.bins;
      const rows: Sheet["rows"] = [];
      layerNames(store.selected).forEach((layer, i) => {
        rows.push([layer, "zero", a.zero?.[i] ?? 0, g.zero?.[i] ?? 0], [layer, "NaN or infinite", a.bad?.[i] ?? 0, g.bad?.[i] ?? 0]);
        for (let b = 0; b < count; b++) {
          const [x, y] = [a.shares?.[i * count + b] ?? 0, g.shares?.[i * count + b] ?? 0];
          if (x || y) rows.push([layer, `10^${(low + ((high - low) * b) / count).toFixed(1)}`, x, y]);
        }
      });
      return { columns: ["layer", "size from", "share of activations", "share of gradients"], rows };
    },
    wide: true,
  });
}

export function networkPanel(): Panel {
  let gradients = false;
  const gate = new Gate();
  const canvas = h("canvas", { class: "full", role: "img", "aria-label": "Drawing of the network: weights as lines" });
  const name = h("p", { class: "note" });
  const values = (): ReturnType<typeof list> => list(store.views[store.selected]?.full, gradients ? "weight_grads" : "weights");
  const picture = (target: maps.Target): void => {
    const [shown, shapes] = [values(), list(store.views[store.selected]?.full, "weight_shapes")];
    if (shown && shapes) maps.network(target, shapes, shown);
  };
  const draw = (): void => {
    put(name, selectedName());
    const shown = values();
    if (!shown) return;
    let most = 0;
    for (const v of shown) if (Number.isFinite(v)) most = Math.max(most, Math.abs(v));
    // lines are up to 4.5 pixels thick
    if (gate.open(`${canvas.clientWidth} ${gradients}`, [[shown, most / 100], [[Math.log(most)], 0.02]])) picture(canvas);
  };
  return panel({
    name: "network",
    heading: "Network",
    help: "Every line a weight: orange positive, blue negative, thick large.",
    body: [name, canvas],
    tools: [press("gradients", false, (on) => { gradients = on; draw(); }, "Show the gradients of the weights instead")],
    draw,
    shown: () => {
      const full = store.views[store.selected]?.full;
      return !full || !!list(full, "weights") || Number(store.runs[store.selected]?.facts["parameters"] ?? 0) < 1000;
    },
    pictures: () => [picture],
    canvases: () => [canvas],
    sheet: () => {
      const full = store.views[store.selected]?.full;
      const [w, g, s] = [list(full, "weights"), list(full, "weight_grads"), list(full, "weight_shapes")];
      const rows: Sheet["rows"] = [];
      let at = 0;
      for (let layer = 0; s && layer < s.length / 2; layer++)
        for (let o = 0; o < (s[2 * layer] ?? 0); o++)
          for (let i = 0; i < (s[2 * layer + 1] ?? 0); i++, at++) rows.push([layer + 1, i + 1, o + 1, w?.[at] ?? null, g?.[at] ?? null]);
      return { columns: ["layer", "from unit", "to unit", "weight", "gradient"], rows };
    },
  });
}

export function stripPanel(): Panel {
  const gate = new Gate();
  const canvas = h("canvas", { class: "full", role: "img", "aria-label": "Layers of the network as a strip of colours" });
  const name = h("p", { class: "note" });
  const rows = (): { name: string; values: ReturnType<typeof list>; kind: "signed" | "share" }[] => {
    const full = store.views[store.selected]?.full;
    return [
      { name: "ln signal", values: list(full, "forward"), kind: "signed" },
      { name: "ln gradient", values: list(full, "backward"), kind: "signed" },
      { name: "units always 0", values: list(full, "zero_units"), kind: "share" },
      { name: "saturated", values: list(full, "saturated"), kind: "share" },
      { name: "units alike", values: list(full, "same_units"), kind: "share" },
    ];
  };
  return panel({
    name: "strip",
    heading: "Layers at a glance",
    help: "Every column a layer. Pale is level, blue faded, orange grown, black zero, red not finite; below, shares from dark (none) to yellow (all).",
    body: [name, canvas],
    draw: () => {
      put(name, selectedName());
      const shown = rows();
      // the colours of signed rows reach their end at ±20, those of shares at 1
      if (gate.open(`${canvas.clientWidth}`, shown.map((r) => [r.values, r.kind === "share" ? 0.005 : 0.1]))) maps.strip(canvas, shown, layerNames(store.selected).length);
    },
    pictures: () => [(target) => maps.strip(target, rows(), layerNames(store.selected).length)],
    canvases: () => [canvas],
    sheet: () => ({ columns: ["layer", ...rows().map((r) => r.name)], rows: layerNames(store.selected).map((n, i) => [n, ...rows().map((r) => r.values?.[i] ?? null)]) }),
  });
}

const PARTS: Record<string, string> = {
  forward: "signal stays in bounds",
  backward: "a small step stays small",
  alive: "no layer is dead",
  distinguishable: "inputs are told apart",
  range: "numbers fit their type",
};
interface Start {
  p: number | null;
  limit: string;
  where: string;
  parts: Record<string, number>;
}

export function startPanel(): Panel {
  const box = h("div", { class: "start" });
  const starts = (): (Start | undefined)[] => store.views.map((v) => v.band?.header["start"] as Start | undefined);
  const picture = (target: maps.Target): void => {
    const start = starts()[store.selected];
    const rows = Object.entries({ "P(start)": start?.p ?? 0, ...start?.parts });
    maps.bars(target, rows.map(([name, p]) => ({ name: PARTS[name] ?? name, share: p, text: percent(p) })), color(store.selected));
  };
  return panel({
    name: "start",
    heading: "P(start)",
    help: "Probability, over draws of the weights, that nothing stands in the way of learning. Predicted before the first step.",
    body: [box],
    draw: () => {
      const start = starts()[store.selected];
      if (!start) return box.replaceChildren(h("p", { class: "note" }, "Predicting …"));
      if (start.p === null) return box.replaceChildren(h("p", { class: "note" }, `No prediction: ${start.limit}`));
      box.replaceChildren(
        h("p", { class: "big" }, percent(start.p), h("small", {}, ` ${selectedName()}`)),
        h("p", { class: "note" }, start.where ? `${start.limit} (${start.where})` : `${start.limit}.`),
        h(
          "ul",
          { class: "bars" },
          ...Object.entries(start.parts).map(([name, p]) =>
            h("li", {}, h("span", {}, PARTS[name] ?? name), h("span", { class: "track" }, h("i", { style: `width:${100 * p}%` })), h("b", {}, percent(p))),
          ),
        ),
      );
      return undefined;
    },
    sheet: () => ({
      columns: ["run", "P(start)", ...Object.values(PARTS)],
      rows: starts().map((s, i) => [LETTERS[i] ?? "", s?.p ?? null, ...Object.keys(PARTS).map((k) => s?.parts?.[k] ?? null)]),
    }),
    pictures: () => [picture],
    canvases: () => {
      const canvas = h("canvas", { class: "full", style: "position:fixed;left:0;width:640px;visibility:hidden" });
      document.body.append(canvas); // a picture is as wide as its place on the page
      picture(canvas);
      canvas.remove();
      return [canvas];
    },
  });
}
