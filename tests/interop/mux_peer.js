// A secret-stream and protomux peer over TCP: `node mux_peer.js server` or `client PORT COUNT`.
// Both open channel `beemesh/echo`. A server echoes whatever comes; a client sends COUNT messages
// in one batch, then a large one, and prints what came back as one JSON line.
const net = require('net')
const crypto = require('crypto')
const SecretStream = require('@hyperswarm/secret-stream')
const Protomux = require('protomux')
const c = require('compact-encoding')

const ID = Buffer.alloc(32, 7)
const LARGE = Buffer.alloc(3 * 1024 * 1024, 9)
const [role, port, count] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])]
const seed = Buffer.alloc(32, role === 'server' ? 3 : 4)

function open (socket, isInitiator, onmessage, onopen) {
  const keyPair = SecretStream.keyPair(seed)
  const stream = new SecretStream(isInitiator, socket, { keyPair, keepAlive: 200 })
  stream.on('error', () => {})
  const mux = new Protomux(stream)
  const channel = mux.createChannel({
    protocol: 'beemesh/echo',
    id: ID,
    handshake: c.string,
    messages: [
      { encoding: c.raw, onmessage: (m) => onmessage(channel, 0, m) },
      { encoding: c.raw, onmessage: (m) => onmessage(channel, 1, m) }
    ],
    onopen: (handshake) => onopen(channel, handshake, stream)
  })
  channel.open('from js')
  return { mux, stream, channel }
}

if (role === 'server') {
  const server = net.createServer((socket) => {
    open(socket, false, (channel, type, m) => channel.messages[type].send(m), () => {})
  })
  server.listen(0, '127.0.0.1', () => console.log(server.address().port))
} else {
  const result = { handshake: null, messages: 0, ordered: true, large: false, remote: null, rejected: false }
  const hash = crypto.createHash('sha256').update(LARGE).digest('hex')
  const socket = net.connect(port, '127.0.0.1')
  const { mux, stream } = open(socket, true, (channel, type, m) => {
    if (type === 1) {
      result.large = crypto.createHash('sha256').update(m).digest('hex') === hash
      console.log(JSON.stringify(result))
      stream.end()
      return
    }
    if (m.toString() !== 'message ' + result.messages) result.ordered = false
    result.messages++
  }, (channel, handshake, stream) => {
    result.handshake = handshake
    result.remote = stream.remotePublicKey.toString('hex')
    channel.cork()
    for (let i = 0; i < count; i++) channel.messages[0].send(Buffer.from('message ' + i))
    channel.uncork()
    channel.messages[1].send(LARGE)
  })
  const unknown = mux.createChannel({
    protocol: 'beemesh/unknown', onclose: () => { result.rejected = true }
  })
  unknown.open()
}
