// Line charts on uPlot: any number of runs on common axes, linear or logarithmic, with a cursor for mouse and keys.

import uPlot from "uplot";
import { h, number } from "./dom";
import { store } from "./store";
import { theme, zoom } from "./theme";

export interface Series {
  label: string;
  color: string;
  x: ArrayLike<number>;
  y: ArrayLike<number>;
  dash?: number[];
  width?: number;
  points?: boolean;
}
export interface Cloud {
  color: string;
  x: ArrayLike<number>;
  rows: ArrayLike<number>[];
}
export interface Band {
  color: string;
  x: ArrayLike<number>;
  low: number[];
  high: number[];
}
export interface Sheet {
  columns: string[];
  rows: (string | number | null)[][];
}
interface Mark {
  x?: number;
  y?: number;
  text: string;
  color: string;
}

export class LinePlot {
  readonly host: HTMLElement;
  readonly readout: HTMLOutputElement;
  private plot: uPlot | null = null;
  private signature = "";
  private shape = "";
  private drawn: { series: { x: ArrayLike<number>; y: ArrayLike<number> }[]; clouds: unknown[] } = { series: [], clouds: [] };
  private index = -1;
  series: Series[] = [];
  clouds: Cloud[] = [];
  bands: Band[] = [];
  marks: Mark[] = [];
  hint = ""; // shown while there is nothing to draw
  integers = false; // whether x is a number of something
  logX = false;
  logY = false;

  constructor(
    readonly name: string,
    public xLabel: string,
    public yLabel: string,
    public height = 220,
  ) {
    this.readout = h("output", { class: "readout", "aria-live": "polite" });
    this.host = h("div", {
      class: "plot",
      tabindex: 0,
      role: "group",
      "aria-label": `${name}: chart of ${yLabel} over ${xLabel}. Arrow keys read values.`,
      onkeydown: (event: KeyboardEvent) => this.key(event),
    });
    new ResizeObserver(() => this.resize()).observe(this.host);
  }

  /** Draw what the fields hold; nothing is done where it would move less than a pixel, unless `always`. */
  draw(always = false): void {
    const t = theme();
    const wanted = JSON.stringify([this.series.map((s) => [s.label, s.color, s.dash]), this.logX, this.logY, t.dark, this.height, this.host.clientWidth, this.bands, this.marks, store.epoch]);
    if (!always && wanted === this.signature && !this.moved()) return;
    this.drawn = { series: this.series.map(({ x, y }) => ({ x, y })), clouds: this.clouds.map(cloudKey) };
    const tables = this.series.map((s) => this.table(s));
    const data = (tables.length === 1 && tables[0] ? tables[0] : tables.length ? uPlot.join(tables) : [[0, 1]]) as uPlot.AlignedData;
    const empty = this.series.every((s) => !Array.prototype.some.call(s.y, Number.isFinite)) && !this.clouds.length ? this.hint : "";
    if ((this.host.dataset["empty"] ?? "") !== empty) this.host.dataset["empty"] = empty;
    this.signature = wanted;
    const shape = JSON.stringify([this.series.map((s) => [s.label, s.color, s.dash, s.width, dotted(s)]), this.logX, this.logY, t.dark, this.height, zoom()]);
    if (shape !== this.shape || !this.plot) {
      this.shape = shape;
      this.plot?.destroy();
      this.plot = new uPlot(this.options(), data, this.host);
    } else {
      this.plot.setData(data);
    }
  }

  /** Whether any point lies more than a pixel from where it was drawn. */
  private moved(): boolean {
    const u = this.plot;
    if (!u || this.drawn.series.length !== this.series.length || this.drawn.clouds.length !== this.clouds.length) return true;
    if (this.clouds.some((cloud, i) => cloudKey(cloud) !== this.drawn.clouds[i])) return true;
    const shift = this.logX ? 1 : 0;
    const place = (x: number, y: number): [number, number] => [u.valToPos(x + shift, "x"), !Number.isFinite(y) || (this.logY && y <= 0) ? NaN : u.valToPos(y, "y")];
    const far = (a: [number, number], b: [number, number]): boolean =>
      Math.abs(a[0] - b[0]) > 1 || (Number.isNaN(a[1]) !== Number.isNaN(b[1])) || Math.abs(a[1] - b[1]) > 0.7;
    return this.series.some((s, k) => {
      const old = this.drawn.series[k];
      if (!old || s.y.length < old.y.length || (!old.y.length && s.y.length)) return true;
      const at = (line: { x: ArrayLike<number>; y: ArrayLike<number> }, i: number): [number, number] => place(line.x[i] ?? NaN, line.y[i] ?? NaN);
      // a course that has grown keeps its earlier points; what is new is compared with where the line ended
      const grown = s.y.length > old.y.length;
      for (let i = grown ? old.y.length : 0; i < s.y.length; i++) if (far(at(s, i), at(old, grown ? old.y.length - 1 : i))) return true;
      return false;
    });
  }

  private table(s: Series): uPlot.AlignedData {
    const x: number[] = [];
    const y: (number | null)[] = [];
    for (let i = 0; i < s.x.length; i++) {
      const at = (s.x[i] ?? 0) + (this.logX ? 1 : 0);
      const value = s.y[i] ?? NaN;
      x.push(at);
      y.push(Number.isFinite(value) && (!this.logY || value > 0) ? value : null);
    }
    return [x, y] as uPlot.AlignedData;
  }

  private options(): uPlot.Options {
    const t = theme();
    const z = zoom();
    const axis = (text: string, log: boolean): uPlot.Axis => ({
      label: text,
      labelSize: 18 * z,
      labelFont: `${12 * z}px system-ui, sans-serif`,
      font: `${11 * z}px system-ui, sans-serif`,
      stroke: t.soft,
      grid: { stroke: t.grid, width: 1 },
      ticks: { stroke: t.grid, width: 1, size: 4 },
      gap: 4,
      ...(log
        ? { splits: (_u: uPlot, _i: number, low: number, high: number) => decades(low, high), filter: (_u: uPlot, splits: number[]) => splits, values: (_u: uPlot, splits: number[]) => splits.map((v) => (labelled(v, splits) ? number(v) : "")) }
        : { values: (_u: uPlot, splits: number[]) => splits.map((v) => (v === null ? "" : number(v))) }),
    });
    return {
      width: Math.max(120, this.host.clientWidth),
      height: this.height * z,
      legend: { show: false },
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      scales: {
        x: { time: false, distr: this.logX ? 3 : 1, range: (_u, a, b) => this.rangeX(a, b) },
        y: { distr: this.logY ? 3 : 1, range: (_u, a, b) => this.rangeY(a, b) },
      },
      axes: [
        { ...axis(this.xLabel, this.logX), size: 30 * z, ...(this.integers ? { incrs: [1, 2, 5, 10, 20, 25, 50, 100] } : {}) },
        { ...axis(this.yLabel, this.logY), size: 50 * z },
      ],
      series: [
        {},
        ...this.series.map((s) => ({
          label: s.label,
          stroke: s.color,
          width: (s.width ?? 2) * z,
          ...(s.dash ? { dash: s.dash } : {}),
          spanGaps: true,
          points: { show: dotted(s), size: 5 * z, fill: s.color },
        })),
      ],
      hooks: { drawAxes: [(u) => this.under(u)], setCursor: [(u) => this.read(u.cursor.idx ?? -1)] },
    };
  }

  private rangeX(a: number | null, b: number | null): [number, number] {
    if (a === null || b === null || !Number.isFinite(a) || !Number.isFinite(b)) return this.logX ? [1, 10] : [0, 1];
    return this.logX ? [Math.max(1, a), Math.max(10, b)] : [a, b > a ? b : a + 1];
  }

  /** Low and high end of the y axis: all lines, and the bands and clouds behind them. */
  private rangeY(a: number | null, b: number | null): [number, number] {
    let low = a ?? Infinity;
    let high = b ?? -Infinity;
    const widen = (v: number): void => {
      if (!Number.isFinite(v) || (this.logY && v <= 0)) return;
      if (v < low) low = v;
      if (v > high) high = v;
    };
    for (const band of this.bands) for (const v of [...band.low, ...band.high]) widen(v);
    for (const cloud of this.clouds) for (const row of cloud.rows) for (let i = 0; i < row.length; i++) widen(row[i] ?? NaN);
    if (!(high >= low)) return this.logY ? [0.1, 1] : [0, 1];
    if (this.logY) return [low / 1.3, high * 1.3];
    const pad = (high - low || Math.abs(high) || 1) * 0.06;
    return [low - pad, high + pad];
  }

  private under(u: uPlot): void {
    const c = u.ctx;
    const px = (v: number): number => u.valToPos(v + (this.logX ? 1 : 0), "x", true);
    const py = (v: number): number => u.valToPos(v, "y", true);
    c.save();
    c.beginPath();
    c.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    c.clip();
    for (const band of this.bands) {
      c.fillStyle = band.color;
      c.beginPath();
      for (let i = 0; i < band.high.length; i++) c.lineTo(px(band.x[i] ?? 0), py(band.high[i] ?? 0));
      for (let i = band.low.length - 1; i >= 0; i--) c.lineTo(px(band.x[i] ?? 0), py(band.low[i] ?? 0));
      c.fill();
    }
    for (const cloud of this.clouds) {
      c.strokeStyle = cloud.color;
      c.lineWidth = devicePixelRatio;
      for (const row of cloud.rows) {
        c.beginPath();
        for (let i = 0; i < row.length; i++) {
          const v = row[i] ?? NaN;
          if (Number.isFinite(v) && (!this.logY || v > 0)) c.lineTo(px(cloud.x[i] ?? i), py(v));
        }
        c.stroke();
      }
    }
    const t = theme();
    c.font = `${11 * devicePixelRatio * zoom()}px system-ui, sans-serif`;
    c.textAlign = "left";
    c.textBaseline = "alphabetic";
    let row = 0;
    for (const mark of this.marks) {
      c.strokeStyle = mark.color;
      c.fillStyle = t.ink;
      c.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
      c.lineWidth = 1.5 * devicePixelRatio;
      c.beginPath();
      if (mark.x !== undefined) {
        c.moveTo(px(mark.x), u.bbox.top);
        c.lineTo(px(mark.x), u.bbox.top + u.bbox.height);
        c.fillText(mark.text, px(mark.x) + 5 * devicePixelRatio, u.bbox.top + (14 + 14 * row++) * devicePixelRatio);
      }
      if (mark.y !== undefined) {
        c.moveTo(u.bbox.left, py(mark.y));
        c.lineTo(u.bbox.left + u.bbox.width, py(mark.y));
        if (mark.text) c.fillText(mark.text, u.bbox.left + 5 * devicePixelRatio, py(mark.y) - 4 * devicePixelRatio);
      }
      c.stroke();
    }
    c.restore();
  }

  private read(index: number): void {
    this.index = index;
    if (!this.plot || index < 0) {
      this.readout.textContent = "";
      return;
    }
    const x = (this.plot.data[0][index] ?? NaN) - (this.logX ? 1 : 0);
    const parts = this.series.map((s, i) => {
      const v = this.plot?.data[i + 1]?.[index];
      return v === null || v === undefined ? "" : `${s.label} ${number(v, 6)}`;
    });
    const shown = parts.filter(Boolean).slice(0, 8).join(", ");
    if (shown) this.readout.textContent = `${this.xLabel} ${number(x, 6)}: ${shown}`;
  }

  private key(event: KeyboardEvent): void {
    this.draw(true);
    if (!this.plot) return;
    const last = this.plot.data[0].length - 1;
    const start = this.index < 0 ? last : this.index;
    const next = { ArrowLeft: start - 1, ArrowRight: start + 1, Home: 0, End: last, PageUp: start - 20, PageDown: start + 20 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.index = Math.min(last, Math.max(0, next));
    this.plot.setCursor({ left: this.plot.valToPos(this.plot.data[0][this.index] ?? 0, "x"), top: 0 });
    this.read(this.index);
  }

  private resize(): void {
    if (this.plot && this.host.clientWidth > 0) this.plot.setSize({ width: this.host.clientWidth, height: this.height * zoom() });
  }

  canvas(): HTMLCanvasElement | null {
    this.draw(true);
    return this.host.querySelector("canvas");
  }

  /** All points as a table, thinned to `most` rows. */
  sheet(most = Infinity): Sheet {
    this.draw(true);
    const columns = [this.xLabel, ...this.series.map((s) => s.label)];
    const data = this.plot?.data ?? [[]];
    const count = this.series.length ? data[0].length : 0;
    const every = Math.max(1, Math.ceil(count / most));
    const rows: Sheet["rows"] = [];
    for (let i = 0; i < count; i++) {
      if (i % every && i !== count - 1) continue;
      rows.push([(data[0][i] ?? 0) - (this.logX ? 1 : 0), ...this.series.map((_s, j) => data[j + 1]?.[i] ?? null)]);
    }
    return { columns, rows };
  }

  /** The chart as a drawing without pixels. */
  svg(width = 640, height = 360): string {
    this.draw(true);
    const u = this.plot;
    if (!u) return "";
    const t = theme();
    const box = { left: 62, top: 46, width: width - 80, height: height - 96 };
    const sx = u.scales["x"];
    const sy = u.scales["y"];
    const place = (v: number, low: number, high: number, log: boolean): number =>
      log ? (Math.log(v) - Math.log(low)) / (Math.log(high) - Math.log(low)) : (v - low) / (high - low);
    const X = (v: number): number => box.left + box.width * place(v, sx?.min ?? 0, sx?.max ?? 1, this.logX);
    const Y = (v: number): number => box.top + box.height * (1 - place(v, sy?.min ?? 0, sy?.max ?? 1, this.logY));
    const shift = this.logX ? 1 : 0;
    const out: string[] = [];
    const path = (points: [number, number][]): string => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    const ticks = (low: number, high: number, log: boolean): number[] =>
      log
        ? Array.from({ length: 40 }, (_, i) => 10 ** (i - 20)).filter((v) => v >= low && v <= high)
        : rounds(low, high);
    for (const v of ticks(sy?.min ?? 0, sy?.max ?? 1, this.logY)) {
      out.push(`<path d="M${box.left} ${Y(v)}h${box.width}" stroke="${t.grid}"/>`);
      out.push(`<text x="${box.left - 6}" y="${Y(v) + 4}" text-anchor="end">${number(v)}</text>`);
    }
    for (const v of ticks(sx?.min ?? 0, sx?.max ?? 1, this.logX)) {
      out.push(`<text x="${X(v)}" y="${box.top + box.height + 18}" text-anchor="middle">${number(v)}</text>`);
    }
    for (const band of this.bands) {
      const up = band.high.map((v, i) => [X((band.x[i] ?? 0) + shift), Y(v)] as [number, number]);
      const down = band.low.map((v, i) => [X((band.x[i] ?? 0) + shift), Y(v)] as [number, number]).reverse();
      out.push(`<path d="${path([...up, ...down])}Z" fill="${band.color}"/>`);
    }
    for (const cloud of this.clouds)
      for (const row of cloud.rows) {
        const points = Array.from(row).map((v, i) => [X((cloud.x[i] ?? i) + shift), Y(v)] as [number, number]);
        out.push(`<path d="${path(points.filter((p) => Number.isFinite(p[1])))}" fill="none" stroke="${cloud.color}"/>`);
      }
    for (const [i, s] of this.series.entries()) {
      const points: [number, number][] = [];
      for (let j = 0; j < u.data[0].length; j++) {
        const v = u.data[i + 1]?.[j];
        if (v !== null && v !== undefined) points.push([X(u.data[0][j] ?? 0), Y(v)]);
      }
      out.push(`<path d="${path(points)}" fill="none" stroke="${s.color}" stroke-width="2"${s.dash ? ' stroke-dasharray="6 4"' : ""}/>`);
      out.push(`<text x="${box.left + 8 + i * 150}" y="${box.top - 8}" style="fill:${s.color}">${escape(s.label)}</text>`);
    }
    for (const { x, y, text, color } of this.marks) {
      const [left, top] = [x === undefined ? box.left : X(x + shift), y === undefined ? box.top : Y(y)];
      out.push(`<path d="M${left} ${top}${x === undefined ? `h${box.width}` : `v${box.height}`}" stroke="${color}" stroke-dasharray="5 4"/>`);
      out.push(`<text x="${left + 5}" y="${x === undefined ? top - 4 : top + 14}" style="fill:${t.ink}">${escape(text)}</text>`);
    }
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="12">
<style>text{fill:${t.soft}}</style><rect width="${width}" height="${height}" fill="${t.paper}"/>
<text x="12" y="16" style="fill:${t.ink};font-weight:600">${escape(this.name)}</text>${out.join("\n")}
<text x="${box.left + box.width / 2}" y="${height - 12}" text-anchor="middle">${escape(this.xLabel)}</text>
<text transform="translate(14 ${box.top + box.height / 2}) rotate(-90)" text-anchor="middle">${escape(this.yLabel)}</text></svg>`;
  }
}

/** Whether points are marked: one alone makes no line. */
const dotted = (s: Series): boolean => s.points || s.x.length === 1;

/** What tells one cloud from another: the memory that its newest row lies in. */
const cloudKey = (cloud: Cloud): unknown => (cloud.rows.at(-1) as Float32Array | undefined)?.buffer;

/** Places for lines on a logarithmic axis: 1 to 9 times the powers of ten, fewer where there are many decades. */
function decades(low: number, high: number): number[] {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const every = Math.max(1, Math.ceil((last - first) / 8));
  const out: number[] = [];
  for (let power = first; power <= last; power += every)
    for (const m of every > 1 ? [1] : last - first > 5 ? [1, 3] : [1, 2, 3, 4, 5, 6, 7, 8, 9]) {
      const v = m * 10 ** power;
      if (v >= low * 0.999 && v <= high * 1.001) out.push(v);
    }
  return out;
}

/** Some five round numbers between two. */
function rounds(low: number, high: number): number[] {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((m) => m * power >= rough) ?? 10);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.max(0, Math.floor(high / step) - first + 1) }, (_, i) => (first + i) * step);
}

const isPower = (v: number): boolean => Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-6;
const labelled = (v: number, all: number[]): boolean => {
  const powers = all.filter(isPower).length;
  if (powers >= 3 || isPower(v)) return isPower(v);
  const digit = Math.round(v / 10 ** Math.floor(Math.log10(v) + 1e-9));
  return all.length <= 6 || digit === 2 || digit === 5;
};

export const escape = (text: string): string => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
