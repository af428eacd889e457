// A cojson sync server with its SQLite storage, as jazz-run builds it.
// usage: node sqlite_server.mjs FILE   ->  {"port":P}; a line "erase" on stdin -> {"erased":true}; ends with its stdin
import { createInterface } from "node:readline";
import Database from "better-sqlite3";
import { WebSocketServer } from "ws";
import { LocalNode, LogLevel, getSqliteStorage, logger } from "cojson";
import { NapiCrypto } from "cojson/crypto/NapiCrypto";
import { createWebSocketPeer } from "cojson-transport-ws";

logger.setLevel(LogLevel.NONE);

const database = new Database(process.argv[2]);
database.pragma("journal_mode = WAL");
const storage = getSqliteStorage({
  run: (sql, values) => database.prepare(sql).run(values),
  query: (sql, values) => database.prepare(sql).all(values),
  get: (sql, values) => database.prepare(sql).get(values),
  transaction: (callback) => database.transaction(callback)(),
  closeDb: () => database.close(),
});

const crypto = await NapiCrypto.create();
const secret = crypto.newRandomAgentSecret();
const session = crypto.newRandomSessionID(crypto.getAgentID(secret));
const node = new LocalNode(secret, session, crypto);
node.setStorage(storage);

let number = 0;
const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
server.on("connection", (websocket) => {
  const ping = () => websocket.send(JSON.stringify({ type: "ping", time: Date.now(), dc: "test" }));
  ping();
  const timer = setInterval(ping, 1500);
  websocket.on("close", () => clearInterval(timer));
  websocket.on("error", () => {});
  const peer = createWebSocketPeer({
    id: `client ${number++}`,
    role: "client",
    websocket,
    expectPings: false,
    batchingByDefault: false,
    deletePeerStateOnClose: true,
  });
  node.syncManager.addPeer(peer);
});
server.on("listening", () => console.log(JSON.stringify({ port: server.address().port })));

for await (const line of createInterface({ input: process.stdin })) {
  if (line !== "erase") continue;
  await storage.eraseAllDeletedCoValues();
  console.log(JSON.stringify({ erased: true }));
}
database.close();
process.exit(0);
