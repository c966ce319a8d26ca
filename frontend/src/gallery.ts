// Scenes to open with one click, the guided tour, and the person's own points.

import { h, icon, say } from "./dom";
import type { Send } from "./link";
import { mark } from "./maps";
import { configure, store, type Scene } from "./store";
import { theme } from "./theme";


/** Put a scene on the page; it waits for play. */
export function openScene(scene: Scene, send: Send, selected: () => void): void {
  selected();
  store.pending = scene.selected;
  const defaults = store.hello?.defaults ?? {};
  send({ type: "pause" });
  configure(scene.runs.map((r) => ({ ...defaults, ...r })), send, true);
  send({ type: "speed", value: scene.speed });
  if (scene.task === "walks") send({ type: "walks", run: 0, draws: 100 });
  if (scene.task === "critical") send({ type: "critical", run: 0 });
  if (scene.task === "strip") send({ type: "strip", run: 0, seeds: 25, steps: 200 });
  say(`${scene.title}. ${scene.text}`);
}

export function scenesDialog(pick: (scene: Scene) => void): HTMLDialogElement {
  const body = h("div", { class: "dialog-body" });
  const dialog = h("dialog", { class: "wide", "aria-labelledby": "scenes-h" }, head("Scenes", "scenes-h", () => dialog.close()), body);
  dialog.addEventListener("toggle", () => fill());
  const fill = (): void => {
    const groups = new Map<string, Scene[]>();
    for (const scene of store.hello?.scenes ?? []) groups.set(scene.group, [...(groups.get(scene.group) ?? []), scene]);
    body.replaceChildren(
      ...[...groups].map(([group, scenes]) =>
        h("section", {}, h("h3", {}, group), h("div", { class: "cards" }, ...scenes.map((s) => h("button", { type: "button", class: "card", onclick: () => { dialog.close(); pick(s); } }, h("b", {}, s.title), h("span", {}, s.text))))),
      ),
    );
  };
  return Object.assign(dialog, { fill });
}

export function head(text: string, id: string, close: () => void): HTMLElement {
  return h("header", { class: "dialog-head" }, h("h2", { id }, text), h("button", { type: "button", class: "icon", "aria-label": "Close", onclick: close }, icon('<path d="M6 6l12 12M18 6L6 18" stroke="currentColor" stroke-width="2"/>')));
}

/** The article's story in seven steps; each asks for a prediction before it lets anybody press play. */
export class Tour {
  readonly element = h("aside", { class: "tour", hidden: true, "aria-labelledby": "tour-h" });
  private at = 0;
  private chosen: number | null = null;

  constructor(
    private readonly send: Send,
    private readonly selected: () => void,
    private readonly play: () => void,
  ) {}

  start(): void {
    this.go(0);
    this.element.hidden = false;
    this.element.scrollIntoView({ block: "nearest" });
  }

  close(): void {
    this.element.hidden = true;
  }

  private go(step: number): void {
    this.at = step;
    this.chosen = null;
    const tour = store.hello?.tour[step];
    const scene = store.hello?.scenes.find((s) => s.key === tour?.scene);
    if (scene) openScene(scene, this.send, this.selected);
    this.draw();
    this.element.querySelector<HTMLElement>("h2")?.focus();
  }

  private draw(): void {
    const steps = store.hello?.tour ?? [];
    const step = steps[this.at];
    if (!step) return;
    const answered = this.chosen !== null;
    this.element.replaceChildren(
      h(
        "header",
        { class: "tour-head" },
        h("ol", { class: "dots", "aria-label": `Step ${this.at + 1} of ${steps.length}` }, ...steps.map((s, i) => h("li", {}, h("button", { type: "button", "aria-label": `Step ${i + 1}: ${s.title}`, "aria-current": i === this.at ? "step" : undefined, onclick: () => this.go(i) })))),
        h("button", { type: "button", class: "icon", "aria-label": "End the tour", onclick: () => this.close() }, icon('<path d="M6 6l12 12M18 6L6 18" stroke="currentColor" stroke-width="2"/>')),
      ),
      h("h2", { id: "tour-h", tabindex: -1 }, `${this.at + 1}. ${step.title}`),
      h("p", {}, step.text),
      h("p", { class: "question" }, step.question),
      h(
        "div",
        { class: "options", role: "group", "aria-label": "Your prediction" },
        ...step.options.map((option, i) => {
          const state = !answered ? "" : i === step.answer ? " right" : i === this.chosen ? " wrong" : "";
          const sign = state === " right" ? "✓ " : state === " wrong" ? "✗ " : "";
          return h("button", { type: "button", class: `option${state}`, "aria-pressed": String(this.chosen === i), onclick: () => { this.chosen = i; this.draw(); this.element.querySelector<HTMLElement>(".go")?.focus(); } }, sign + option);
        }),
      ),
      h("div", { "aria-live": "polite" }, answered && h("p", { class: "reveal" }, h("b", {}, this.chosen === step.answer ? "You saw it coming. " : "Not quite. "), step.reveal)),
      h(
        "footer",
        {},
        h("button", { type: "button", disabled: this.at === 0, onclick: () => this.go(this.at - 1) }, "Back"),
        answered ? h("button", { type: "button", class: "go primary", onclick: () => this.play() }, "Press play and see") : h("span", { class: "note" }, "Predict first, then play."),
        this.at + 1 < steps.length ? h("button", { type: "button", onclick: () => this.go(this.at + 1) }, "Next") : h("button", { type: "button", onclick: () => this.close() }, "Done"),
      ),
    );
  }
}

/** Draw points with the mouse or the keys, paste a table, or open a file. */
export function pointsDialog(send: Send): HTMLDialogElement {
  const x: [number, number][] = [];
  const y: number[] = [];
  let klass = 0;
  const at = { x: 0, y: 0 };
  const canvas = h("canvas", { class: "pad", width: 640, height: 640, tabindex: 0, role: "application", "aria-label": "Drawing pad. Arrow keys move the cross, space sets a point, 1 and 2 choose the class." });
  const count = h("output", { "aria-live": "polite" }, "No points yet.");
  const draw = (): void => {
    const c = canvas.getContext("2d");
    if (!c) return;
    const t = theme();
    c.fillStyle = t.dark ? "#222b37" : "#f4f6f9";
    c.fillRect(0, 0, 640, 640);
    c.strokeStyle = t.grid;
    c.beginPath();
    c.moveTo(320, 0);
    c.lineTo(320, 640);
    c.moveTo(0, 320);
    c.lineTo(640, 320);
    c.stroke();
    x.forEach(([a, b], i) => mark(c, 320 + a * 53, 320 - b * 53, 9, y[i] ?? 0, false, t.dark));
    c.strokeStyle = t.ink;
    c.beginPath();
    const [cx, cy] = [320 + at.x * 53, 320 - at.y * 53];
    c.moveTo(cx - 10, cy);
    c.lineTo(cx + 10, cy);
    c.moveTo(cx, cy - 10);
    c.lineTo(cx, cy + 10);
    c.stroke();
    count.textContent = x.length ? `${x.length} points, ${new Set(y).size} classes` : "No points yet.";
  };
  const add = (a: number, b: number): void => {
    x.push([Number(a.toFixed(3)), Number(b.toFixed(3))]);
    y.push(klass);
    draw();
  };
  const place = (event: PointerEvent): void => {
    const box = canvas.getBoundingClientRect();
    at.x = (((event.clientX - box.left) / box.width) * 640 - 320) / 53;
    at.y = (320 - ((event.clientY - box.top) / box.height) * 640) / 53;
    const last = x.at(-1);
    if (!last || Math.hypot(last[0] - at.x, last[1] - at.y) > 0.35 || event.type === "pointerdown") add(at.x, at.y);
  };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    place(event);
  };
  canvas.onpointermove = (event) => event.buttons === 1 && place(event);
  canvas.onkeydown = (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (move) {
      at.x = Math.max(-6, Math.min(6, at.x + 0.3 * (move[0] ?? 0)));
      at.y = Math.max(-6, Math.min(6, at.y + 0.3 * (move[1] ?? 0)));
      draw();
    } else if (event.key === " " || event.key === "Enter") add(at.x, at.y);
    else if (event.key === "1" || event.key === "2") pick(Number(event.key) - 1);
    else return;
    event.preventDefault();
  };
  const classes = [0, 1].map((k) => h("button", { type: "button", "aria-pressed": String(k === 0), onclick: () => pick(k) }, k ? "Class 2: blue circles" : "Class 1: orange diamonds"));
  const pick = (k: number): void => {
    klass = k;
    classes.forEach((b, i) => b.setAttribute("aria-pressed", String(i === k)));
  };
  const text = h("textarea", { rows: 6, placeholder: "x1,x2,class\n0.5,1.2,a\n-1.0,0.3,b", "aria-label": "Table to paste" });
  const file = h("input", { type: "file", accept: ".csv,.tsv,.txt", "aria-label": "CSV file" });
  file.onchange = async () => {
    const chosen = file.files?.[0];
    if (!chosen) return;
    if (chosen.size > 512 * 1024) say(`${chosen.name} has ${chosen.size} bytes; at most 524288 are taken.`, "error");
    else text.value = await chosen.text();
  };
  const dialog = h(
    "dialog",
    { class: "wide", "aria-labelledby": "points-h" },
    head("Your own points", "points-h", () => dialog.close()),
    h(
      "div",
      { class: "dialog-body two" },
      h("section", {}, h("h3", {}, "Draw"), h("div", { class: "tools" }, ...classes, h("button", { type: "button", onclick: () => { x.length = y.length = 0; draw(); } }, "Clear")), canvas, count, h("button", { type: "button", class: "primary", onclick: () => { send({ type: "points", x, y }); dialog.close(); } }, "Use these points")),
      h("section", {}, h("h3", {}, "Paste or open a table"), h("p", { class: "note" }, "Numbers, and the class in the last column; a line of names is skipped. At most 10 000 rows and 512 KB."), text, file, h("button", { type: "button", class: "primary", onclick: () => { send({ type: "csv", text: text.value }); dialog.close(); } }, "Use this table")),
    ),
  );
  return Object.assign(dialog, { redraw: draw });
}
