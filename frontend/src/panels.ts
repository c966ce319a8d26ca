// The panels: each a heading, a picture, the picture as a table, and ways to take it along.

import { download, h, icon, number, percent, put } from "./dom";
import { Gate } from "./gate";
import { LinePlot, type Series, type Sheet } from "./lines";
import * as maps from "./maps";
import { sheets } from "./svg";
import { LETTERS, layerNames, list, shape, store, title } from "./store";
import { theme } from "./theme";

export interface Panel {
  name: string; // as in the server's list, so that nothing is computed that nobody sees
  element: HTMLElement;
  draw(): void;
  shown(): boolean;
}

interface Content {
  name: string;
  heading: string;
  help: string;
  body: (HTMLElement | SVGElement)[];
  tools?: HTMLElement[];
  draw(): void;
  shown?(): boolean;
  sheet(): Sheet;
  plots?: LinePlot[];
  pictures?: () => ((target: maps.Target) => void)[]; // drawings that are no line charts
  canvases?: () => HTMLCanvasElement[];
  wide?: boolean;
}

const TABLE_ROWS = 40;
const PICTURE_WIDTH = 480; // of a drawing in an SVG file

function panel(content: Content): Panel {
  const table = h("div", { class: "table", hidden: true, tabindex: 0, role: "region", "aria-label": `${content.heading} as a table` });
  const id = `panel-${content.name}`;
  const switcher = h("button", { class: "tool", type: "button", "aria-pressed": "false", title: "Show the numbers as a table" }, "Table");
  const fill = (): void => {
    const sheet = content.sheet();
    const every = Math.max(1, Math.ceil(sheet.rows.length / TABLE_ROWS));
    const rows = sheet.rows.filter((_, i) => i % every === 0 || i === sheet.rows.length - 1);
    table.replaceChildren(
      h(
        "table",
        {},
        h("caption", {}, `${content.heading}${every > 1 ? ` (every ${every}th row; the CSV file has all)` : ""}`),
        h("thead", {}, h("tr", {}, ...sheet.columns.map((c) => h("th", { scope: "col" }, c)))),
        h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((v) => h("td", {}, typeof v === "string" ? v : number(v, 4)))))),
      ),
    );
  };
  let redrawn = 0;
  switcher.onclick = () => {
    table.hidden = !table.hidden;
    switcher.setAttribute("aria-pressed", String(!table.hidden));
    if (!table.hidden) fill();
  };
  const element = h(
    "section",
    { class: `panel${content.wide ? " wide" : ""}`, id, "aria-labelledby": `${id}-h`, "data-panel": content.name },
    h(
      "header",
      {},
      h("h3", { id: `${id}-h` }, content.heading),
      h("div", { class: "tools" }, ...(content.tools ?? []), switcher, saver(content)),
    ),
    h("p", { class: "help" }, content.help),
    ...content.body,
    table,
  );
  return {
    name: content.name,
    element,
    shown: content.shown ?? (() => true),
    draw: () => {
      content.draw();
      const now = performance.now();
      if (!table.hidden && now - redrawn > 1000) {
        redrawn = now;
        fill();
      }
    },
  };
}

function saver(content: Content): HTMLElement {
  const file = `firstlight-${content.name}`;
  const canvases = (): HTMLCanvasElement[] => content.canvases?.() ?? (content.plots ?? []).map((p) => p.canvas()).filter((c): c is HTMLCanvasElement => !!c);
  const save = {
    PNG: () => compose(canvases(), content.heading).toBlob((blob) => blob && download(`${file}.png`, blob)),
    SVG: () => download(`${file}.svg`, content.plots ? stacked(content.plots) : sheets(content.pictures?.() ?? [], content.heading, PICTURE_WIDTH), "image/svg+xml"),
    CSV: () => download(`${file}.csv`, csv(content.sheet()), "text/csv"),
  };
  const box = h("details", { class: "menu" }, h("summary", { class: "tool", "aria-label": `Save ${content.heading}` }, "Save"));
  box.append(
    h(
      "div",
      { class: "items" },
      ...Object.entries(save).map(([kind, run]) =>
        h("button", { type: "button", onclick: () => { run(); box.open = false; } }, kind),
      ),
    ),
  );
  return box;
}

export function compose(canvases: HTMLCanvasElement[], heading: string): HTMLCanvasElement {
  const t = theme();
  const gap = 16;
  const out = h("canvas");
  out.width = canvases.reduce((sum, c) => sum + c.width + gap, gap) || 300;
  out.height = Math.max(0, ...canvases.map((c) => c.height)) + 56;
  const c = out.getContext("2d");
  if (!c) return out;
  c.fillStyle = t.paper;
  c.fillRect(0, 0, out.width, out.height);
  c.fillStyle = t.ink;
  c.font = "600 22px system-ui, sans-serif";
  c.fillText(heading, gap, 32);
  let x = gap;
  for (const canvas of canvases) {
    c.drawImage(canvas, x, 44);
    x += canvas.width + gap;
  }
  return out;
}

const stacked = (plots: LinePlot[]): string =>
  plots.length === 1 && plots[0]
    ? plots[0].svg()
    : `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 ${360 * plots.length}">${plots.map((p, i) => `<svg y="${360 * i}" width="640" height="360">${p.svg()}</svg>`).join("")}</svg>`;
const csv = (sheet: Sheet): string =>
  [sheet.columns, ...sheet.rows].map((row) => row.map((v) => (typeof v === "string" && /[",\n]/.test(v) ? `"${v.replace(/"/g, '""')}"` : (v ?? ""))).join(",")).join("\n") + "\n";

const color = (index: number): string => theme().runs[index] ?? theme().ink;
const numbers = (values: ArrayLike<number> | null): number[] => (values ? Array.from(values) : []);
const counting = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1);
const bins = (index: number): [number, number, number] => (store.views[index]?.open?.header["bins"] as [number, number, number]) ?? [-10, 5, 30];
const selectedName = (): string => (store.runs.length > 1 ? `Run ${LETTERS[store.selected]}: ${title(store.selected)}` : "");

function press(text: string, pressed: boolean, change: (now: boolean) => void, describe = ""): HTMLButtonElement {
  const button = h("button", { class: "tool", type: "button", "aria-pressed": String(pressed), title: describe }, text);
  button.onclick = () => {
    const now = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(now));
    change(now);
  };
  return button;
}

export function makePanels(send: (message: Record<string, unknown>) => void): Panel[] {
  return [boundaryPanel(), costPanel(), walksPanel(send), histogramPanel(), networkPanel(), stripPanel(), startPanel(), accuracyPanel(), seedsPanel(send), criticalPanel(send)];
}

function costPanel(): Panel {
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

const legends: HTMLElement[] = [];
function legend(): HTMLElement {
  const box = h("div", { class: "legend" });
  legends.push(box);
  return box;
}

export function drawLegends(): void {
  for (const box of legends)
    box.replaceChildren(
      ...(store.runs.length > 1 ? store.runs.map((_, i) => h("span", {}, h("i", { style: `background:${color(i)}` }), `${LETTERS[i]} ${title(i)}`)) : []),
    );
}

function accuracyPanel(): Panel {
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

function boundaryPanel(): Panel {
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
      const x = list(open, "points");
      return { columns: ["x₁", "x₂", "class"], rows: numbers(list(open, "labels")).map((k, i) => [x?.[2 * i] ?? 0, x?.[2 * i + 1] ?? 0, k]) };
    },
  });
}

function walksPanel(send: (m: Record<string, unknown>) => void): Panel {
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
        columns: ["layer", "forward", "predicted low", "predicted high", "backward", "predicted low", "predicted high"],
        rows: names.map((n, i) => [n, f?.[i] ?? null, bf?.[3 * i] ?? null, bf?.[3 * i + 2] ?? null, b?.[i] ?? null, bb?.[3 * i] ?? null, bb?.[3 * i + 2] ?? null]),
      };
    },
    plots: [forward, backward],
    wide: true,
  });
}

function histogramPanel(): Panel {
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

function networkPanel(): Panel {
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

function stripPanel(): Panel {
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
  forward: "signal keeps its size",
  backward: "gradient keeps its size",
  alive: "no layer is dead",
  distinguishable: "inputs stay distinct",
  range: "numbers fit their type",
};
interface Start {
  p: number | null;
  limit: string;
  where: string;
  parts: Record<string, number>;
}

function startPanel(): Panel {
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

function seedsPanel(send: (m: Record<string, unknown>) => void): Panel {
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

function criticalPanel(send: (m: Record<string, unknown>) => void): Panel {
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

export const chevron = (): SVGSVGElement => icon('<path d="M6 9l6 6 6-6" fill="none" stroke="currentColor" stroke-width="2"/>', 16);
