// Makes dht.json beside this file: datagrams that dht-rpc 6.27.0 sends, and payloads and signatures
// of hyperdht 6.34.0. Run it where these packages are installed: `node gen_dht.js`.
const fs = require('fs')
const path = require('path')
const b4a = require('b4a')
const c = require('compact-encoding')
const crypto = require('hypercore-crypto')
const IO = require('dht-rpc/lib/io')
const Table = require('kademlia-routing-table')
const peer = require('dht-rpc/lib/peer')
const m = require('hyperdht/lib/messages')
const Persistent = require('hyperdht/lib/persistent')

const hex = (b) => b === null || b === undefined ? null : b4a.toString(b, 'hex')
const fill = (n, size = 32) => b4a.alloc(size, n)
const address = (a) => a && `${a.host}:${a.port}`

const sent = []
const socket = {
  bound: true,
  on () {},
  bind () {},
  address: () => ({ host: '0.0.0.0', port: 1 }),
  trySend: (data) => sent.push(data),
  close: async () => {}
}
const udx = { createSocket: () => socket, watchNetworkInterfaces: () => ({ destroy () {} }) }

async function datagrams () {
  const here = { host: '203.0.113.9', port: 49737 }
  const table = new Table(peer.id(here.host, here.port))
  const received = []
  const io = new IO(table, udx, { onrequest: (req) => received.push(req), firewalled: false })
  await io.bind()
  io._secrets = [fill(8), fill(9)]
  const requests = []
  const cases = [
    ['ping', null, true, 0, null, null, true],
    ['ping from a persistent node', null, true, 0, null, null, false],
    ['ping nat', null, true, 1, null, b4a.from([0x49, 0xc2]), true],
    ['find node', null, true, 2, fill(5), null, true],
    ['down hint', null, true, 3, null, c.encode(peer.ipv4, { host: '10.1.2.3', port: 65535 }), true],
    ['delayed ping', null, true, 4, null, c.encode(c.uint32, 1500), true],
    ['lookup', null, false, 3, fill(6), null, false],
    ['announce', fill(7), false, 4, fill(6), b4a.from('value'), false],
    ['large command', null, false, 70000, null, fill(1, 300), true]
  ]
  const to = { host: '127.0.0.1', port: 49737, id: null }
  for (const [name, token, internal, command, target, value, ephemeral] of cases) {
    io.ephemeral = ephemeral
    io._tid = 258
    const request = io.createRequest(to, token, internal, command, target, value, null)
    request.send(true)
    clearTimeout(request._timeout)
    requests.push({
      name, transaction: 258, to: address(to), id: ephemeral ? null : hex(table.id), token: hex(token),
      internal, command, target: hex(target), value: hex(value), datagram: hex(sent.pop())
    })
  }
  const responses = []
  for (let i = 1; i <= 30; i++) {
    const node = { host: `198.51.100.${i}`, port: 1000 * i }
    table.add({ ...node, id: peer.id(node.host, node.port) })
  }
  const from = { host: '192.0.2.77', port: 4000, id: null }
  for (const [name, error, value, token, closer, ephemeral, target] of [
    ['empty', 0, null, false, false, true, null],
    ['persistent', 0, null, false, false, false, null],
    ['closer nodes', 0, null, false, true, false, fill(5)],
    ['value and token', 0, b4a.from('value'), true, true, false, fill(6)],
    ['invalid token', 2, null, true, true, true, fill(6)],
    ['sequence too low', 17, null, false, false, true, null]
  ]) {
    io.ephemeral = ephemeral
    io._tid = 513
    const request = io.createRequest(from, null, false, 3, target, null, null)
    request.from = from
    request.sendReply(error, value, token, closer)
    responses.push({
      name, transaction: 513, to: address(from), id: ephemeral ? null : hex(table.id),
      token: token ? hex(io.token(from, 1)) : null,
      closer: closer ? table.closest(target).map(address) : [],
      error, value: hex(value), datagram: hex(sent.pop())
    })
  }
  clearInterval(io._drainInterval)
  return { requests, responses }
}

function payloads () {
  const keyPair = crypto.keyPair(fill(1))
  const relays = [{ host: '192.0.2.1', port: 49737 }, { host: '192.0.2.2', port: 1 }]
  const record = { publicKey: keyPair.publicKey, relayAddresses: relays }
  const bare = { publicKey: keyPair.publicKey, relayAddresses: [] }
  const announcements = []
  const [target, token, id] = [fill(2), fill(3), fill(4)]
  for (const [name, ann] of [
    ['with relays', { peer: record, refresh: null, bump: 0 }],
    ['without relays', { peer: bare, refresh: null, bump: 0 }],
    ['with refresh and bump', { peer: record, refresh: fill(7), bump: 1234567890123 }]
  ]) {
    const signature = Persistent.signAnnounce(target, token, id, ann, keyPair)
    const unannounce = Persistent.signUnannounce(target, token, id, ann, keyPair)
    announcements.push({
      name, relays: ann.peer.relayAddresses.map(address), refresh: hex(ann.refresh), bump: ann.bump,
      record: hex(c.encode(m.peer, ann.peer)), signature: hex(signature), unannounce: hex(unannounce),
      encoded: hex(c.encode(m.announce, { ...ann, signature }))
    })
  }
  const raw = [record, bare].map((r) => c.encode(m.peer, r))
  const mutables = []
  for (const [seq, value] of [[0, b4a.from('a')], [7, b4a.from('mutable value')], [70000, fill(1, 300)]]) {
    const signature = Persistent.signMutable(seq, value, keyPair)
    mutables.push({
      seq, value: hex(value), signature: hex(signature),
      put: hex(c.encode(m.mutablePutRequest, { publicKey: keyPair.publicKey, seq, value, signature })),
      response: hex(c.encode(m.mutableGetResponse, { seq, value, signature }))
    })
  }
  return {
    seed: hex(fill(1)), target: hex(target), token: hex(token), storingId: hex(id),
    peerTarget: hex(crypto.hash(keyPair.publicKey)),
    announcements,
    refreshOnly: hex(c.encode(m.announce, { peer: null, refresh: fill(7), signature: null, bump: 0 })),
    lookups: [0, 1500].map((bump) => ({ bump, encoded: hex(c.encode(m.lookupRawReply, { peers: raw, bump })) })),
    lookupOfOld: hex(c.encode(m.peers, [record, bare])),
    mutables
  }
}

function nodeIds () {
  return [['127.0.0.1', 49737], ['0.0.0.0', 0], ['255.255.255.255', 65535], ['88.99.3.86', 49737]]
    .map(([host, port]) => ({ address: `${host}:${port}`, id: hex(peer.id(host, port)) }))
}

function table () {
  const own = peer.id('203.0.113.9', 49737)
  const rows = new Table(own)
  const nodes = []
  const refused = []
  for (let i = 0; i < 400; i++) {
    const node = { host: `10.51.${i >> 8}.${i & 255}`, port: 1000 + i }
    nodes.push(address(node))
    if (!rows.add({ ...node, id: peer.id(node.host, node.port) })) refused.push(address(node))
  }
  return { own: hex(own), nodes, refused }
}

async function main () {
  const made = { nodeIds: nodeIds(), ...(await datagrams()), payloads: payloads(), table: table() }
  fs.writeFileSync(path.join(__dirname, 'dht.json'), JSON.stringify(made, null, 1) + '\n')
}

main()
