// Two Jazz clients share a map through a node: start one with `beemesh up`, then
//   cd tests/interop && node --input-type=module - ws://127.0.0.1:4200 < ../../examples/jazz_client.mjs
// (the packages are installed there; in a project of your own: npm install cojson cojson-transport-ws ws)
import WebSocket from "ws";
import { LocalNode } from "cojson";
import { WasmCrypto } from "cojson/crypto/WasmCrypto";
import { WebSocketPeerWithReconnection } from "cojson-transport-ws";

const crypto = await WasmCrypto.create();

async function connect(name) {
  const { node } = await LocalNode.withNewlyCreatedAccount({ creationProps: { name }, crypto });
  new WebSocketPeerWithReconnection({
    peer: process.argv[2],
    reconnectionTimeout: 500,
    addPeer: (peer) => node.syncManager.addPeer(peer),
    removePeer: () => {},
    WebSocketConstructor: WebSocket,
  }).enable();
  return node;
}

const alice = await connect("Alice");
const group = alice.createGroup();
group.addMember("everyone", "writer");
const recipe = group.createMap();
recipe.set("title", "Honey cake");
await recipe.core.waitForSync();
console.log("Alice made", recipe.id);

const bob = await connect("Bob");
const copy = await bob.load(recipe.id);
console.log("Bob reads", copy.get("title"));

copy.set("eggs", 3);
await new Promise((seen) => recipe.subscribe((now) => now.get("eggs") === 3 && seen()));
console.log("Alice sees", recipe.get("eggs"), "eggs");
process.exit(0);
