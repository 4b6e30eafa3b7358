// json-server behind a port of the system's choice, with its usual middlewares.
//
// usage: node server.js DB
//
// Prints `listening PORT` once, then one line per request, `METHOD TARGET`, as it arrives and before it is
// answered: whoever has an answer finds its line in the log. Ends when its standard input does, so that no
// server outlives the test that started it.
"use strict";

const fs = require("fs");
const jsonServer = require("json-server");

const database = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const server = jsonServer.create();

server.use((request, _response, next) => {
  fs.writeSync(1, `${request.method} ${request.originalUrl}\n`);
  next();
});
server.use(jsonServer.defaults({ logger: false }));
// Given an object and not a file name, json-server keeps it in memory and writes nothing.
server.use(jsonServer.router(database));

const listener = server.listen(0, "127.0.0.1", () => {
  fs.writeSync(1, `listening ${listener.address().port}\n`);
});
process.stdin.on("end", () => process.exit(0)).resume();
