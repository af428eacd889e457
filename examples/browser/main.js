// A shopping list that everybody with its address edits together, through a node: start one with
// `beemesh up`, then
//   npm install cojson@0.20.19 cojson-transport-ws@0.20.19 esbuild
//   npx esbuild main.js --bundle --format=esm --outfile=bundle.js --servedir=.
// and open http://127.0.0.1:8000/?node=ws://127.0.0.1:4200 in two windows: the second with the address
// that the first one shows once it has made a list.
import { LocalNode } from "cojson";
import { WasmCrypto } from "cojson/crypto/WasmCrypto";
import { WebSocketPeerWithReconnection } from "cojson-transport-ws";

const address = new URL(location.href);
const url = address.searchParams.get("node") ?? "ws://127.0.0.1:4200";
const items = document.querySelector("#items");
const status = document.querySelector("#status");

async function connect() {
  const crypto = await WasmCrypto.create();
  const peers = [];
  let node;
  new WebSocketPeerWithReconnection({
    peer: url,
    reconnectionTimeout: 500,
    addPeer: (peer) => (node ? node.syncManager.addPeer(peer) : peers.push(peer)),
    removePeer: () => {},
  }).enable();
  ({ node } = await LocalNode.withNewlyCreatedAccount({
    creationProps: { name: "A browser" },
    peers,
    crypto,
  }));
  return node;
}

async function openList(node) {
  const id = address.hash.slice(1);
  if (id) {
    const list = await node.load(id);
    if (list === "unavailable") throw new Error(`no node has ${id}`);
    return list;
  }
  const group = node.createGroup();
  group.addMember("everyone", "writer");
  const list = group.createMap();
  await list.core.waitForSync();
  location.hash = list.id;
  return list;
}

function show(list) {
  const rows = list.keys().sort().map((key) => {
    const { text, done } = list.get(key);
    const row = document.createElement("li");
    row.className = done ? "done" : "";
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: done });
    box.onchange = () => list.set(key, { text, done: box.checked });
    label.append(box, " ", Object.assign(document.createElement("span"), { textContent: text }));
    row.append(label);
    return row;
  });
  items.replaceChildren(...rows);
}

try {
  const list = await openList(await connect());
  list.subscribe(show);
  document.querySelector("#add").onsubmit = (event) => {
    event.preventDefault();
    const text = new FormData(event.target).get("text").trim();
    if (text) list.set(`${Date.now()}-${Math.random().toString(36).slice(2)}`, { text, done: false });
    event.target.reset();
  };
  status.textContent = `through ${url}: ${list.id}`;
} catch (error) {
  status.textContent = `failed: ${error.message}`;
}
