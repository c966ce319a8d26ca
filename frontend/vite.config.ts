import { defineConfig } from "vite";
import { viteSingleFile } from "vite-plugin-singlefile";

// One file, so that the same page opens live, from disk and inside a recording, with no request of its own.
export default defineConfig({
  plugins: [viteSingleFile()],
  build: {
    outDir: "dist",
    emptyOutDir: true,
    target: "es2022",
    minify: process.env["NOMIN"] ? false : "oxc",
    modulePreload: { polyfill: false },
  },
});
