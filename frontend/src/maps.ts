// Pictures on canvas: the decision boundary, histograms by layer, the network, the heat strip of a deep one.

import { number } from "./dom";
import { Sheet, type Pen } from "./svg";
import { css, diverging, heat, theme, zoom } from "./theme";
import type { Numbers } from "./wire";

/** Where a picture goes: a canvas on the page, or a sheet that becomes a file. */
export type Target = HTMLCanvasElement | Sheet;

/** The width that a picture has there, in the units in which letters are 11 high. */
const widthOf = (target: Target): number => (target instanceof Sheet ? target.width : target.clientWidth / zoom());

/** Make a place ready: fit a canvas to the screen's resolution and clear it. */
function prepare(target: Target, height: number): { c: Pen; w: number; h: number } | null {
  const w = widthOf(target);
  if (target instanceof Sheet) {
    target.height = height;
    return { c: target, w, h: height };
  }
  const c = target.getContext("2d");
  if (!c || w < 10) return null;
  const scale = Math.min(3, (devicePixelRatio || 1) * zoom());
  const [pw, ph] = [Math.round(w * scale), Math.round(height * scale)];
  if (target.width !== pw || target.height !== ph) {
    target.width = pw;
    target.height = ph;
  }
  c.setTransform(scale, 0, 0, scale, 0, 0);
  c.clearRect(0, 0, w, height);
  c.font = "11px system-ui, sans-serif";
  c.lineWidth = 1;
  return { c, w, h: height };
}

export interface Points {
  x: Numbers | null;
  y: Numbers | null;
  testX: Numbers | null;
  testY: Numbers | null;
  window: [number[], number[]];
}

const small = document.createElement("canvas");

/** The plane coloured by what the network says, and the points; circles and diamonds tell classes apart too. */
export function boundary(target: Target, values: Numbers | null, side: number, points: Points, binary: boolean): void {
  const place = prepare(target, widthOf(target));
  if (!place) return;
  const { c, w } = place;
  const t = theme();
  if (values && side) {
    const shade = (row: number, col: number): [number, number, number] => {
      const v = values[(side - 1 - row) * side + col] ?? NaN; // the plane's y grows upwards
      return Number.isFinite(v) ? (binary ? diverging((1 - 2 * v) * 0.75) : tinted(v)) : [120, 120, 120];
    };
    if (target instanceof Sheet) squares(c, w / side, side, shade);
    else pixels(target, w, side, shade, binary);
  }
  const [low, high] = points.window;
  const X = (v: number): number => ((v - (low[0] ?? 0)) / ((high[0] ?? 1) - (low[0] ?? 0))) * w;
  const Y = (v: number): number => w - ((v - (low[1] ?? 0)) / ((high[1] ?? 1) - (low[1] ?? 0))) * w;
  const radius = Math.max(2, Math.min(4.5, w / 75));
  const dots = (x: Numbers | null, y: Numbers | null, hollow: boolean): void => {
    if (!x || !y) return;
    for (let i = 0; i < y.length; i++) {
      const klass = y[i] ?? 0;
      mark(c, X(x[2 * i] ?? 0), Y(x[2 * i + 1] ?? 0), radius, klass, hollow, t.dark);
    }
  };
  dots(points.testX, points.testY, true);
  dots(points.x, points.y, false);
}

function pixels(canvas: HTMLCanvasElement, w: number, side: number, shade: (row: number, col: number) => [number, number, number], smooth: boolean): void {
  small.width = small.height = side;
  const sc = small.getContext("2d");
  const image = sc?.createImageData(side, side);
  const c = canvas.getContext("2d");
  if (!sc || !image || !c) return;
  for (let row = 0; row < side; row++) for (let col = 0; col < side; col++) image.data.set([...shade(row, col), 255], 4 * (row * side + col));
  sc.putImageData(image, 0, 0);
  c.imageSmoothingEnabled = smooth;
  c.drawImage(small, 0, 0, w, w);
}

/** The same as squares, each a little larger than its place so that no seams show. */
function squares(c: Pen, size: number, side: number, shade: (row: number, col: number) => [number, number, number]): void {
  for (let row = 0; row < side; row++)
    for (let col = 0; col < side; col++) {
      c.fillStyle = css(shade(row, col));
      c.fillRect(col * size, row * size, size + 0.3, size + 0.3);
    }
}

export function mark(c: Pen, x: number, y: number, r: number, klass: number, hollow: boolean, dark: boolean): void {
  const color = css(theme().classes[klass % 10] ?? [0, 0, 0]);
  c.beginPath();
  if (klass % 2) c.arc(x, y, r, 0, 7);
  else {
    c.moveTo(x, y - r * 1.3);
    c.lineTo(x + r * 1.3, y);
    c.lineTo(x, y + r * 1.3);
    c.lineTo(x - r * 1.3, y);
    c.closePath();
  }
  c.fillStyle = hollow ? (dark ? "#161d27" : "#fff") : color;
  c.strokeStyle = hollow ? color : dark ? "#0d1219" : "#fff";
  c.lineWidth = hollow ? 1.5 : 1;
  c.fill();
  c.stroke();
}

function tinted(v: number): [number, number, number] {
  const t = theme();
  const color = t.classes[Math.floor(v) % 10] ?? [0, 0, 0];
  const paper = t.dark ? 34 : 246;
  const part = 0.15 + 0.6 * (v - Math.floor(v));
  return color.map((k) => paper + (k - paper) * part) as [number, number, number];
}

export interface Histogram {
  shares: Numbers | null;
  zero: Numbers | null;
  bad: Numbers | null;
  layers: number;
  bins: [number, number, number]; // log10 of the lowest and highest edge, and how many
}

/** Sizes of entries by layer on one log axis. Few layers are drawn as shapes, many as a heat map. */
export function histogram(canvas: Target, data: Histogram, color: string, height = 230): void {
  const place = prepare(canvas, height);
  if (!place) return;
  const { c, w, h } = place;
  const t = theme();
  const [low, high, bins] = data.bins;
  const box = { left: 50, top: 26, width: w - 58, height: h - 70 };
  const zeroY = box.top + box.height + 6;
  c.strokeStyle = t.grid;
  c.fillStyle = t.soft;
  c.textAlign = "right";
  for (let power = Math.ceil(low); power <= high; power += 5) {
    const y = box.top + box.height * (1 - (power - low) / (high - low));
    c.beginPath();
    c.moveTo(box.left, y + 0.5);
    c.lineTo(box.left + box.width, y + 0.5);
    c.stroke();
    c.fillText(number(10 ** power, 1), box.left - 5, y + 4);
  }
  c.fillText("zero", box.left - 5, zeroY + 9);
  c.fillText("NaN, ∞", box.left - 5, 12);
  const step = box.width / Math.max(1, data.layers);
  const shaped = data.layers <= 16;
  for (let layer = 0; layer < data.layers; layer++) {
    const x = box.left + layer * step;
    let most = 0;
    for (let b = 0; b < bins; b++) most = Math.max(most, data.shares?.[layer * bins + b] ?? 0);
    for (let b = 0; b < bins; b++) {
      const share = data.shares?.[layer * bins + b] ?? 0;
      if (share <= 0) continue;
      const y = box.top + box.height * (1 - (b + 1) / bins);
      const tall = box.height / bins;
      if (shaped) {
        const wide = Math.max(1.5, (share / most) * step * 0.86);
        c.fillStyle = color;
        c.fillRect(x + (step - wide) / 2, y, wide, tall - 0.5);
      } else {
        c.fillStyle = css(heat(0.15 + 0.85 * Math.sqrt(share / most)));
        c.fillRect(x, y, step + 0.4, tall + 0.4);
      }
    }
    const zero = data.zero?.[layer] ?? 0;
    if (zero > 0) {
      const wide = shaped ? step * 0.86 * zero : step + 0.4;
      c.fillStyle = shaped ? t.soft : css(heat(Math.min(1, zero)));
      c.fillRect(x + (shaped ? (step - wide) / 2 : 0), zeroY, wide, 10);
    }
    if ((data.bad?.[layer] ?? 0) > 0) {
      c.fillStyle = "#d33";
      c.fillRect(x + (shaped ? step * 0.07 : 0), 4, shaped ? step * 0.86 : step + 0.4, 10);
      c.fillStyle = "#fff";
      c.textAlign = "center";
      if (step > 14) c.fillText("!", x + step / 2, 13);
    }
  }
  layerAxis(c, box.left, step, data.layers, zeroY + 28, t.soft);
}

function layerAxis(c: Pen, left: number, step: number, layers: number, y: number, color: string): void {
  c.fillStyle = color;
  c.textAlign = "center";
  const every = Math.max(1, Math.ceil(30 / step));
  for (let layer = 0; layer < layers; layer += every) c.fillText(String(layer + 1), left + (layer + 0.5) * step, y);
}

/** Rows of colour over the layers, for networks too deep to draw. */
export function strip(canvas: Target, rows: { name: string; values: Numbers | null; kind: "signed" | "share" }[], layers: number): void {
  const tall = 30;
  const place = prepare(canvas, rows.length * (tall + 6) + 26);
  if (!place) return;
  const { c, w } = place;
  const t = theme();
  const left = 104;
  const step = (w - left - 8) / Math.max(1, layers);
  rows.forEach((row, index) => {
    const y = index * (tall + 6) + 2;
    c.fillStyle = t.soft;
    c.textAlign = "left";
    c.fillText(row.name, 2, y + tall / 2 + 4);
    c.strokeStyle = t.grid;
    c.strokeRect(left, y, step * layers, tall);
    for (let layer = 0; layer < layers; layer++) {
      const v = row.values?.[layer] ?? NaN;
      if (row.kind === "share" && Number.isNaN(v)) continue;
      const color = v === -Infinity ? css([0, 0, 0]) : Number.isNaN(v) ? "#d33" : row.kind === "share" ? css(heat(v)) : css(diverging(v / 20));
      c.fillStyle = color;
      c.fillRect(left + layer * step, y, step + 0.4, tall);
    }
  });
  layerAxis(c, left, step, layers, rows.length * (tall + 6) + 14, t.soft);
}

/** Units as dots, weights (or their gradients) as lines: blue negative, orange positive, thick large. */
export function network(canvas: Target, shapes: Numbers, values: Numbers, height = 300): void {
  const place = prepare(canvas, height);
  if (!place) return;
  const { c, w, h } = place;
  const t = theme();
  const count = shapes.length / 2;
  const sizes = [shapes[1] ?? 1, ...Array.from({ length: count }, (_, i) => shapes[2 * i] ?? 1)];
  const margin = 26;
  const X = (layer: number): number => margin + ((w - 2 * margin) * layer) / (sizes.length - 1);
  const Y = (layer: number, unit: number): number => (h * (unit + 0.5)) / (sizes[layer] ?? 1);
  let most = 0;
  for (const v of values) if (Number.isFinite(v)) most = Math.max(most, Math.abs(v));
  let at = 0;
  for (let layer = 0; layer < count; layer++) {
    const [outs, ins] = [shapes[2 * layer] ?? 0, shapes[2 * layer + 1] ?? 0];
    for (let o = 0; o < outs; o++)
      for (let i = 0; i < ins; i++) {
        const v = values[at++] ?? 0;
        const part = most ? Math.abs(v) / most : 0;
        c.strokeStyle = !Number.isFinite(v) ? "#d33" : part === 0 ? t.grid : css(t.classes[v < 0 ? 1 : 0] ?? [0, 0, 0], 0.15 + 0.85 * part);
        c.lineWidth = 0.5 + 4 * part;
        const [x0, y0, x1, y1] = [X(layer), Y(layer, i), X(layer + 1), Y(layer + 1, o)];
        c.beginPath();
        c.moveTo(x0, y0);
        c.bezierCurveTo((x0 + x1) / 2, y0, (x0 + x1) / 2, y1, x1, y1);
        c.stroke();
      }
  }
  sizes.forEach((size, layer) => {
    const r = Math.max(2, Math.min(8, (0.36 * h) / size));
    for (let unit = 0; unit < size; unit++) {
      c.beginPath();
      c.arc(X(layer), Y(layer, unit), r, 0, 7);
      c.fillStyle = t.paper;
      c.strokeStyle = t.ink;
      c.lineWidth = 1.5;
      c.fill();
      c.stroke();
    }
  });
  c.fillStyle = t.soft;
  c.textAlign = "left";
  c.fillText(`largest |value| ${number(most)}`, 6, h - 4);
}

/** Shares as bars, each with its name and its number. */
export function bars(target: Target, rows: { name: string; share: number; text: string }[], color: string): void {
  const place = prepare(target, rows.length * 34 + 8);
  if (!place) return;
  const { c, w } = place;
  c.textAlign = "left";
  c.font = "15px system-ui, sans-serif";
  rows.forEach((row, i) => {
    c.fillStyle = theme().ink;
    c.fillText(`${row.name}  ${row.text}`, 4, 24 + i * 34);
    c.fillStyle = theme().grid;
    c.fillRect(0.52 * w, 12 + i * 34, 0.46 * w, 16);
    c.fillStyle = color;
    c.fillRect(0.52 * w, 12 + i * 34, 0.46 * w * row.share, 16);
  });
}
