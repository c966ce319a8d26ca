// Colours: Okabe and Ito's palette, which people with any colour vision can tell apart, in a light and a dark cut.

export interface Theme {
  dark: boolean;
  ink: string;
  soft: string;
  grid: string;
  paper: string;
  runs: string[];
  classes: [number, number, number][];
  band: string;
}

const LIGHT: Theme = {
  dark: false,
  ink: "#1b2430",
  soft: "#5a6675",
  grid: "#e4e8ee",
  paper: "#ffffff",
  runs: ["#0068a8", "#c04a00", "#00805e", "#a8458a"],
  classes: [[213, 94, 0], [0, 114, 178], [0, 158, 115], [204, 121, 167], [230, 159, 0], [86, 180, 233], [120, 120, 120], [150, 110, 60], [90, 60, 160], [180, 180, 40]],
  band: "rgba(0,104,168,0.13)",
};
const DARK: Theme = {
  dark: true,
  ink: "#e8edf4",
  soft: "#9fadbd",
  grid: "#2a3441",
  paper: "#161d27",
  runs: ["#5bb8f0", "#f5a142", "#3fcf9f", "#e79ac8"],
  classes: [[240, 140, 60], [86, 180, 233], [63, 207, 159], [231, 154, 200], [240, 200, 90], [150, 210, 250], [160, 160, 160], [200, 160, 110], [160, 140, 230], [220, 220, 110]],
  band: "rgba(91,184,240,0.16)",
};

/** How much larger than on a laptop's screen letters and charts are drawn, as the page's own text is. */
export const zoom = (): number => Math.max(1, parseFloat(getComputedStyle(document.documentElement).fontSize) / 16.2);

const media = matchMedia("(prefers-color-scheme: dark)");
let chosen: string | null = null;
try {
  chosen = localStorage.getItem("firstlight-theme");
} catch {
  // a file opened from disk may have no storage
}

export const theme = (): Theme => ((chosen ?? (media.matches ? "dark" : "light")) === "dark" ? DARK : LIGHT);

export function applyTheme(): void {
  document.documentElement.dataset["theme"] = theme().dark ? "dark" : "light";
}

export function toggleTheme(): void {
  chosen = theme().dark ? "light" : "dark";
  try {
    localStorage.setItem("firstlight-theme", chosen);
  } catch {
    // it then holds until the page is closed
  }
  applyTheme();
}

export function onThemeChange(call: () => void): void {
  media.addEventListener("change", () => {
    applyTheme();
    call();
  });
}

// Cividis, which keeps its order for all colour vision: 0 (dark blue) to 1 (yellow).
const CIVIDIS: [number, number, number][] = [
  [0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115], [138, 134, 120], [165, 156, 116], [195, 179, 105], [225, 204, 85], [254, 232, 56],
];

export function heat(value: number): [number, number, number] {
  const at = Math.min(0.9999, Math.max(0, value)) * (CIVIDIS.length - 1);
  const low = Math.floor(at);
  const part = at - low;
  const a = CIVIDIS[low] ?? [0, 0, 0];
  const b = CIVIDIS[low + 1] ?? a;
  return [a[0] + (b[0] - a[0]) * part, a[1] + (b[1] - a[1]) * part, a[2] + (b[2] - a[2]) * part];
}

/** Blue below zero, orange above, the paper's colour at zero; `value` from -1 to 1. */
export function diverging(value: number): [number, number, number] {
  const t = theme();
  const end = t.classes[value < 0 ? 1 : 0] ?? [0, 0, 0];
  const paper: [number, number, number] = t.dark ? [34, 43, 55] : [244, 246, 249];
  const part = Math.min(1, Math.abs(value));
  return [0, 1, 2].map((i) => (paper[i] ?? 0) + ((end[i] ?? 0) - (paper[i] ?? 0)) * part) as [number, number, number];
}

export const css = (c: [number, number, number], alpha = 1): string =>
  `rgba(${Math.round(c[0])},${Math.round(c[1])},${Math.round(c[2])},${alpha})`;
