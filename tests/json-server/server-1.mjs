// json-server 1.0 (a beta) behind a port of the system's choice: the same messages as server.js serves, in an envelope.
//
// usage: node server-1.mjs DB
//
// What it prints and when it ends is told in server.js.
import fs from "node:fs";
import { fileURLToPath } from "node:url";

// The package exports its command line alone.
const app = fileURLToPath(new URL("node_modules/json-server-1/lib/app.js", import.meta.url));
const { createApp } = await import(app);
const database = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
// A database that is memory and nothing else.
const server = createApp({ data: database, read: async () => {}, write: async () => {} });

// Beneath the application, whose own middlewares are in place already.
const listener = server.listen(
  0,
  () => fs.writeSync(1, `listening ${listener.address().port}\n`),
  "127.0.0.1",
);
listener.prependListener("request", (request) => fs.writeSync(1, `${request.method} ${request.url}\n`));
process.stdin.on("end", () => process.exit(0)).resume();
