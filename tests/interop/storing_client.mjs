// A Jazz client that keeps its values in a SQLite file: one JSON command a line on stdin, one JSON answer on stdout.
// usage: node storing_client.mjs ws://127.0.0.1:4200 FILE      started anew with the same file it is the same account
//   {"do":"create","count":20,"size":500}   -> {"ids":[...]}     maps that everyone may read
//   {"do":"load","ids":[...]}               -> {"loaded":20}
//   {"do":"set","id":"co_z...","value":v}   -> {}                when the server has said that it has it
//   {"do":"reconnect"}                      -> {}                when there is another connection
//   {"do":"heard","ids":[...]}              -> {}                when the server has said on it what it has of all of these
//   {"do":"said"}                           -> {"content":[...],"load":[...]}   the values of such messages, since the start
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import Database from "better-sqlite3";
import WebSocket from "ws";
import { LocalNode, LogLevel, getSqliteStorage, logger } from "cojson";
import { NapiCrypto } from "cojson/crypto/NapiCrypto";
import { WebSocketPeerWithReconnection } from "cojson-transport-ws";

logger.setLevel(LogLevel.NONE);

const [url, file] = process.argv.slice(2);
const said = { content: [], load: [] };
let known = new Set();
let heard = () => {};

const messages = (data) => String(data).split("\n").filter(Boolean).map((line) => JSON.parse(line));

// Tells what goes over the wire, whatever cojson makes of it.
class ToldWebSocket extends WebSocket {
  constructor(...options) {
    super(...options);
    const mine = (known = new Set());
    this.on("message", (data) => {
      for (const { action, id } of messages(data)) if (action === "known") mine.add(id);
      heard();
    });
  }
  send(data, ...options) {
    for (const { action, id } of messages(data)) said[action]?.push(id);
    return super.send(data, ...options);
  }
}

const database = new Database(file);
const storage = getSqliteStorage({
  run: (sql, values) => database.prepare(sql).run(values),
  query: (sql, values) => database.prepare(sql).all(values),
  get: (sql, values) => database.prepare(sql).get(values),
  transaction: (callback) => database.transaction(callback)(),
  closeDb: () => database.close(),
});
const crypto = await NapiCrypto.create();

const identity = `${file}.account`;
const peers = [];
let node;
const connection = new WebSocketPeerWithReconnection({
  peer: url,
  reconnectionTimeout: 100,
  addPeer: (peer) => (node ? node.syncManager.addPeer(peer) : peers.push(peer)),
  removePeer: () => {},
  WebSocketConstructor: ToldWebSocket,
});
connection.enable();
if (existsSync(identity)) {
  const { accountID, accountSecret } = JSON.parse(readFileSync(identity));
  node = await LocalNode.withLoadedAccount({ accountID, accountSecret, sessionID: undefined, peers, storage, crypto });
} else {
  const made = await LocalNode.withNewlyCreatedAccount({ creationProps: { name: "test" }, peers, storage, crypto });
  const { accountID, accountSecret } = made;
  node = made.node;
  writeFileSync(identity, JSON.stringify({ accountID, accountSecret }));
}

async function loaded(id) {
  const value = await node.load(id);
  if (value === "unavailable") throw new Error(`${id} is unavailable`);
  return value;
}

const commands = {
  async create({ count, size }) {
    const group = node.createGroup();
    group.addMember("everyone", "reader");
    const maps = Array.from({ length: count }, () => group.createMap());
    for (const map of maps) map.set("text", "x".repeat(size));
    await node.syncManager.waitForAllCoValuesSync();
    return { ids: maps.map((map) => map.id) };
  },
  async load({ ids }) {
    return { loaded: (await Promise.all(ids.map(loaded))).length };
  },
  async set({ id, value }) {
    const map = await loaded(id);
    map.set("text", value);
    await map.core.waitForSync();
    return {};
  },
  async reconnect() {
    const closed = new Promise((resolve) => {
      const listener = (isConnected) => {
        if (isConnected) return;
        connection.unsubscribe(listener);
        resolve();
      };
      connection.onConnectionChangeListeners.add(listener);
    });
    connection.currentPeer.outgoing.close();
    await closed;
    await connection.waitUntilConnected();
    return {};
  },
  async heard({ ids }) {
    await new Promise((resolve) => {
      heard = () => ids.every((id) => known.has(id)) && resolve();
      heard();
    });
    return {};
  },
  said: () => said,
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    console.log(JSON.stringify(await commands[command.do](command)));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error?.stack ?? error) }));
  }
}
process.exit(0);
