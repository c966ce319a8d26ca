// Puts the built page where the Python package serves it from.
import { copyFileSync, mkdirSync } from "node:fs";

const target = new URL("../src/firstlight/playground/static/", import.meta.url);
mkdirSync(target, { recursive: true });
copyFileSync(new URL("dist/index.html", import.meta.url), new URL("playground.html", target));
