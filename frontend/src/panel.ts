// The frame of a panel: a heading, a picture, the picture as a table, and ways to take it along.

import { download, h, number } from "./dom";
import type { LinePlot, Sheet } from "./lines";
import type * as maps from "./maps";
import { sheets } from "./svg";
import { LETTERS, store, title } from "./store";
import { theme } from "./theme";

export interface Panel {
  name: string; // as in the server's list, so that nothing is computed that nobody sees
  element: HTMLElement;
  draw(): void;
  shown(): boolean;
}

/** What a panel is made of; `panel` adds the table and the files. */
export interface Content {
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

export function panel(content: Content): Panel {
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

function compose(canvases: HTMLCanvasElement[], heading: string): HTMLCanvasElement {
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

export const color = (index: number): string => theme().runs[index] ?? theme().ink;
export const numbers = (values: ArrayLike<number> | null): number[] => (values ? Array.from(values) : []);
export const counting = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1);
export const bins = (index: number): [number, number, number] => (store.views[index]?.open?.header["bins"] as [number, number, number]) ?? [-10, 5, 30];
export const selectedName = (): string => (store.runs.length > 1 ? `Run ${LETTERS[store.selected]}: ${title(store.selected)}` : "");

/** A button that stays pressed. */
export function press(text: string, pressed: boolean, change: (now: boolean) => void, describe = ""): HTMLButtonElement {
  const button = h("button", { class: "tool", type: "button", "aria-pressed": String(pressed), title: describe }, text);
  button.onclick = () => {
    const now = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(now));
    change(now);
  };
  return button;
}

const legends: HTMLElement[] = [];
export function legend(): HTMLElement {
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
