// The verdict on every run: one word, its evidence, a remedy, and what was said before training.

import { h, number, percent, put, say } from "./dom";
import type { Send } from "./link";
import { LETTERS, store, type Config, type Finding } from "./store";
import { theme } from "./theme";

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

// the setting that a remedy changes -> in words
const FIXES: Record<string, string> = {
  scheme: "another initialization",
  normalization: "normalize every layer",
  learning_rate: "a tenth of the learning rate",
};

interface Report {
  verdict: string;
  headline: string;
  step: number;
  findings: Finding[];
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

/** One card for each run; what did not change is not touched. */
export class Verdicts {
  readonly element = h("section", { class: "verdicts", "aria-label": "Verdict" });
  private cards: Card[] = [];
  private spoken = "";

  constructor(private readonly send: Send) {}

  /** Bring the cards up to date; `full`: more than the cost has changed. */
  draw(full: boolean): void {
    if (this.cards.length !== store.views.length) {
      this.cards = store.views.map((_, i) => makeCard(i));
      this.element.dataset["count"] = String(this.cards.length);
      this.element.replaceChildren(...this.cards.map((c) => c.box));
      full = true;
    }
    store.views.forEach((view, i) => {
      const card = this.cards[i];
      if (!card) return;
      const initial = Number(view.frame?.header["step"] ?? 0) === 0 ? view.full?.header["first_cost"] : undefined;
      put(card.cost, initial !== undefined ? number(initial, 4) : view.frame && view.frame.header["cost_now"] === null && Number(view.frame.header["step"]) > 0 ? "not finite" : number(view.frame?.header["cost_now"], 4));
      if (!full) return;
      const status = view.full?.header["status"] as { word: string; evidence: string; code: string; fix: Config } | undefined;
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
      put(card.fix, `Fix: ${FIXES[Object.keys(status?.fix ?? {})[0] ?? ""] ?? "other settings"}`);
      card.fix.onclick = () => {
        this.send({ type: "fix", run: i, code: status?.code ?? "" });
        say("The settings were changed; press play to see.");
      };
      const report = view.report?.header as Report | undefined;
      const key = report ? JSON.stringify([report.step, report.verdict, report.findings]) : "";
      if (key !== card.shown || !key) {
        card.shown = key;
        drawReport(card.before, report, i, this.send);
      }
    });
    const text = this.cards.map((c, i) => `Run ${LETTERS[i]}: ${c.word.textContent}`).join(". ");
    if (full && text !== this.spoken) {
      this.spoken = text;
      this.element.setAttribute("aria-label", `Verdict. ${text}`);
    }
  }
}

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

function drawReport(box: HTMLElement, report: Report | undefined, run: number, send: Send): void {
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
