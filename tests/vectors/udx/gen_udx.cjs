// Prints the packets that a stream of udx-native sends, one JSON object a line each: what was asked
// for, and the datagram in hex. With the originals in NODE_PATH:
// `node gen_udx.cjs > packets.jsonl` (udx-native 1.21.3).
const dgram = require('dgram')
const UDX = require('udx-native')

const LOCAL_ID = 7
const REMOTE_ID = 0x01020304
const u = new UDX()
const socket = u.createSocket()
socket.bind(0, '127.0.0.1')
const stream = u.createStream(LOCAL_ID, { framed: false, seq: 5 })
stream.on('error', () => {})

const raw = dgram.createSocket('udp4')
let current = 'connect'
raw.on('message', (datagram) => {
  console.log(JSON.stringify({ what: current, datagram: datagram.toString('hex') }))
})

function header (flags, seq, ack, body = Buffer.alloc(0), window = 65536) {
  const b = Buffer.alloc(20)
  b[0] = 255
  b[1] = 1
  b[2] = flags
  b.writeUInt32LE(LOCAL_ID, 4)
  b.writeUInt32LE(window, 8)
  b.writeUInt32LE(seq, 12)
  b.writeUInt32LE(ack, 16)
  return Buffer.concat([b, body])
}

const send = (packet) => raw.send(packet, socket.address().port, '127.0.0.1')
const pause = () => new Promise((resolve) => setTimeout(resolve, 50))

raw.bind(0, '127.0.0.1', async () => {
  stream.connect(socket, REMOTE_ID, raw.address().port, '127.0.0.1')
  const steps = {
    data: () => stream.write(Buffer.from('hi')),
    message: () => stream.trySend(Buffer.from('unordered')),
    acknowledgement: () => send(header(1, 0, 6, Buffer.from('there'))),
    'selective acknowledgement': () => send(header(1, 3, 6, Buffer.from('d'))),
    'two ranges': () => { send(header(1, 6, 6, Buffer.from('g'))); send(header(1, 7, 6, Buffer.from('h'))) },
    'answer to a heartbeat': () => send(header(32, 1, 6)),
    // The window closes with what was sent so far, and then there is more to say.
    heartbeat: () => { send(header(0, 8, 6, undefined, 0)); setTimeout(() => stream.write(Buffer.from('wait')), 10) },
    'data and end': () => { stream.end(Buffer.from('bye')); send(header(0, 9, 6)) },
    destroy: () => stream.destroy()
  }
  for (const [what, step] of Object.entries(steps)) {
    current = what
    step()
    await pause()
  }
  raw.close()
  socket.close()
})
