// A Jazz client that a test drives: one JSON command a line on stdin, one JSON answer a line on stdout.
// usage: node jazz_client.mjs ws://127.0.0.1:4200
//   {"do":"create","values":{...}}            -> {"id":"co_z..."}         a map that everyone may write
//   {"do":"createMany","count":100}           -> {"ids":[...]}
//   {"do":"load","id":"co_z..."}              -> {"values":{...}} or {"unavailable":true}, with "ms"
//   {"do":"set","id":"co_z...","key":k,"value":v}  -> {"synced":true}; false after "timeout" ms
//   {"do":"wait","id":"co_z...","key":k,"value":v} -> {"seen":true}       when the edit has arrived
//   {"do":"close"}
import { createInterface } from "node:readline";
import WebSocket from "ws";
import { LocalNode, LogLevel, cojsonInternals, logger } from "cojson";
import { NapiCrypto } from "cojson/crypto/NapiCrypto";
import { WebSocketPeerWithReconnection } from "cojson-transport-ws";

logger.setLevel(LogLevel.NONE);
cojsonInternals.setCoValueLoadingRetryDelay(300);

const SYNC_MS = 60_000;
const crypto = await NapiCrypto.create();
const { node } = await LocalNode.withNewlyCreatedAccount({ creationProps: { name: "test" }, crypto });
const connection = new WebSocketPeerWithReconnection({
  peer: process.argv[2],
  reconnectionTimeout: 100,
  addPeer: (peer) => node.syncManager.addPeer(peer),
  removePeer: () => {},
  WebSocketConstructor: WebSocket,
});
connection.enable();

const group = node.createGroup();
group.addMember("everyone", "writer");

async function loaded(id) {
  const value = await node.load(id);
  if (value === "unavailable") throw new Error(`${id} is unavailable`);
  return value;
}

const commands = {
  async create({ values }) {
    const map = group.createMap();
    for (const [key, value] of Object.entries(values)) map.set(key, value);
    await node.syncManager.waitForAllCoValuesSync(SYNC_MS);
    return { id: map.id };
  },
  async createMany({ count }) {
    const ids = [];
    for (let i = 0; i < count; i++) {
      const map = group.createMap();
      map.set("number", i);
      ids.push(map.id);
    }
    await node.syncManager.waitForAllCoValuesSync(SYNC_MS);
    return { ids };
  },
  async load({ id }) {
    const started = Date.now();
    const value = await node.load(id, true);
    const ms = Date.now() - started;
    return value === "unavailable" ? { unavailable: true, ms } : { values: value.toJSON(), ms };
  },
  async set({ id, key, value, timeout }) {
    const map = await loaded(id);
    map.set(key, value);
    if (timeout) {
      const synced = await map.core.waitForSync({ timeout }).then(() => true, () => false);
      return { synced };
    }
    await map.core.waitForSync({ timeout: SYNC_MS });
    return { synced: true };
  },
  async wait({ id, key, value }) {
    const map = await loaded(id);
    await new Promise((resolve) => {
      const stop = map.subscribe((current) => {
        if (JSON.stringify(current.get(key)) !== JSON.stringify(value)) return;
        queueMicrotask(() => stop());
        resolve();
      });
    });
    return { seen: true };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.do === "close") break;
  try {
    console.log(JSON.stringify(await commands[command.do](command)));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error?.message ?? error) }));
  }
}
connection.disable();
process.exit(0);
