// Real cojson clients for tests.bench.cojson_latency, spoken to by lines on stdin.
// node jazz/uploader.mjs --port P --role upload|edit [--mb 100] [--chunk 102400] [--values 20]
// Prints {"ready":true}. upload: "go" makes a binary stream of --mb and prints {"uploaded":MB,"seconds":S} when the server has acknowledged all of it.
// edit: "go" makes one small edit after the other, each from set() to its acknowledgement; "stop" prints {"edits":N,...percentiles in ms}.
import { L, getCrypto } from './common.mjs'
import { createInterface } from 'node:readline'
import { randomBytes } from 'node:crypto'
import { LocalNode } from 'cojson'
import { createWebSocketPeer } from 'cojson-transport-ws'
import WebSocket from 'ws'
const a = L.args({ port: 0, role: 'edit', mb: 100, chunk: 102400, values: 20 })
const crypto = await getCrypto('napi')
const print = (value) => process.stdout.write(JSON.stringify(value) + '\n')
const turn = () => new Promise((resolve) => { setImmediate(resolve) })

const { node } = await LocalNode.withNewlyCreatedAccount({ creationProps: { name: a.role }, crypto })
const ws = new WebSocket('ws://127.0.0.1:' + a.port); await new Promise((resolve) => { ws.once('open', resolve) })
node.syncManager.addPeer(createWebSocketPeer({ id: 'server', role: 'server', websocket: ws, expectPings: false, batchingByDefault: true }))
const group = node.createGroup()
const maps = Array.from({ length: a.values }, () => group.createMap({ a: 0 }))
await node.syncManager.waitForAllCoValuesSync(60000)

async function upload () {
  const bytes = a.mb * 1e6; const stream = group.createBinaryStream(); const data = randomBytes(a.chunk)
  const started = L.now()
  stream.startBinaryStream({ mimeType: 'application/octet-stream', totalSizeBytes: bytes }, 'private')
  for (let sent = 0; sent < bytes; sent += a.chunk) {
    stream.pushBinaryStreamChunk(data, 'private')
    await turn()
    // As much ahead of the network as an app that reads a file would let it get.
    while (ws.bufferedAmount > 4e6) await new Promise((resolve) => { setTimeout(resolve, 5) })
  }
  stream.endBinaryStream('private')
  await stream.core.waitForSync({ timeout: 600000 })
  print({ uploaded: a.mb, seconds: +(L.now() - started).toFixed(3) })
}

let goes = false
async function edit () {
  const latencies = []
  for (let i = 0; goes; i++) {
    const map = maps[i % maps.length]; const started = L.now()
    map.set('a', i, 'private'); await map.core.waitForSync({ timeout: 60000 })
    latencies.push(L.now() - started)
    await new Promise((resolve) => { setTimeout(resolve, 2) })
  }
  print({ edits: latencies.length, ...L.stats(latencies) })
}

print({ ready: true })
createInterface({ input: process.stdin }).on('line', (line) => {
  if (line === 'stop') goes = false
  else if (a.role === 'upload') upload()
  else { goes = true; edit() }
}).on('close', () => process.exit(0))
