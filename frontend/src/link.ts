// Where the frames come from: a socket to the server, a recording inside this file, or a notebook around this page.

import { unpack, unpackRecording, type Frame } from "./wire";

export interface Handlers {
  text(message: Record<string, unknown> & { type: string }): void;
  frame(frame: Frame): void;
  open(): void;
  closed(reason: string, final: boolean): void;
}
export type Send = (message: Record<string, unknown>) => void;
export interface Link {
  send: Send;
}

/** The live server that served this page. Comes back by itself when the server does. */
export function connect(handlers: Handlers): Link {
  const token = new URLSearchParams(location.search).get("token") ?? "";
  let socket: WebSocket | null = null;
  let wait = 500;
  const start = (): void => {
    socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws?token=${encodeURIComponent(token)}`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      wait = 500;
      handlers.open();
    };
    socket.onmessage = (event) => {
      if (typeof event.data === "string") handlers.text(JSON.parse(event.data));
      else handlers.frame(unpack(event.data as ArrayBuffer));
    };
    socket.onclose = (event) => {
      const final = event.code === 1008 || event.code === 1013;
      handlers.closed(event.reason || "The server does not answer. Is it still running?", final);
      if (!final) setTimeout(start, (wait = Math.min(8000, wait * 1.6)));
    };
  };
  start();
  return { send: (message) => socket?.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message)) };
}

/** A notebook that carries messages for us; see `playground/widget.py`. */
export function connectParent(handlers: Handlers): Link {
  window.addEventListener("message", (event) => {
    if (event.source !== window.parent || typeof event.data !== "object") return;
    if (typeof event.data.text === "string") handlers.text(JSON.parse(event.data.text));
    else if (event.data.frame instanceof ArrayBuffer) handlers.frame(unpack(event.data.frame));
  });
  handlers.open();
  return { send: (message) => window.parent.postMessage({ firstlight: JSON.stringify(message) }, "*") };
}

export interface Recorded {
  hello: Record<string, unknown>;
  state: Record<string, unknown>;
  slots: Map<string, Frame[]>;
}

/** The recording that this file carries; null in a live page. */
export async function recording(): Promise<Recorded | null> {
  const text = document.getElementById("recording")?.textContent?.trim();
  if (!text) return null;
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return unpackRecording(await new Response(stream).arrayBuffer());
}
