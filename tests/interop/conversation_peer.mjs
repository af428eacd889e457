// cojson's sync server, and one of its clients, driven by lines: a JSON command on stdin, a JSON answer on stdout.
// usage: node conversation_peer.mjs
//   {"do":"open"}                                 a server with an empty store
//   {"do":"restart"}                              the same store, everybody gone
//   {"do":"join","peer":P}  {"do":"leave","peer":P}
//   {"do":"say","peer":P,"lines":[...]}           what that client sends
//   {"do":"load","ids":[...]}                     a client of its own loads these, from whomever `hear` speaks for
//   {"do":"hear","lines":[...]}                   what that client is sent
//   {"do":"held"}                                 -> {"held":{id:{session:count}}}, what it has then
// Every answer names the lines that were said since: {"said":{peer:[...]}}; the client of its own is "loader".
import { createInterface } from "node:readline";
import Database from "better-sqlite3";
import { LocalNode, LogLevel, cojsonInternals, getSqliteStorage, logger } from "cojson";
import { NapiCrypto } from "cojson/crypto/NapiCrypto";

logger.setLevel(LogLevel.NONE);
const { ConnectedPeerChannel } = cojsonInternals;
const crypto = await NapiCrypto.create();

let said = {};
let database, server, loader;
let peers = new Map();

function newNode() {
  const secret = crypto.newRandomAgentSecret();
  return new LocalNode(secret, crypto.newRandomSessionID(crypto.getAgentID(secret)), crypto);
}

function boot() {
  server = newNode();
  peers = new Map();
  server.setStorage(
    getSqliteStorage({
      run: (sql, values) => database.prepare(sql).run(values),
      query: (sql, values) => database.prepare(sql).all(values),
      get: (sql, values) => database.prepare(sql).get(values),
      transaction: (callback) => database.transaction(callback)(),
      closeDb: () => {},
    }),
  );
}

// Joins a node to somebody whose lines come from outside.
function join(node, id, role) {
  const incoming = new ConnectedPeerChannel();
  const outgoing = new ConnectedPeerChannel();
  outgoing.onMessage((message) => message !== "Disconnected" && (said[id] ??= []).push(JSON.stringify(message)));
  node.syncManager.addPeer({ id, incoming, outgoing, role, persistent: false });
  return incoming;
}

const tell = (channel, lines) => lines.forEach((line) => channel.push(JSON.parse(line)));

const commands = {
  open() {
    database?.close();
    database = new Database(":memory:");
    loader = undefined;
    boot();
  },
  restart: boot,
  join: ({ peer }) => void peers.set(peer, join(server, peer, "client")),
  leave({ peer }) {
    peers.get(peer).push("Disconnected");
    peers.delete(peer);
  },
  say: ({ peer, lines }) => tell(peers.get(peer), lines),
  load({ ids }) {
    loader = { node: newNode() };
    loader.channel = join(loader.node, "loader", "server");
    for (const id of ids) loader.node.loadCoValueCore(id);
  },
  hear: ({ lines }) => tell(loader.channel, lines),
  held() {
    const held = {};
    for (const value of loader.node.allCoValues()) {
      if (value.isAvailable()) held[value.id] = value.knownState().sessions;
    }
    return { held };
  },
};

// Until nobody has anything to do: what does not run at once is put off to the next turns.
async function quiet() {
  for (let turns = 0; turns < 3; turns++) {
    await new Promise(setImmediate);
    if ([server, loader?.node].some((node) => node?.syncManager.processing)) turns = 0;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const answer = commands[command.do](command) ?? {};
  await quiet();
  process.stdout.write(JSON.stringify({ ...answer, said }) + "\n");
  said = {};
}
process.exit(0);
