// Writes peers.json: what peers tell each other through HyperDHT, as hyperdht 6.34.0 encodes it.
// Run it in tests/interop, where the originals are: node ../vectors/swarm/gen_peers.js
const path = require('path')
const fs = require('fs')
const here = process.cwd()
const load = (name) => require(require.resolve(name, { paths: [here] }))
const c = load('compact-encoding')
const m = require(path.join(here, 'node_modules/hyperdht/lib/messages.js'))
const SecurePayload = require(path.join(here, 'node_modules/hyperdht/lib/secure-payload.js'))
const NoiseWrap = require(path.join(here, 'node_modules/hyperdht/lib/noise-wrap.js'))
const DHT = load('hyperdht')

const hex = (buffer) => buffer.toString('hex')
const a = { host: '192.0.2.1', port: 49737 }
const b = { host: '203.0.113.200', port: 1 }
const fill = (byte) => Buffer.alloc(32, byte)

const handshakes = [
  { mode: 0, noise: Buffer.from('0102', 'hex') },
  { mode: 2, noise: Buffer.alloc(300, 7), peerAddress: a },
  { mode: 3, noise: Buffer.alloc(5, 8), peerAddress: a, relayAddress: b },
  { mode: 4, noise: Buffer.alloc(9, 9), peerAddress: b }
].map((h) => hex(c.encode(m.handshake, h)))

const punches = [
  { mode: 0, id: 0, payload: Buffer.alloc(40, 3), peerAddress: a },
  { mode: 1, id: 70000, payload: Buffer.alloc(90, 4), peerAddress: b },
  { mode: 4, id: 3, payload: Buffer.alloc(1, 5) }
].map((h) => hex(c.encode(m.holepunch, h)))

const udx = { version: 1, reusableSocket: true, id: 0xfedcba98, seq: 5 }
const offers = [
  { error: 0, firewall: 0, holepunch: null, addresses4: [], addresses6: [], udx, secretStream: {} },
  {
    error: 0, firewall: 1, holepunch: { id: 9, relays: [{ relayAddress: a, peerAddress: b }] },
    addresses4: [a, b], addresses6: [], udx: { reusableSocket: false, id: 1, seq: 0 },
    secretStream: {}, relayThrough: { publicKey: fill(1), token: fill(2) }, relayAddresses: [b]
  },
  { error: 2, firewall: 3, holepunch: null, addresses4: [], addresses6: [], udx: null,
    secretStream: null }
].map((h) => hex(c.encode(m.noisePayload, h)))

const rounds = [
  { error: 0, firewall: 0, round: 0, connected: false, punching: false },
  { error: 0, firewall: 2, round: 30, connected: true, punching: true, addresses: [a, b],
    remoteAddress: b, token: fill(3), remoteToken: fill(4) },
  { error: 3, firewall: 3, round: 1, connected: false, punching: true, addresses: [],
    remoteToken: fill(5) }
].map((r) => {
  const state = { start: 0, end: 0, buffer: null }
  m.holepunchPayload.preencode(state, r)
  state.buffer = Buffer.alloc(state.end)
  m.holepunchPayload.encode(state, r)
  return hex(state.buffer.subarray(0, state.start))
})

// A first message to a server of a known seed, which has to answer it; and a sealed round.
const server = DHT.keyPair(fill(6))
const caller = DHT.keyPair(fill(7))
const from = new NoiseWrap(caller, server.publicKey)
const offer = { error: 0, firewall: 2, holepunch: null, addresses4: [a], addresses6: [], udx,
  secretStream: {} }
const noise = { server: hex(fill(6)), caller: hex(caller.publicKey), message: hex(from.send(offer)) }

const box = new SecurePayload(fill(8))
const sealed = {
  secret: hex(fill(8)),
  message: hex(box.encrypt({ error: 0, firewall: 1, round: 2, connected: false, punching: true,
    addresses: [b], token: fill(9) }))
}

const file = path.join(__dirname, 'peers.json')
fs.writeFileSync(file, JSON.stringify({ handshakes, punches, offers, rounds, noise, sealed }, null, 1) + '\n')
