// The binary frames of `playground/protocol.py`, unpacked without copying the numbers.

export type Numbers = Float32Array | Uint8Array | Int32Array;
export interface Frame {
  header: Record<string, unknown> & { type: string };
  arrays: Record<string, { data: Numbers; shape: number[] }>;
}

const KINDS = {
  float32: Float32Array,
  uint8: Uint8Array,
  int32: Int32Array,
} as const;

/** Read one frame that starts at `start`; throws when the mark is missing. */
export function unpack(buffer: ArrayBuffer, start = 0): Frame {
  const bytes = new Uint8Array(buffer, start);
  if (bytes.length < 8 || String.fromCharCode(...bytes.subarray(0, 4)) !== "FL01") {
    throw new Error("This is no frame of the playground.");
  }
  const length = new DataView(buffer).getUint32(start + 4, true);
  const text = new TextDecoder().decode(new Uint8Array(buffer, start + 8, length));
  const { arrays: table, ...header } = JSON.parse(text);
  const arrays: Frame["arrays"] = {};
  const base = start + 8 + length;
  for (const [name, kind, shape, offset] of table as [string, keyof typeof KINDS, number[], number][]) {
    const count = shape.reduce((a, b) => a * b, 1);
    arrays[name] = { data: new KINDS[kind](buffer, base + offset, count), shape };
  }
  return { header: header as Frame["header"], arrays };
}

/** The frames of a recording, slot by slot, in the order in which they were drawn. */
export function unpackRecording(buffer: ArrayBuffer): {
  hello: Record<string, unknown>;
  state: Record<string, unknown>;
  slots: Map<string, Frame[]>;
} {
  const head = unpack(buffer);
  const length = new DataView(buffer).getUint32(4, true);
  const slots = new Map<string, Frame[]>();
  let at = 8 + length;
  for (const [slot, size] of head.header["index"] as [string, number][]) {
    const kept = slots.get(slot) ?? [];
    kept.push(unpack(buffer, at));
    slots.set(slot, kept);
    at += size;
  }
  return {
    hello: head.header["hello"] as Record<string, unknown>,
    state: head.header["state"] as Record<string, unknown>,
    slots,
  };
}
