// The state in the address: a link that can be given away, and the address bar, which follows what a person sets.

import { store, type Config } from "./store";

type Message = Record<string, unknown>;

const LONGEST = 6000; // characters of a person's points that an address may carry
const FOLLOW_MS = 400; // browsers refuse to be told of addresses more often than some ten times a second
const SETTING = ["configure", "new_seed", "speed", "fix", "points", "csv"];

let offered: Message | null = null; // points that were sent and not answered yet
let own: Message | null = null; // the person's points as they were taken
let touched = false; // whether anything was set since the address was opened
let timer = 0;

/** Look at what goes to the server. */
export function note(message: Message): void {
  const type = String(message["type"]);
  if (type === "points" || type === "csv") offered = message;
  if (SETTING.includes(type)) touched = true;
}

/** What was sent so far came from the address itself. */
export function opened(): void {
  touched = false;
}

/** The server has answered: keep the points that it took, and let the address bar say what the page shows. */
export function follow(): void {
  if (offered && store.runs[0]?.config["data"] === "custom") [own, offered] = [offered, null];
  if (!touched || store.recorded || window.name === "firstlight-widget") return;
  clearTimeout(timer);
  timer = window.setTimeout(() => history.replaceState(null, "", `${location.pathname}${location.search}${state()}`), FOLLOW_MS);
}

/** The message that brings a person's points to a new session; null where these runs do not train on any. */
export const points = (runs: Config[]): Message | null => (runs[0]?.["data"] === "custom" ? own : null);

/** The points in an address; anything else that stands there is not sent. */
export function read(text: string | null): Message | null {
  const message = JSON.parse(text ?? "null") as Message | null;
  return message?.["type"] === "points" || message?.["type"] === "csv" ? message : null;
}

function state(): string {
  const defaults = store.hello?.defaults ?? {};
  const configs = store.runs.map((run) => run.config);
  const runs = configs.map((config) => Object.fromEntries(Object.entries(config).filter(([k, v]) => JSON.stringify(v) !== JSON.stringify(defaults[k]))));
  const brought = encodeURIComponent(JSON.stringify(points(configs) ?? ""));
  return `#runs=${encodeURIComponent(JSON.stringify(runs))}&speed=${store.speed}${points(configs) && brought.length <= LONGEST ? `&points=${brought}` : ""}`;
}

/** The address of these settings: no token in it, so that it can be given away. */
export const link = (): string => `${location.origin}${location.pathname}${state()}`;
