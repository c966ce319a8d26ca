// The page: puts the parts together, takes messages in, draws at most once a frame and only what is in sight.

import "uplot/dist/uPlot.min.css";
import "./style.css";
import * as address from "./address";
import { Controls, drawRuns } from "./controls";
import { download, h, icon, put, say, whole } from "./dom";
import { Tour, head, openScene, pointsDialog, scenesDialog } from "./gallery";
import { ICONS } from "./icons";
import { connect, connectParent, recording, type Link } from "./link";
import { drawLegends, type Panel } from "./panel";
import { makePanels } from "./panels";
import { Scrubber } from "./replay";
import { configure, emptyView, store, take, title, type Config, type Hello, type RunState } from "./store";
import { applyTheme, onThemeChange, toggleTheme } from "./theme";
import { Verdicts } from "./verdicts";
import type { Frame } from "./wire";

let link: Link = { send: () => undefined };
const send = (message: Record<string, unknown>): void => {
  if (message["type"] === "configure") waiting(true);
  address.note(message);
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

/** On paper everything is in sight. */
function print(): void {
  for (const panel of panels) if (panel.shown()) panel.draw();
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
  if (all || dirty.has("verdict") || dirty.has("cost")) {
    verdicts.draw(all || dirty.has("verdict"));
    put(steps, `step ${whole(Math.max(0, ...store.views.map((v) => Number(v.frame?.header["step"] ?? 0))))}`);
  }
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
const lost = h("p", { class: "lost", role: "alert" }); // why nothing moves: it stays until something does
const verdicts = new Verdicts(send);
const scrubber = new Scrubber({ text: (message) => onText(message), frame: (frame) => onFrame(frame), refresh, moment: () => steps.textContent ?? "" });
const runsBox = h("div", { class: "runs", role: "group", "aria-label": "Runs side by side" });
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
      item("Copy link", "these settings, for firstlight playground --link", () => copy(address.link())),
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

function openLink(): void {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const key = wanted.get("scene");
  const scene = store.hello?.scenes.find((s) => s.key === key);
  if (scene) openScene(scene, send, () => choose(0));
  else if (key) say(`There is no scene called ${key}.`, "error");
  try {
    const own = address.read(wanted.get("points"));
    if (own) send(own);
    const text = wanted.get("runs");
    if (text) configure((JSON.parse(text) as Config[]).map((r) => ({ ...store.hello?.defaults, ...r })), send, true);
  } catch {
    say("The address holds no readable settings.", "error");
  }
  const speed = wanted.get("speed");
  if (speed) send({ type: "speed", value: speed === "max" ? speed : Number(speed) });
  if (wanted.get("play") === "1") send({ type: "play" });
  if (wanted.get("tour") === "1") tour.start();
  address.opened();
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
    lost,
    h("div", { class: "page" }, h("nav", { class: "rail-box", "aria-label": "Settings" }, rail), h("main", { id: "main" }, tour.element, runsBox, verdicts.element, ...(store.recorded ? [scrubber.element] : []), grid)),
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
  document.addEventListener("focusout", (event) => {
    if ((event.target as HTMLElement).matches("input")) showSettings(); // what was typed and refused does not stay
  });
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

/** Fields say what the runs are; the one that is being typed in is left alone. */
function showSettings(): void {
  controls.draw();
  if (document.activeElement !== seed) seed.value = String(store.runs[0]?.config["seed"] ?? 0);
}

function drawState(): void {
  applyTheme();
  showSettings();
  controls.element.disabled = store.recorded;
  drawRuns(runsBox, send, choose);
  drawLegends();
  playButton.replaceChildren(icon(store.playing ? ICONS.pause : ICONS.play), h("span", {}, store.playing ? "Pause" : "Play"));
  playButton.setAttribute("aria-pressed", String(store.playing));
  if (speeds.childElementCount !== (store.hello?.speeds.length ?? 0))
    speeds.replaceChildren(...(store.hello?.speeds ?? []).map((s) => h("button", { type: "button", "data-speed": String(s), onclick: () => send({ type: "speed", value: s }) }, s === "max" ? "max" : `${s}×`)));
  for (const b of speeds.children) b.setAttribute("aria-pressed", String((b as HTMLElement).dataset["speed"] === String(store.speed)));
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
      address.follow();
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
let before: Config[] = []; // settings from before the connection was lost
function onOpen(): void {
  store.connected = true;
  document.body.classList.remove("offline");
  put(lost, "");
  waiting(false);
  told = "";
  store.stamp = store.answered = 0; // a new session counts from the start
  if (first) return;
  before = store.runs.map((run) => run.config);
  say("Connected again.");
}

/** The first state of a session: bring to it what the address or the time before the interruption says. */
function onSession(speed: number | string): void {
  tellPanels();
  if (document.visibilityState === "hidden") send({ type: "visible", value: false });
  if (first) {
    first = false;
    openLink();
  } else {
    send({ type: "speed", value: speed });
    const own = address.points(before);
    if (own) send(own); // a new session does not know them
    configure(before, send, true);
  }
  before = [];
}

async function boot(): Promise<void> {
  applyTheme();
  onThemeChange(() => refresh("all"));
  window.addEventListener("resize", () => refresh("all"));
  window.addEventListener("beforeprint", print);
  const kept = await recording();
  store.recorded = !!kept;
  build();
  if (kept) return scrubber.open(kept);
  const handlers = {
    text: (message: Record<string, unknown> & { type: string }): void => {
      const speed = store.speed;
      onText(message);
      if (message.type === "state" && (first || before.length)) onSession(speed);
    },
    frame: onFrame,
    open: onOpen,
    closed: (reason: string): void => {
      document.body.classList.add("offline");
      put(lost, reason);
    },
  };
  link = window.name === "firstlight-widget" ? connectParent(handlers) : connect(handlers);
  window.addEventListener("hashchange", openLink);
  return undefined;
}

// for tests and for people who look under the hood
Object.assign(window, { firstlight: { store, title } });
void boot();
