// A Jazz client that a test drives: one JSON command a line on stdin, one JSON answer a line on stdout.
// usage: node jazz_client.mjs ws://127.0.0.1:4200
//   {"do":"create","values":{...}}            -> {"id":"co_z..."}         a map that everyone may write
//   {"do":"createMany","count":100}           -> {"ids":[...]}
//   {"do":"invite","role":"writer","values":{...}}  -> {"id":"co_z...","secret":"..."}   a map of a group of its own
//   {"do":"accept","id":"co_z...","secret":s} -> {"synced":true}          join the group of the map
//   {"do":"load","id":"co_z..."}              -> {"values":{...}} or {"unavailable":true}, with "ms"
//   {"do":"set","id":"co_z...","key":k,"value":v}  -> {"synced":true}; false after "timeout" ms
//   {"do":"wait","id":"co_z...","key":k,"value":v} -> {"seen":true}       when the edit has arrived
//   {"do":"grow","id":"co_z...","count":9,"size":50000} -> {"synced":true}   that many edits, one message each
//   {"do":"stream","size":400000}             -> {"id":"co_z...","hash":"..."}   a file of that many bytes
//   {"do":"readStream","id":"co_z..."}        -> {"hash":"..."}
//   {"do":"remove","id":"co_z..."}            -> {"synced":true}          delete the value for good
//   {"do":"isDeleted","id":"co_z..."}         -> {"isDeleted":true}
//   {"do":"close"}
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import WebSocket from "ws";
import { LocalNode, LogLevel, cojsonInternals, logger } from "cojson";
import { NapiCrypto } from "cojson/crypto/NapiCrypto";
import { WebSocketPeerWithReconnection } from "cojson-transport-ws";

logger.setLevel(LogLevel.NONE);
cojsonInternals.setCoValueLoadingRetryDelay(300);

const SYNC_MS = 60_000;
const CHUNK = 100 * 1024;
const hashed = (chunks) => {
  const hash = createHash("sha256");
  for (const chunk of chunks) hash.update(chunk);
  return hash.digest("hex");
};
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
  async invite({ role, values = {} }) {
    const closed = node.createGroup();
    const map = closed.createMap();
    for (const [key, value] of Object.entries(values)) map.set(key, value);
    await node.syncManager.waitForAllCoValuesSync(SYNC_MS);
    return { id: map.id, secret: closed.createInvite(role) };
  },
  async accept({ id, secret }) {
    await node.acceptInvite(id, secret);
    await node.syncManager.waitForAllCoValuesSync(SYNC_MS);
    return { synced: true };
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
  async grow({ id, count, size }) {
    const map = await loaded(id);
    for (let i = 0; i < count; i++) {
      map.set("large", String(i) + "x".repeat(size));
      await map.core.waitForSync({ timeout: SYNC_MS });
    }
    return { synced: true };
  },
  async stream({ size }) {
    const bytes = Buffer.alloc(size);
    for (let i = 0; i < size; i++) bytes[i] = (i * 7919) >> 5;
    const stream = group.createBinaryStream();
    stream.startBinaryStream({ mimeType: "application/octet-stream", totalSizeBytes: size });
    for (let i = 0; i < size; i += CHUNK) stream.pushBinaryStreamChunk(bytes.subarray(i, i + CHUNK));
    stream.endBinaryStream();
    await stream.core.waitForSync({ timeout: SYNC_MS });
    return { id: stream.id, hash: hashed([bytes]) };
  },
  async readStream({ id }) {
    const stream = await loaded(id);
    await new Promise((resolve) => {
      const stop = stream.subscribe((current) => {
        if (!current.isBinaryStreamEnded()) return;
        queueMicrotask(() => stop());
        resolve();
      });
    });
    return { hash: hashed(stream.getBinaryChunks().chunks) };
  },
  async remove({ id }) {
    const map = await loaded(id);
    map.core.deleteCoValue();
    await map.core.waitForSync({ timeout: SYNC_MS });
    return { synced: true };
  },
  async isDeleted({ id }) {
    const core = await node.loadCoValueCore(id, undefined, true);
    return { isDeleted: core.isAvailable() && core.isDeleted };
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
