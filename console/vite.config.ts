import { defineConfig } from "vite";

// The gateway serves the result from memory, from "/" or from a prefix of a reverse proxy: every address is relative.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../gbgw/serve/console",
    emptyOutDir: true,
    target: "es2022",
    sourcemap: false,
    license: { fileName: "licenses.md" }, // of what is bundled: whoever passes it on owes their notices
    modulePreload: { polyfill: false }, // inline scripts are refused by the gateway's CSP
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 700, // hls.js, loaded only when HLS is played
  },
  // `npm run dev` against a gateway: GBGW_URL=http://127.0.0.1:8080 npm run dev
  server: {
    host: "127.0.0.1",
    proxy: Object.fromEntries(
      ["/api", "/live"].map((path) => [path, { target: process.env.GBGW_URL ?? "http://127.0.0.1:8080", ws: true }]),
    ),
  },
});
