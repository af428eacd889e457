// A peer of udx-native for test_udx.py, driven by lines: each line of stdin is a JSON command, each
// line of stdout a JSON object; `done` says that a command was begun. `node udx_peer.cjs` binds two
// sockets and prints their ports; commands name streams by their local ids.
const crypto = require('crypto')
const readline = require('readline')
const UDX = require('udx-native')
const SecretStream = require('@hyperswarm/secret-stream')

const udx = new UDX()
const sockets = [udx.createSocket(), udx.createSocket()]
const streams = new Map()
const say = (object) => process.stdout.write(JSON.stringify(object) + '\n')

// Bytes that a test can check without sending them over: sha256 chains of a seed.
function * pattern (seed, bytes) {
  let block = Buffer.from(seed)
  while (bytes > 0) {
    const parts = []
    for (let i = 0; i < 1024; i++) parts.push(block = crypto.createHash('sha256').update(block).digest())
    const chunk = Buffer.concat(parts).subarray(0, bytes)
    bytes -= chunk.length
    yield chunk
  }
}

function open ({ id, seq = 0, contactable = false }) {
  const opts = { framed: false, seq }
  // false lets the packet in: it tells where the remote is
  if (contactable) opts.firewall = (socket, port, host) => { say({ event: 'contact', id, port, host }); return false }
  const stream = udx.createStream(id, opts)
  const state = { stream, received: 0, hash: crypto.createHash('sha256'), echo: false, endWithRemote: false }
  streams.set(id, state)
  stream.on('data', (data) => {
    state.received += data.length
    if (state.echo) stream.write(data)
    else state.hash.update(data)
  })
  stream.on('message', (data) => say({ event: 'message', id, data: data.toString('hex') }))
  stream.on('end', () => {
    say({ event: 'end', id, received: state.received, hash: state.hash.digest('hex') })
    if (state.endWithRemote || state.echo) stream.end()
  })
  stream.on('error', (error) => say({ event: 'error', id, code: error.code, message: error.message }))
  stream.on('close', () => say({ event: 'close', id }))
}

async function write ({ id, seed, bytes, end = true }) {
  const { stream } = streams.get(id)
  for (const chunk of pattern(seed, bytes)) {
    if (!stream.write(chunk)) await new Promise((resolve) => stream.once('drain', resolve).once('close', resolve))
    if (stream.destroying) return
  }
  if (end) stream.end()
}

function secret ({ id, initiator, seed }) {
  const keyPair = SecretStream.keyPair(Buffer.alloc(32, seed))
  const { stream } = streams.get(id)
  stream.removeAllListeners('data')
  stream.removeAllListeners('end')
  const secretStream = new SecretStream(initiator, stream, { keyPair, keepAlive: 1000 })
  secretStream.on('open', () => say({ event: 'open', id, remote: secretStream.remotePublicKey.toString('hex') }))
  secretStream.on('data', (data) => secretStream.write(data))
  secretStream.on('end', () => secretStream.end())
  secretStream.on('error', (error) => say({ event: 'secret error', id, message: error.message }))
  secretStream.on('close', () => say({ event: 'secret close', id }))
}

const commands = {
  open,
  write,
  secret,
  connect: ({ id, remote, port, socket = 0, ack = 0 }) => streams.get(id).stream.connect(sockets[socket], remote, port, '127.0.0.1', { ack }),
  echo: ({ id }) => { streams.get(id).echo = true },
  endWithRemote: ({ id }) => { streams.get(id).endWithRemote = true },
  end: ({ id }) => streams.get(id).stream.end(),
  pause: ({ id }) => streams.get(id).stream.pause(),
  resume: ({ id }) => streams.get(id).stream.resume(),
  message: ({ id, data }) => streams.get(id).stream.trySend(Buffer.from(data, 'hex')),
  destroy: ({ id }) => streams.get(id).stream.destroy(),
  change: async ({ id, remote, port, socket = 0 }) => {
    await streams.get(id).stream.changeRemote(sockets[socket], remote, port, '127.0.0.1')
    say({ event: 'changed', id })
  },
  relay: ({ id, to }) => {
    streams.get(id).stream.relayTo(streams.get(to).stream)
    streams.get(to).stream.relayTo(streams.get(id).stream)
  },
  statistics: ({ id }) => {
    const { stream, received } = streams.get(id)
    const { mtu, rtt, cwnd, retransmits, packetsReceived, packetsTransmitted } = stream
    say({ event: 'statistics', id, received, mtu, rtt, cwnd, retransmits, packetsReceived, packetsTransmitted })
  }
}

for (const socket of sockets) socket.bind(0, '127.0.0.1')
say({ event: 'ready', ports: sockets.map((socket) => socket.address().port) })
readline.createInterface({ input: process.stdin })
  .on('line', (line) => { const command = JSON.parse(line); commands[command.do](command); say({ event: 'done', number: command.number }) })
  .on('close', () => process.exit(0))
