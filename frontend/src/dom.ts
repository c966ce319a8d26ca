// Elements in one line each, and numbers as people read them.

type Child = Node | string | null | undefined | false;
type Props = Record<string, unknown>;

/** Make an element. `on…` are listeners, `class` and `aria-…` attributes, everything else a property or attribute. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: (Child | Child[])[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on") && typeof value === "function") {
      element.addEventListener(name.slice(2), value as EventListener);
    } else if (name in element && !name.includes("-") && name !== "list" && name !== "form") {
      (element as unknown as Props)[name] = value;
    } else {
      element.setAttribute(name === "className" ? "class" : name, value === true ? "" : String(value));
    }
  }
  for (const child of children.flat()) if (child !== null && child !== undefined && child !== false) element.append(child);
  return element;
}

/** Write a text if it is another one; writing the same would lay the page out anew. */
export function put(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

const SVG = "http://www.w3.org/2000/svg";

/** A small drawing from the inside of an `<svg>`; decorative, so hidden from screen readers. */
export function icon(inside: string, size = 20, box = 24): SVGSVGElement {
  const element = document.createElementNS(SVG, "svg");
  element.setAttribute("viewBox", `0 0 ${box} ${box}`);
  element.setAttribute("width", String(size));
  element.setAttribute("height", String(size));
  element.setAttribute("aria-hidden", "true");
  element.setAttribute("focusable", "false");
  element.innerHTML = inside;
  return element;
}

/** A number in at most about six signs; a dash for what is not one. */
export function number(value: unknown, digits = 3): string {
  if (value === null || value === undefined || typeof value !== "number" || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) {
    const [mantissa, power] = value.toExponential(1).split("e");
    const raised = String(Number(power)).replace(/[-\d]/g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)] ?? "⁻");
    return `${mantissa === "1.0" ? "" : `${mantissa}·`}10${raised}`.replace("-", "−");
  }
  return Number(value.toPrecision(digits)).toString().replace("-", "−");
}

export function percent(value: unknown): string {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  if (value > 0.999 && value < 1) return "> 99.9 %";
  if (value < 0.001 && value > 0) return "< 0.1 %";
  return `${(100 * value).toFixed(value === 0 || value === 1 ? 0 : 1)} %`;
}

export const whole = (value: number): string => value.toLocaleString("en").replace(/,/g, " ");

/** Hand a file to the person. */
export function download(name: string, content: Blob | string, type = "text/plain"): void {
  const blob = typeof content === "string" ? new Blob([content], { type }) : content;
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

let live: HTMLElement | null = null;

/** Say something to screen readers, and show it for a moment. */
export function say(text: string, kind: "info" | "error" = "info"): void {
  live ??= document.getElementById("status");
  if (!live) return;
  live.textContent = text;
  live.dataset["kind"] = kind;
  live.classList.add("shown");
  clearTimeout(Number(live.dataset["timer"]));
  live.dataset["timer"] = String(setTimeout(() => live?.classList.remove("shown"), kind === "error" ? 9000 : 3500));
}
