// What a real cojson client says while it uploads, kept for replaying: node jazz/record.mjs --case values|edits|stream --out FILE [--n 5000] [--edits 10]
// values: each CoMap with all its edits at once; edits: one edit of each CoMap after the other, so that each is a message of its own;
// stream: binary CoStreams, with --edits chunks of 100 KiB each.
// FILE gets one frame a line (as a JSON string), then {"values":[ids],"counts":{id:{session:count}},"transactions":T}.
import { L, getCrypto } from './common.mjs'
import { createWriteStream } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import { LocalNode } from 'cojson'
import { createWebSocketPeer } from 'cojson-transport-ws'
import WebSocket, { WebSocketServer } from 'ws'
const a = L.args({ case: 'values', n: 5000, edits: 10, out: '' })
const crypto = await getCrypto('napi')
const agent = () => { const secret = crypto.newRandomAgentSecret(); return new LocalNode(secret, crypto.newRandomSessionID(crypto.getAgentID(secret)), crypto) }
const turn = () => new Promise((resolve) => { setImmediate(resolve) })
const file = createWriteStream(a.out); const write = (value) => file.write(JSON.stringify(value) + '\n')

const server = createServer(); const sync = agent(); const sockets = new WebSocketServer({ server })
sockets.on('connection', (ws) => {
  ws.on('message', (data) => write(String(data)))
  sync.syncManager.addPeer(createWebSocketPeer({ id: 'client', role: 'client', websocket: ws, expectPings: false, batchingByDefault: false }))
})
await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve) })

const { node } = await LocalNode.withNewlyCreatedAccount({ creationProps: { name: 'bench' }, crypto })
const ws = new WebSocket('ws://127.0.0.1:' + server.address().port); await new Promise((resolve) => { ws.once('open', resolve) })
node.syncManager.addPeer(createWebSocketPeer({ id: 'server', role: 'server', websocket: ws, expectPings: false, batchingByDefault: true }))
const group = node.createGroup(); group.addMember('everyone', 'reader'); await node.syncManager.waitForAllCoValuesSync(60000)
const maps = []; const text = (i, e) => 'value ' + i + ' ' + e + ' lorem ipsum dolor sit amet'
if (a.case === 'values') {
  for (let i = 0; i < a.n; i++) { const m = group.createMap(); maps.push(m); for (let e = 0; e < a.edits; e++) m.set('k' + (e % 5), text(i, e), 'private'); if (i % 20 === 19) await turn() }
} else if (a.case === 'stream') {
  const chunk = randomBytes(102400)
  for (let i = 0; i < a.n; i++) {
    const s = group.createBinaryStream(); maps.push(s); s.startBinaryStream({ mimeType: 'application/octet-stream', totalSizeBytes: a.edits * chunk.length }, 'private')
    for (let e = 0; e < a.edits; e++) { s.pushBinaryStreamChunk(chunk, 'private'); await turn(); while (ws.bufferedAmount > 4e6) await new Promise((resolve) => { setTimeout(resolve, 5) }) }
    s.endBinaryStream('private')
  }
} else {
  for (let i = 0; i < a.n; i++) maps.push(group.createMap())
  for (let e = 0; e < a.edits; e++) { for (let i = 0; i < a.n; i++) maps[i].set('k' + (e % 5), text(i, e), 'private'); await turn() }
}
await node.syncManager.waitForAllCoValuesSync(600000)
const counts = {}; for (const m of [group, ...maps]) { const known = m.core.knownState(); counts[known.id] = known.sessions }
write({ values: maps.map((m) => m.id), counts, transactions: a.n * (a.case === 'stream' ? a.edits + 2 : a.edits) })
file.end(() => process.exit(0))
