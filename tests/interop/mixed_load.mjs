// Real cojson clients that never stop: node mixed_load.mjs ws://HOST:PORT [lanes]
// Two writers and a reader on three connections. Prints, once the server has acknowledged it:
//   {"ack":[id, sessionID, count]} for every edit and every chunk of a binary stream,
//   {"deleted":[id, sessionID]} for every deletion; {"ready":true} first.
// Survives the server's death: it reconnects and goes on. Ends when stdin does.
import WebSocket from 'ws'
import { LocalNode, logger, LogLevel } from 'cojson'
import { NapiCrypto } from 'cojson/crypto/NapiCrypto'
import { WebSocketPeerWithReconnection } from 'cojson-transport-ws'

logger.setLevel(LogLevel.NONE)
const url = process.argv[2]
const lanes = Number(process.argv[3] ?? 4)
const crypto = await NapiCrypto.create()
const print = (value) => process.stdout.write(JSON.stringify(value) + '\n')
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const TIMEOUT = { timeout: 1_800_000 } // the server is dead much of the time

class QuietWebSocket extends WebSocket {
  constructor (address) {
    super(address)
    this.on('error', () => {})
  }
}

async function client (name) {
  const { node } = await LocalNode.withNewlyCreatedAccount({ creationProps: { name }, crypto })
  new WebSocketPeerWithReconnection({
    peer: url,
    reconnectionTimeout: 20,
    addPeer: (peer) => node.syncManager.addPeer(peer),
    removePeer: () => {},
    WebSocketConstructor: QuietWebSocket
  }).enable()
  return node
}

async function acknowledge (value) {
  const sessions = Object.entries(value.core.knownState().sessions)
  await value.core.waitForSync(TIMEOUT)
  for (const [session, count] of sessions) print({ ack: [value.id, session, count] })
}

const [one, two, three] = await Promise.all(['one', 'two', 'reader'].map(client))
const groups = [one, two].map((node) => {
  const group = node.createGroup()
  group.addMember('everyone', 'writer')
  return group
})
for (const group of groups) await group.core.waitForSync(TIMEOUT)
print({ ready: true })
const written = []

async function edits (group, lane) {
  for (let round = 0; ; round++) {
    const map = group.createMap()
    written.push(map.id)
    for (let edit = 0; edit < 10; edit++) {
      map.set('lane' + lane, `round ${round} edit ${edit} ` + 'x'.repeat(200), edit % 2 ? 'trusting' : 'private')
      await acknowledge(map)
    }
  }
}

async function deletions (group) {
  for (let round = 0; ; round++) {
    const map = group.createMap()
    for (let edit = 0; edit < 5; edit++) map.set('k' + edit, `to be deleted ${round}`, 'trusting')
    await acknowledge(map)
    map.core.deleteCoValue()
    await map.core.waitForSync(TIMEOUT)
    for (const session of Object.keys(map.core.knownState().sessions)) if (session.endsWith('$')) print({ deleted: [map.id, session] })
    await sleep(20)
  }
}

async function streams (group) {
  const chunk = new Uint8Array(60 * 1024)
  for (;;) {
    const stream = group.createBinaryStream()
    stream.startBinaryStream({ mimeType: 'application/octet-stream', totalSizeBytes: 6 * chunk.length })
    for (let part = 0; part < 6; part++) {
      stream.pushBinaryStreamChunk(chunk.fill(part))
      await acknowledge(stream)
    }
    stream.endBinaryStream()
    await acknowledge(stream)
    await sleep(100)
  }
}

async function reads () {
  for (let turn = 0; ; turn++) {
    await sleep(30)
    const id = written[(turn * 7919) % written.length]
    if (id === undefined) continue
    const map = await three.load(id)
    if (map === 'unavailable' || turn % 4) continue
    map.set('reader', turn)
    await acknowledge(map)
  }
}

for (let lane = 0; lane < lanes; lane++) edits(groups[lane % 2], lane)
deletions(groups[0])
streams(groups[1])
reads()
process.stdin.on('end', () => process.exit(0)).resume()
