// The page: puts the parts together, takes messages in, draws at most once a frame and only what is in sight.

import "uplot/dist/uPlot.min.css";
import "./style.css";
import { Controls, drawRuns } from "./controls";
import { download, h, icon, number, percent, put, say, whole } from "./dom";
import { Tour, head, openScene, pointsDialog, scenesDialog } from "./gallery";
import { connect, connectParent, recording, type Link, type Recorded } from "./link";
import { drawLegends, makePanels, type Panel } from "./panels";
import { LETTERS, configure, emptyView, store, take, title, type Config, type Finding, type Hello, type RunState } from "./store";
import { applyTheme, onThemeChange, theme, toggleTheme } from "./theme";
import type { Frame } from "./wire";

const ICONS = {
  play: '<path d="M7 4l14 8-14 8z" fill="currentColor"/>',
  pause: '<path d="M6 4h4v16H6zM14 4h4v16h-4z" fill="currentColor"/>',
  step: '<path d="M5 4l10 8-10 8zM17 4h3v16h-3z" fill="currentColor"/>',
  reset: '<path d="M5 12a7 7 0 1 0 2.5-5.4M8 2v5h5" fill="none" stroke="currentColor" stroke-width="2"/>',
  dice: '<rect x="4" y="4" width="16" height="16" rx="3" fill="none" stroke="currentColor" stroke-width="2"/><circle cx="9" cy="9" r="1.6" fill="currentColor"/><circle cx="15" cy="15" r="1.6" fill="currentColor"/><circle cx="15" cy="9" r="1.6" fill="currentColor"/><circle cx="9" cy="15" r="1.6" fill="currentColor"/>',
  theme: '<path d="M12 3a9 9 0 1 0 0 18z" fill="currentColor"/><circle cx="12" cy="12" r="9" fill="none" stroke="currentColor" stroke-width="2"/>',
};
// word of the verdict -> how it looks; the sign says the same as the colour
const SIGNS: Record<string, [string, string]> = {
  learned: ["good", "✓"],
  healthy: ["good", "↘"],
  starting: ["calm", "…"],
  plateau: ["warn", "―"],
  oscillating: ["warn", "∿"],
  saturated: ["warn", "⊓"],
  "dead units": ["bad", "†"],
  symmetric: ["bad", "="],
  "non-finite": ["bad", "∞"],
};

let link: Link = { send: () => undefined };
const send = (message: Record<string, unknown>): void => {
  if (message["type"] === "configure") waiting(true);
  link.send(message);
};
/** What stands on the page is of the settings before: pale until the answer to the newest ones is there. */
const waiting = (on: boolean): void => void document.body.classList.toggle("waiting", on);
let panels: Panel[] = [];
const dirty = new Set<string>();
const visible = new Set<string>();
let asked = false;

function refresh(...names: string[]): void {
  for (const name of names) dirty.add(name);
  if (names.includes("all") || names.includes("state")) store.epoch += 1;
  if (!asked) {
    asked = true;
    requestAnimationFrame(draw);
  }
}

function draw(): void {
  const began = performance.now();
  asked = false;
  drawDirty();
  store.busy += performance.now() - began;
}

function drawDirty(): void {
  const all = dirty.has("all");
  if (dirty.has("cost")) {
    store.drawn += 1;
    if (dirty.has("verdict")) store.pictured += 1;
  }
  if (all || dirty.has("state")) drawState();
  if (all || dirty.has("verdict") || dirty.has("cost")) drawVerdicts(all || dirty.has("verdict"));
  for (const panel of panels) {
    const shown = panel.shown();
    if (panel.element.hidden === shown) panel.element.hidden = !shown;
    if (shown && visible.has(panel.name) && (all || dirty.has(panel.name))) {
      panel.draw();
      dirty.delete(panel.name);
    }
  }
  for (const name of ["all", "state", "verdict", "cost"]) dirty.delete(name);
  if (all) for (const panel of panels) if (!visible.has(panel.name)) dirty.add(panel.name);
}

// --- the frame of the page ---------------------------------------------------------------------------------------

const button = (text: string, inside: string, run: () => void, extra: Record<string, unknown> = {}): HTMLButtonElement =>
  h("button", { type: "button", onclick: run, ...extra }, inside ? icon(inside) : null, h("span", {}, text));

const playButton = button("Play", ICONS.play, () => send({ type: store.playing ? "pause" : "play" }), { class: "primary play", title: "Play or pause (space)" });
const steps = h("output", { class: "steps", "aria-label": "Step" }, "step 0");
const seed = h("input", { type: "number", id: "seed", min: "0", step: "1" });
seed.onchange = () => seed.value !== "" && controls.change({ seed: Math.max(0, Math.round(Number(seed.value))) });
const speeds = h("div", { class: "segments", role: "group", "aria-label": "Speed, in steps a tick" });
const runsBox = h("div", { class: "runs", role: "group", "aria-label": "Runs side by side" });
const verdicts = h("section", { class: "verdicts", "aria-label": "Verdict" });
const tour = new Tour(send, () => choose(0), () => send({ type: "play" }));
const points = pointsDialog(send) as HTMLDialogElement & { redraw(): void };
const controls = new Controls(send, () => {
  points.showModal();
  points.redraw();
});
const scenes = scenesDialog((scene) => openScene(scene, send, () => choose(0))) as HTMLDialogElement & { fill(): void };
const code = h("pre", { tabindex: 0 });
const codeDialog = h(
  "dialog",
  { "aria-labelledby": "code-h" },
  head("This run in PyTorch", "code-h", () => codeDialog.close()),
  h("div", { class: "dialog-body" }, h("p", { class: "note" }, "The same data, weights and steps, from the same seed."), code, button("Copy", "", () => copy(code.textContent ?? ""), { class: "primary" })),
);

function choose(index: number): void {
  store.selected = index;
  refresh("all");
}

function share(): HTMLElement {
  const box = h("details", { class: "menu share" }, h("summary", {}, "Share"));
  const item = (text: string, note: string, run: () => void): HTMLElement =>
    h("button", { type: "button", onclick: () => { box.open = false; run(); } }, h("b", {}, text), h("small", {}, note));
  box.append(
    h(
      "div",
      { class: "items" },
      item("Copy link", "these settings, for firstlight playground --link", () => copy(stateLink())),
      item("Save as one HTML file", "the run with a scrubber, works offline", () => send({ type: "share" })),
      item("PyTorch code", "repeats the run with the same seed", () => send({ type: "export", run: store.selected })),
    ),
  );
  return box;
}

function copy(text: string): void {
  const done = (): void => say("Copied.");
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => say(text));
  else say(text);
}

/** The address of these settings: no token in it, so that it can be given away. */
function stateLink(): string {
  const defaults = store.hello?.defaults ?? {};
  const runs = store.runs.map((run) => Object.fromEntries(Object.entries(run.config).filter(([k, v]) => JSON.stringify(v) !== JSON.stringify(defaults[k]))));
  return `${location.origin}${location.pathname}#runs=${encodeURIComponent(JSON.stringify(runs))}&speed=${store.speed}`;
}

function openLink(): void {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const scene = store.hello?.scenes.find((s) => s.key === wanted.get("scene"));
  if (scene) openScene(scene, send, () => choose(0));
  const text = wanted.get("runs");
  if (text) {
    try {
      const runs = JSON.parse(text) as Config[];
      configure(runs.map((r) => ({ ...store.hello?.defaults, ...r })), send, true);
    } catch {
      say("The address holds no readable settings.", "error");
    }
  }
  const speed = wanted.get("speed");
  if (speed) send({ type: "speed", value: speed === "max" ? speed : Number(speed) });
  if (wanted.get("play") === "1") send({ type: "play" });
  if (wanted.get("tour") === "1") tour.start();
}

function build(): void {
  store.embed = new URLSearchParams(location.search).get("embed") === "1";
  document.body.classList.toggle("embed", store.embed);
  document.body.classList.toggle("recorded", store.recorded);
  panels = makePanels(send);
  const grid = h("div", { class: "grid" }, ...panels.map((p) => p.element));
  const rail = h("details", { class: "rail", open: true }, h("summary", {}, "Settings"), controls.element);
  const app = document.getElementById("app");
  app?.replaceChildren(
    h("a", { class: "skip", href: "#main" }, "Skip to the charts"),
    h(
      "header",
      { class: "top" },
      h("h1", {}, icon('<path d="M3 17h18" stroke="currentColor" stroke-width="2" stroke-linecap="round"/><path d="M6 17a6 6 0 0 1 12 0z" fill="#e69f00"/><path d="M12 3v4M4.5 7.5l2.4 2.4M19.5 7.5l-2.4 2.4" stroke="#e69f00" stroke-width="2" stroke-linecap="round"/>', 26), h("span", {}, "firstlight ", h("small", {}, store.recorded ? "recording" : "playground"))),
      h(
        "div",
        { class: "transport live-only", role: "group", "aria-label": "Training" },
        playButton,
        button("Step", ICONS.step, () => send({ type: "step", count: 1 }), { title: "One step (.)" }),
        button("Reset", ICONS.reset, () => send({ type: "reset" }), { title: "Back to step 0 with the same seed (r)" }),
        speeds,
        h("label", { class: "seed", for: "seed" }, "Seed", seed),
        button("New seed", ICONS.dice, () => send({ type: "new_seed" }), { title: "Draw other weights (n)" }),
      ),
      steps,
      h(
        "div",
        { class: "more" },
        button("Tour", "", () => tour.start(), { class: "live-only" }),
        button("Scenes", "", () => { scenes.fill(); scenes.showModal(); }, { class: "live-only" }),
        h("span", { class: "live-only" }, share()),
        h("button", { type: "button", class: "icon", "aria-label": "Dark or light", onclick: () => { toggleTheme(); refresh("all"); } }, icon(ICONS.theme)),
      ),
    ),
    h("div", { class: "page" }, h("nav", { class: "rail-box", "aria-label": "Settings" }, rail), h("main", { id: "main" }, tour.element, runsBox, verdicts, ...(store.recorded ? [scrubber] : []), grid)),
    h("p", { id: "status", role: "status", "aria-live": "polite" }),
    scenes,
    points,
    codeDialog,
  );
  if (store.recorded) rail.open = matchMedia("(min-width: 1000px)").matches;
  else if (!matchMedia("(min-width: 1000px)").matches) rail.open = false;
  watch();
}

/** Tell the server which panels are in sight, so that it spends nothing on the others. */
function watch(): void {
  let waiting = 0;
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const name = (entry.target as HTMLElement).dataset["panel"] ?? "";
        if (entry.isIntersecting) visible.add(name);
        else visible.delete(name);
      }
      refresh("seen");
      clearTimeout(waiting);
      waiting = window.setTimeout(tellPanels, 150);
    },
    { rootMargin: "80px" },
  );
  for (const panel of panels) observer.observe(panel.element);
  document.addEventListener("visibilitychange", () => send({ type: "visible", value: document.visibilityState === "visible" }));
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll<HTMLDetailsElement>("details.menu[open]")) if (!menu.contains(event.target as Node)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (event.key === "Escape") for (const menu of document.querySelectorAll<HTMLDetailsElement>("details.menu[open]")) menu.open = false;
    if (event.ctrlKey || event.metaKey || event.altKey || store.recorded || document.querySelector("dialog[open]")) return;
    if (target.closest("input, select, textarea, button, summary, a, [role=application]")) return;
    const command = { " ": { type: store.playing ? "pause" : "play" }, ".": { type: "step", count: 1 }, r: { type: "reset" }, n: { type: "new_seed" } }[event.key];
    if (!command) return;
    event.preventDefault();
    send(command);
  });
}

const SERVED = ["cost", "boundary", "network", "strip", "histograms", "walks"];
let told = "";
function tellPanels(): void {
  const names = [...visible].filter((n) => SERVED.includes(n)).sort();
  if (names.join() === told || store.recorded) return;
  told = names.join();
  send({ type: "panels", names });
}

// --- drawing ---------------------------------------------------------------------------------------------------

function drawState(): void {
  applyTheme();
  controls.draw();
  controls.element.disabled = store.recorded;
  drawRuns(runsBox, send, choose);
  drawLegends();
  playButton.replaceChildren(icon(store.playing ? ICONS.pause : ICONS.play), h("span", {}, store.playing ? "Pause" : "Play"));
  playButton.setAttribute("aria-pressed", String(store.playing));
  if (document.activeElement !== seed) seed.value = String(store.runs[0]?.config["seed"] ?? 0);
  if (speeds.childElementCount !== (store.hello?.speeds.length ?? 0))
    speeds.replaceChildren(...(store.hello?.speeds ?? []).map((s) => h("button", { type: "button", "data-speed": String(s), onclick: () => send({ type: "speed", value: s }) }, s === "max" ? "max" : `${s}×`)));
  for (const b of speeds.children) b.setAttribute("aria-pressed", String((b as HTMLElement).dataset["speed"] === String(store.speed)));
}

interface Card {
  box: HTMLElement;
  word: HTMLElement;
  evidence: HTMLElement;
  fix: HTMLButtonElement;
  cost: HTMLElement;
  accuracy: HTMLElement;
  start: HTMLElement;
  before: HTMLElement;
  shown: string;
}
let cards: Card[] = [];
let spoken = "";

function makeCard(i: number): Card {
  const [word, evidence, cost, accuracy, start, before] = ["strong", "p", "dd", "dd", "dd", "div"].map((t) => h(t as "p"));
  const fix = h("button", { type: "button", class: "fix live-only", hidden: true });
  const box = h(
    "article",
    { class: "verdict", "aria-labelledby": `verdict-${i}` },
    h("h2", { id: `verdict-${i}`, class: "hidden" }, `Verdict on run ${LETTERS[i]}`),
    h("div", { class: "line" }, word as HTMLElement, fix),
    evidence as HTMLElement,
    h("dl", {}, h("div", {}, h("dt", {}, "cost"), cost as HTMLElement), h("div", {}, h("dt", {}, "right"), accuracy as HTMLElement), h("div", {}, h("dt", {}, "P(start)"), start as HTMLElement)),
    before as HTMLElement,
  );
  return { box, word, evidence, fix, cost, accuracy, start, before, shown: "" } as Card;
}

function drawVerdicts(full: boolean): void {
  if (cards.length !== store.views.length) {
    cards = store.views.map((_, i) => makeCard(i));
    verdicts.dataset["count"] = String(cards.length);
    verdicts.replaceChildren(...cards.map((c) => c.box));
    full = true;
  }
  put(steps, `step ${whole(Math.max(0, ...store.views.map((v) => Number(v.frame?.header["step"] ?? 0))))}`);
  store.views.forEach((view, i) => {
    const card = cards[i];
    if (!card) return;
    const initial = Number(view.frame?.header["step"] ?? 0) === 0 ? view.full?.header["first_cost"] : undefined;
    put(card.cost, initial !== undefined ? number(initial, 4) : view.frame && view.frame.header["cost_now"] === null && Number(view.frame.header["step"]) > 0 ? "not finite" : number(view.frame?.header["cost_now"], 4));
    if (!full) return;
    const status = view.full?.header["status"] as { word: string; evidence: string; code: string } | undefined;
    const scores = view.full?.header["scores"] as Record<string, number> | undefined;
    const start = view.band?.header["start"] as { p: number | null } | undefined;
    put(card.accuracy, percent(scores?.["accuracy"]));
    const scored = store.runs[i]?.config["data"] !== "own";
    if (card.accuracy.parentElement) card.accuracy.parentElement.hidden = !scored;
    put(card.start, start ? percent(start.p) : "…");
    const run = theme().runs[i] ?? "";
    if (card.box.style.getPropertyValue("--run") !== run) card.box.style.setProperty("--run", run);
    const [tone, sign] = SIGNS[status?.word ?? "starting"] ?? ["calm", ""];
    if (card.box.dataset["tone"] !== tone) card.box.dataset["tone"] = tone;
    const many = store.views.length > 1;
    put(card.word, `${many ? LETTERS[i] + " " : ""}${sign} ${status?.word ?? "…"}`);
    put(card.evidence, status?.evidence ?? "");
    card.fix.hidden = !status?.code;
    put(card.fix, status?.code === "rate" ? "Fix: a tenth of the learning rate" : "Fix: another initialization");
    card.fix.onclick = () => {
      send({ type: "fix", run: i, code: status?.code ?? "" });
      say("The settings were changed; press play to see.");
    };
    const report = view.report?.header as { verdict: string; headline: string; step: number; findings: Finding[] } | undefined;
    const key = report ? JSON.stringify([report.step, report.verdict, report.findings]) : "";
    if (key !== card.shown || !key) {
      card.shown = key;
      drawReport(card.before, report, i);
    }
  });
  const text = cards.map((c, i) => `Run ${LETTERS[i]}: ${c.word.textContent}`).join(". ");
  if (full && text !== spoken) {
    spoken = text;
    verdicts.setAttribute("aria-label", `Verdict. ${text}`);
  }
}

function drawReport(box: HTMLElement, report: { verdict: string; headline: string; step: number; findings: Finding[] } | undefined, run: number): void {
  if (!report) return box.replaceChildren();
  const found = report.findings;
  const when = report.step ? `At step ${report.step}` : "Before training";
  box.replaceChildren(
    h(
      "details",
      { class: "report" },
      h("summary", {}, h("b", {}, `${when}: ${report.verdict}`), found[0] ? ` · ${found[0].code} ${found[0].measured}` : ` · ${report.headline || "nothing found"}`),
      h(
        "ul",
        {},
        ...found.map((f) =>
          h(
            "li",
            { "data-severity": f.severity },
            h("b", {}, `${f.code} `),
            `${f.measured}${f.where ? ` (${f.where})` : ""}. ${f.meaning}`,
            Object.keys(f.fix).length > 0 && h("button", { type: "button", class: "tool live-only", onclick: () => send({ type: "fix", run, code: f.code }) }, "Fix"),
          ),
        ),
      ),
      h("button", { type: "button", class: "tool live-only", onclick: () => send({ type: "diagnose", run }) }, "Check again now"),
    ),
  );
}

// --- messages --------------------------------------------------------------------------------------------------

function onText(message: Record<string, unknown> & { type: string }): void {
  switch (message.type) {
    case "hello":
      store.hello = message as unknown as Hello;
      break;
    case "state": {
      const runs = message["runs"] as RunState[];
      store.playing = Boolean(message["playing"]);
      store.speed = message["speed"] as number | string;
      store.answered = Number(message["stamp"] ?? 0);
      if (store.answered < store.stamp) {
        refresh("state"); // newer settings are on their way; this answers older ones
        break;
      }
      waiting(false);
      if (runs.length !== store.runs.length) store.views = runs.map((_, i) => store.views[i] ?? emptyView());
      store.runs = runs;
      if (store.pending >= 0 && store.pending < runs.length) store.selected = store.pending;
      store.pending = -1;
      store.selected = Math.min(store.selected, runs.length - 1);
      refresh("state", "verdict");
      break;
    }
    case "error":
      waiting(false);
      say(String(message["text"]), "error");
      refresh("state");
      break;
    case "export":
      code.textContent = String(message["code"]);
      codeDialog.showModal();
      break;
    case "share":
      download("firstlight-run.html", String(message["html"]), "text/html");
      say("Saved: one file that shows this run anywhere, without a server.");
      break;
  }
}

function onFrame(frame: Frame): void {
  refresh(...take(frame));
}

let first = true;
function onOpen(): void {
  store.connected = true;
  document.body.classList.remove("offline");
  waiting(false);
  told = "";
  store.stamp = store.answered = 0; // a new session counts from the start
  if (!first) say("Connected again.");
}

async function boot(): Promise<void> {
  applyTheme();
  onThemeChange(() => refresh("all"));
  window.addEventListener("resize", () => refresh("all"));
  const kept = await recording();
  store.recorded = !!kept;
  build();
  if (kept) return replay(kept);
  const handlers = {
    text: (message: Record<string, unknown> & { type: string }): void => {
      onText(message);
      if (message.type === "state" && first) {
        first = false;
        tellPanels();
        openLink();
      }
    },
    frame: onFrame,
    open: onOpen,
    closed: (reason: string): void => {
      document.body.classList.add("offline");
      say(reason, "error");
    },
  };
  link = window.name === "firstlight-widget" ? connectParent(handlers) : connect(handlers);
  window.addEventListener("hashchange", openLink);
  return undefined;
}

// --- a recorded run --------------------------------------------------------------------------------------------

const scrub = h("input", { type: "range", id: "scrub", min: "0", value: "0" });
const scrubber = h("div", { class: "scrubber" }, h("label", { for: "scrub" }, "Moment"), scrub);

function replay(kept: Recorded): void {
  onText({ type: "hello", ...kept.hello });
  onText({ type: "state", ...kept.state });
  for (const kind of ["open", "band", "report"]) store.runs.forEach((_, i) => kept.slots.get(`${kind}${i}`)?.slice(-1).forEach(onFrame));
  for (const slot of ["walks", "strip", "critical"]) kept.slots.get(slot)?.slice(-1).forEach(onFrame);
  const frames = store.runs.map((_, i) => kept.slots.get(`run${i}`) ?? []);
  const most = Math.max(1, ...frames.map((f) => f.length));
  scrub.max = String(most - 1);
  let playing = 0;
  const show = (at: number): void => {
    scrub.value = String(at);
    for (const list of frames) {
      const frame = list[Math.min(list.length - 1, at)];
      if (frame) onFrame(frame);
    }
    scrub.setAttribute("aria-valuetext", steps.textContent ?? "");
  };
  scrub.oninput = () => {
    clearInterval(playing);
    playing = 0;
    run.replaceChildren(icon(ICONS.play), h("span", {}, "Play"));
    show(Number(scrub.value));
  };
  const run = button("Play", ICONS.play, () => {
    if (playing) {
      clearInterval(playing);
      playing = 0;
    } else {
      if (Number(scrub.value) >= most - 1) scrub.value = "0";
      playing = window.setInterval(() => {
        const next = Number(scrub.value) + 1;
        if (next >= most) run.click();
        else show(next);
      }, 100);
    }
    run.replaceChildren(icon(playing ? ICONS.pause : ICONS.play), h("span", {}, playing ? "Pause" : "Play"));
  }, { class: "primary" });
  scrubber.prepend(run);
  // accuracy over time is gathered from all frames once, so that it is there at every moment
  for (const list of frames) for (const frame of list) take(frame);
  const curves = store.views.map((v) => structuredClone(v.accuracy));
  show(most - 1);
  store.views.forEach((v, i) => (v.accuracy = curves[i] ?? v.accuracy));
  refresh("all");
}

// for tests and for people who look under the hood
Object.assign(window, { firstlight: { store, title } });
void boot();
