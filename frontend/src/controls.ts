// The left rail: data, network, initialization, training. Every change goes to the server, which answers with the state.

import { h, icon, number, whole } from "./dom";
import type { Send } from "./link";
import { LETTERS, SHARED, configure, label, store, title, type Config } from "./store";
import { theme } from "./theme";


const DOT = (x: number, y: number, kind: number): string =>
  kind ? `<circle cx="${x}" cy="${y}" r="1.9" fill="var(--blue)"/>` : `<rect x="${x - 1.6}" y="${y - 1.6}" width="3.2" height="3.2" fill="var(--orange)"/>`;
const ring = (r: number, n: number, kind: number): string =>
  Array.from({ length: n }, (_, i) => DOT(16 + r * Math.cos((i * 6.283) / n), 16 + r * Math.sin((i * 6.283) / n), kind)).join("");
const TEXT = (text: string): string => `<text x="16" y="21" text-anchor="middle" font-size="13" font-weight="600" fill="currentColor">${text}</text>`;
const PICTURES: Record<string, string> = {
  circle: ring(12, 12, 0) + ring(4, 5, 1),
  moon: [0, 1, 2, 3, 4].map((i) => DOT(6 + 4 * i, 18 - 9 * Math.sin((i * 3.1) / 4), 0) + DOT(10 + 4 * i, 15 + 9 * Math.sin((i * 3.1) / 4), 1)).join(""),
  square: [[8, 8, 0], [11, 11, 0], [22, 22, 0], [25, 25, 0], [22, 9, 1], [25, 7, 1], [8, 23, 1], [11, 21, 1]].map(([x, y, k]) => DOT(x ?? 0, y ?? 0, k ?? 0)).join(""),
  gaussian: [[21, 8], [24, 12], [19, 12], [25, 7], [22, 15]].map(([x, y]) => DOT(x ?? 0, y ?? 0, 0)).join("") + [[8, 21], [11, 24], [7, 25], [12, 19], [10, 17]].map(([x, y]) => DOT(x ?? 0, y ?? 0, 1)).join(""),
  spiral: Array.from({ length: 9 }, (_, i) => [DOT(16 + 1.4 * i * Math.cos(i * 0.7), 16 + 1.4 * i * Math.sin(i * 0.7), 0), DOT(16 - 1.4 * i * Math.cos(i * 0.7), 16 - 1.4 * i * Math.sin(i * 0.7), 1)].join("")).join(""),
  digits: TEXT("8×8"),
  mnist: TEXT("28²"),
  custom: '<path d="M7 25l3-8L21 6l5 5-11 11z" fill="none" stroke="currentColor" stroke-width="2"/>',
  own: '<path d="M16 4l11 6v12l-11 6-11-6V10z" fill="none" stroke="currentColor" stroke-width="2"/>',
};
const RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];
const BATCHES = [0, 1, 10, 25, 50, 100, 250];

export class Controls {
  readonly element = h("fieldset", { class: "rail-fields" }, h("legend", { class: "hidden" }, "Settings"));
  private sync: (() => void)[] = [];
  private built = "";

  constructor(
    private readonly send: Send,
    private readonly openPoints: () => void,
  ) {}

  /** Show the settings of the selected run; build the fields when they are first known. */
  draw(): void {
    if (!store.hello || !store.runs[store.selected]) return;
    const own = String(!!store.hello.own);
    if (this.built !== own) {
      this.built = own;
      this.build();
    }
    for (const call of this.sync) call();
  }

  private config = (): Config => store.runs[store.selected]?.config ?? {};

  /** Change settings of the selected run, or of all where all must share them. */
  change = (changes: Config): void => {
    const shared = Object.fromEntries(Object.entries(changes).filter(([name]) => SHARED.includes(name)));
    const runs = store.runs.map((run, i) => {
      const config: Config = { ...run.config, ...shared, ...(i === store.selected ? changes : {}) };
      if (i === store.selected) {
        if (("depth" in changes || "width" in changes) && !("widths" in changes)) config["widths"] = [];
        if ("scheme" in changes && changes["scheme"] !== run.config["scheme"]) Object.assign(config, store.hello?.scheme_defaults[String(changes["scheme"])], changes);
      }
      return config;
    });
    configure(runs, this.send);
  };

  private build(): void {
    this.sync = [];
    const own = !!store.hello?.own;
    this.element.replaceChildren(
      h("legend", { class: "hidden" }, "Settings"),
      this.whose(),
      ...(own ? [this.ownGroup()] : []),
      this.group("Initialization", this.schemes(own), this.law()),
      this.group("Data", this.pictures(own), ...this.dataFields()),
      this.ours(this.group("Network", ...this.networkFields())),
      this.group("Training", ...this.trainingFields()),
    );
  }

  /** Show something only while the run trains a network of ours: what a person brought has a shape of its own. */
  private ours(element: HTMLElement): HTMLElement {
    this.sync.push(() => (element.hidden = this.config()["data"] === "own"));
    return element;
  }

  private group(name: string, ...content: HTMLElement[]): HTMLElement {
    return h("section", { class: "group" }, h("h2", {}, name), ...content);
  }

  private whose(): HTMLElement {
    const box = h("p", { class: "whose" });
    this.sync.push(() => {
      box.hidden = store.runs.length < 2;
      box.replaceChildren(h("i", { style: `background:${theme().runs[store.selected]}` }), `Settings of run ${LETTERS[store.selected]}; data and seed are shared.`);
    });
    return box;
  }

  private ownGroup(): HTMLElement {
    const own = store.hello?.own;
    return this.group("Your model", h("p", { class: "note" }, `${own?.title}; loss: ${own?.loss}.`));
  }

  private pictures(own: boolean): HTMLElement {
    const names = (store.hello?.choices["data"] ?? []).filter((n) => n !== "own" || own);
    const buttons = names.map((name) =>
      h(
        "button",
        {
          type: "button",
          class: "picture",
          "data-set": "data",
          "data-value": name,
          "aria-pressed": "false",
          onclick: () => (name === "custom" ? this.openPoints() : this.change({ data: name, ...(name === "own" ? { scheme: "given" } : {}) })),
        },
        icon(PICTURES[name] ?? "", 32, 32),
        h("span", {}, label(name)),
      ),
    );
    this.sync.push(() => buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(names[i] === this.config()["data"]))));
    return h("div", { class: "pictures", role: "group", "aria-label": "Data set" }, ...buttons);
  }

  private dataFields(): HTMLElement[] {
    const facts = h("p", { class: "note" });
    this.sync.push(() => {
      const f = store.runs[0]?.facts ?? {};
      facts.textContent = String(f["source"] ?? "");
    });
    return [...[this.slider("noise", "Noise", 0, 3, 0.1), this.slider("count", "Points", 20, 1000, 20), this.slider("split", "Held back for testing", 0, 0.8, 0.1)].map((f) => this.ours(f)), facts];
  }

  private networkFields(): HTMLElement[] {
    const widths = h("input", { type: "text", inputMode: "numeric", id: "f-widths", autocomplete: "off" });
    widths.onchange = () => {
      const list = widths.value.split(/[^\d]+/).filter(Boolean).map(Number);
      if (list.length) this.change({ widths: list, depth: list.length, width: list[0] ?? 1 });
    };
    this.sync.push(() => {
      const c = this.config();
      const list = (c["widths"] as number[]) ?? [];
      if (document.activeElement !== widths) widths.value = (list.length ? list : Array<number>(Math.min(Number(c["depth"]), 12)).fill(Number(c["width"]))).slice(0, 12).join(", ") + ((list.length || Number(c["depth"])) > 12 ? ", …" : "");
      widths.disabled = (list.length || Number(c["depth"])) > 12;
    });
    const count = h("p", { class: "note" });
    this.sync.push(() => (count.textContent = `${whole(Number(store.runs[store.selected]?.facts["parameters"] ?? 0))} parameters`));
    return [
      this.slider("depth", "Hidden layers", 1, 200, 1, (c) => (c["widths"] as number[]).length || Number(c["depth"])),
      this.slider("width", "Units per layer", 1, 512, 1, (c) => (c["widths"] as number[])[0] ?? Number(c["width"])),
      h("label", { class: "field", for: "f-widths" }, h("span", {}, "Layer by layer"), widths),
      this.select("activation", "Activation"),
      this.slider("residual", "Residual branch weight η", 0, 1.5, 0.05),
      this.select("normalization", "Normalization"),
      this.check("bias", "Biases"),
      count,
    ];
  }

  private schemes(own: boolean): HTMLElement {
    const names = (store.hello?.choices["scheme"] ?? []).filter((n) => n !== "given" || own);
    const items = names.map((name) => {
      const input = h("input", { type: "radio", name: "scheme", value: name, onchange: () => this.change({ scheme: name }) });
      return { name, input, row: h("label", { class: "scheme" }, input, h("span", { class: "name" }, schemeName(name)), h("code", {}, store.hello?.formulas[name] ?? "")) };
    });
    this.sync.push(() => {
      for (const item of items) {
        item.input.checked = item.name === this.config()["scheme"];
        item.row.classList.toggle("chosen", item.input.checked);
      }
    });
    return h("div", { class: "schemes", role: "radiogroup", "aria-label": "Scheme" }, ...items.map((i) => i.row));
  }

  private law(): HTMLElement {
    const sd = h("p", { class: "law", "aria-live": "polite" });
    const v = this.value("variance_scale", "Variance × n");
    const g = this.value("gain", "Value");
    this.sync.push(() => {
      const scheme = String(this.config()["scheme"]);
      v.hidden = !["too-small", "too-large"].includes(scheme);
      g.hidden = !["gain", "constant", "identity"].includes(scheme);
      const name = g.querySelector("span");
      if (name) name.textContent = scheme === "gain" ? "Gain g" : scheme === "constant" ? "Value of every weight" : "Value on the diagonal";
      const formula = store.views[store.selected]?.open?.header["formula"] as { text: string; meaning: string; scheme: string; laws: { fan_in: number | null; sd: number; mean: number; gain: number | null }[] } | undefined;
      if (!formula) return;
      const seen = new Map<string, string>();
      for (const law of formula.laws) {
        const n = law.fan_in === null ? "" : `n = ${law.fan_in}`;
        seen.set(n + number(law.sd), `${number(law.sd)}${n ? ` (${n}${law.gain ? `, g = ${number(law.gain, 4)}` : ""})` : ""}`);
      }
      const auto = scheme === "auto" ? `Chosen: ${formula.scheme}. ` : "";
      sd.textContent = `${auto}${formula.text}. ${formula.meaning ? formula.meaning + " " : ""}Standard deviation ${[...seen.values()].slice(0, 4).join(", ")}${seen.size > 4 ? ", …" : ""}`;
    });
    return h("div", {}, v, g, sd);
  }

  private trainingFields(): HTMLElement[] {
    return [
      this.number("learning_rate", "Learning rate", RATES),
      this.select("optimizer", "Optimizer"),
      this.ours(this.number("batch", "Batch", BATCHES, (n) => (n === 0 ? "all points" : String(n)))),
      this.ours(this.select("loss", "Loss", (n) => (n === "auto" ? "Auto" : label(n)))),
    ];
  }

  private slider(name: string, text: string, low: number, high: number, step: number, read = (c: Config): number => Number(c[name])): HTMLElement {
    const range = h("input", { type: "range", min: String(low), max: String(high), step: String(step), id: `f-${name}` });
    const exact = h("input", { type: "number", class: "exact", step: "any", "aria-label": `${text}, exact value` });
    const send = (value: string): void => {
      if (value !== "" && Number.isFinite(Number(value))) this.change({ [name]: Number(value) });
    };
    let waiting = 0;
    range.oninput = () => {
      exact.value = range.value;
      clearTimeout(waiting);
      waiting = window.setTimeout(() => send(range.value), 120);
    };
    exact.onchange = () => send(exact.value);
    this.sync.push(() => {
      const value = read(this.config());
      if (document.activeElement !== range) range.value = String(value);
      if (document.activeElement !== exact) exact.value = String(Number(value.toPrecision(6)));
    });
    return h("div", { class: "field range" }, h("label", { for: `f-${name}` }, text), exact, range);
  }

  private select(name: string, text: string, show: (n: string) => string = (n) => (name === "activation" ? n : label(n))): HTMLElement {
    const select = h("select", { id: `f-${name}`, onchange: () => this.change({ [name]: select.value }) });
    select.append(...(store.hello?.choices[name] ?? []).map((n) => h("option", { value: n }, show(n))));
    this.sync.push(() => (select.value = String(this.config()[name])));
    return h("label", { class: "field", for: `f-${name}` }, h("span", {}, text), select);
  }

  private number(name: string, text: string, values: number[], show: (n: number) => string = (n) => number(n)): HTMLElement {
    const select = h("select", { id: `f-${name}`, onchange: () => this.change({ [name]: Number(select.value) }) });
    this.sync.push(() => {
      const now = Number(this.config()[name]);
      const all = values.includes(now) ? values : [...values, now].sort((a, b) => a - b);
      if (select.options.length !== all.length || !Array.from(select.options).some((o) => Number(o.value) === now)) select.replaceChildren(...all.map((v) => h("option", { value: String(v) }, show(v))));
      select.value = String(now);
    });
    return h("label", { class: "field", for: `f-${name}` }, h("span", {}, text), select);
  }

  private value(name: string, text: string): HTMLElement {
    const input = h("input", { type: "number", step: "any", id: `f-${name}` });
    input.onchange = () => input.value !== "" && this.change({ [name]: Number(input.value) });
    this.sync.push(() => {
      if (document.activeElement !== input) input.value = String(this.config()[name]);
    });
    return h("label", { class: "field", for: `f-${name}` }, h("span", {}, text), input);
  }

  private check(name: string, text: string): HTMLElement {
    const input = h("input", { type: "checkbox", id: `f-${name}`, onchange: () => this.change({ [name]: input.checked }) });
    this.sync.push(() => (input.checked = this.config()[name] === true));
    return h("label", { class: "field check", for: `f-${name}` }, h("span", {}, text), input);
  }
}

// the law box below says the rest
const schemeName = (name: string): string => (name === "auto" ? "Auto" : name === "identity" ? "Identity times c" : label(name));

/** The runs side by side: choose one to edit, add one, take one away. */
export function drawRuns(box: HTMLElement, send: Send, select: (index: number) => void): void {
  const most = store.hello?.max_runs ?? 4;
  const configs = (): Config[] => store.runs.map((r) => r.config);
  box.replaceChildren(
    ...store.runs.map((_, i) =>
      h(
        "span",
        { class: `run-tab${i === store.selected ? " chosen" : ""}` },
        h("button", { type: "button", "aria-pressed": String(i === store.selected), onclick: () => select(i) }, h("i", { style: `background:${theme().runs[i]}` }), h("b", {}, LETTERS[i] ?? ""), h("span", {}, title(i))),
        store.runs.length > 1 && !store.recorded &&
          h("button", { type: "button", class: "close", "aria-label": `Remove run ${LETTERS[i]}`, onclick: () => { select(0); configure(configs().filter((_c, j) => j !== i), send); } }, "×"),
      ),
    ),
    ...(store.runs.length < most && !store.recorded
      ? [h("button", { type: "button", class: "add", onclick: () => { const runs = configs(); const copy = runs[store.selected] ?? runs[0]; if (copy) { store.pending = runs.length; configure([...runs, copy], send); } } }, "+ Compare")]
      : []),
  );
}
