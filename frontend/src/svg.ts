// A canvas that writes SVG: the same drawing code gives shapes instead of pixels.

import { escape } from "./lines";
import { theme } from "./theme";

/** What the pictures of `maps.ts` use of a canvas; the browser's canvas and `Sheet` both offer it. */
export type Pen = Pick<
  CanvasRenderingContext2D,
  "arc" | "beginPath" | "bezierCurveTo" | "closePath" | "fill" | "fillRect" | "fillStyle" | "fillText" | "font" | "lineTo" | "lineWidth" | "moveTo" | "stroke" | "strokeRect" | "strokeStyle" | "textAlign"
>;

const n = (v: number): string => String(Number(v.toFixed(2)));

export class Sheet {
  fillStyle: Pen["fillStyle"] = "#000";
  strokeStyle: Pen["strokeStyle"] = "#000";
  lineWidth = 1;
  font = "";
  textAlign: CanvasTextAlign = "left";
  height = 0;
  private path = "";
  private readonly out: string[] = [];

  constructor(readonly width: number) {}

  beginPath(): void {
    this.path = "";
  }
  moveTo(x: number, y: number): void {
    this.path += `M${n(x)} ${n(y)}`;
  }
  lineTo(x: number, y: number): void {
    this.path += `${this.path ? "L" : "M"}${n(x)} ${n(y)}`;
  }
  bezierCurveTo(a: number, b: number, c: number, d: number, x: number, y: number): void {
    this.path += `C${n(a)} ${n(b)} ${n(c)} ${n(d)} ${n(x)} ${n(y)}`;
  }
  /** Whole circles only; the pictures draw no others. */
  arc(x: number, y: number, r: number): void {
    this.path += `M${n(x - r)} ${n(y)}a${n(r)} ${n(r)} 0 1 0 ${n(2 * r)} 0a${n(r)} ${n(r)} 0 1 0 ${n(-2 * r)} 0`;
  }
  closePath(): void {
    this.path += "Z";
  }
  fill(): void {
    this.out.push(`<path d="${this.path}" fill="${this.fillStyle}"/>`);
  }
  stroke(): void {
    this.out.push(`<path d="${this.path}" fill="none" stroke="${this.strokeStyle}" stroke-width="${n(this.lineWidth)}"/>`);
  }
  fillRect(x: number, y: number, w: number, h: number): void {
    this.out.push(`<rect x="${n(x)}" y="${n(y)}" width="${n(w)}" height="${n(h)}" fill="${this.fillStyle}"/>`);
  }
  strokeRect(x: number, y: number, w: number, h: number): void {
    this.out.push(`<rect x="${n(x)}" y="${n(y)}" width="${n(w)}" height="${n(h)}" fill="none" stroke="${this.strokeStyle}" stroke-width="${n(this.lineWidth)}"/>`);
  }
  fillText(text: string, x: number, y: number): void {
    const anchor = { right: "end", end: "end", center: "middle" }[this.textAlign as string];
    const size = /[\d.]+(?=px)/.exec(this.font)?.[0] ?? "11";
    this.out.push(`<text x="${n(x)}" y="${n(y)}" font-size="${size}" fill="${this.fillStyle}"${anchor ? ` text-anchor="${anchor}"` : ""}>${escape(text)}</text>`);
  }
  inside(): string {
    return this.out.join("\n");
  }
}

/** Drawings side by side under a heading, as one file. */
export function sheets(draws: ((sheet: Sheet) => void)[], heading: string, width: number): string {
  const gap = 16;
  const made = draws.map((draw) => {
    const sheet = new Sheet(width);
    draw(sheet);
    return sheet;
  });
  const [w, h] = [made.length * (width + gap) + gap, Math.max(0, ...made.map((s) => s.height)) + 60];
  const parts = made.map((s, i) => `<g transform="translate(${gap + i * (width + gap)} 44)">${s.inside()}</g>`);
  const t = theme();
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${w} ${h}" font-family="system-ui, sans-serif" font-size="11"><title>${escape(heading)}</title><rect width="${w}" height="${h}" fill="${t.paper}"/><text x="${gap}" y="28" font-size="18" font-weight="600" fill="${t.ink}">${escape(heading)}</text>${parts.join("\n")}</svg>`;
}
