// A JavaScript corestore that does what it is told: one JSON command a line in, one answer a line out.
// `corestore-6` as its argument stands for Hypercore 10.
const net = require('net')
const os = require('os')
const fs = require('fs')
const path = require('path')
const readline = require('readline')
const crypto = require('crypto')
const Corestore = require(process.argv[2] || 'corestore')
const NoiseSecretStream = require('@hyperswarm/secret-stream')

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'replication-'))
const store = new Corestore(directory)
const cores = new Map()
const streams = []
const events = []

function attach(socket, isInitiator) {
  socket.setNoDelay(true)
  const stream = new NoiseSecretStream(isInitiator, socket)
  stream.on('error', (error) => events.push('stream: ' + error.message))
  stream.on('close', () => events.push('closed'))
  store.replicate(stream)
  streams.push(stream)
}

const commands = {
  async open({ id, name, key, encryptionKey }) {
    const core = key ? store.get({ key: Buffer.from(key, 'hex') }) : store.get({ name })
    await core.ready()
    if (encryptionKey) await core.setEncryptionKey(Buffer.from(encryptionKey, 'hex'))
    core.on('verification-error', (error) => events.push('verification: ' + error.message))
    cores.set(id, core)
    return info(core)
  },
  async listen() {
    const server = net.createServer((socket) => attach(socket, false))
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    return { port: server.address().port }
  },
  async connect({ port }) {
    const socket = net.connect(port, '127.0.0.1')
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    attach(socket, true)
    return {}
  },
  async info({ id }) {
    return info(cores.get(id))
  },
  async append({ id, blocks }) {
    await cores.get(id).append(blocks.map((block) => Buffer.from(block, 'hex')))
    return info(cores.get(id))
  },
  async fill({ id, count, size }) {
    const core = cores.get(id)
    for (let start = core.length, stop = start + count; start < stop; start += 1000) {
      const blocks = []
      for (let i = start; i < Math.min(start + 1000, stop); i++) blocks.push(block(i, size))
      await core.append(blocks)
    }
    return info(core)
  },
  async clear({ id, start, stop }) {
    await cores.get(id).clear(start, stop)
    return info(cores.get(id))
  },
  async truncate({ id, length }) {
    await cores.get(id).truncate(length)
    return info(cores.get(id))
  },
  async update({ id }) {
    return { updated: await cores.get(id).update({ wait: true }), ...info(cores.get(id)) }
  },
  async waitLength({ id, length, fork = 0 }) {
    const core = cores.get(id)
    while (core.length < length || core.fork < fork) {
      await new Promise((resolve) => { core.once('append', resolve); core.once('truncate', resolve) })
    }
    return info(core)
  },
  async waitContiguous({ id, length }) {
    const core = cores.get(id)
    while (core.contiguousLength < length) await new Promise((resolve) => setTimeout(resolve, 5))
    return info(core)
  },
  async download({ id, start, stop }) {
    await cores.get(id).download({ start, end: stop }).done()
    return info(cores.get(id))
  },
  async follow({ id }) {
    cores.get(id).download({ start: 0, end: -1 })
    return info(cores.get(id))
  },
  async get({ id, index }) {
    return { block: (await cores.get(id).get(index)).toString('hex') }
  },
  async getMany({ id, indices }) {
    const blocks = await Promise.all(indices.map((index) => cores.get(id).get(index)))
    return { blocks: blocks.map((value) => value.toString('hex')) }
  },
  async snapshot({ id, as }) {
    const snapshot = cores.get(id).snapshot()
    await snapshot.ready()
    cores.set(as, snapshot)
    return info(snapshot)
  },
  async getError({ id, index }) {
    try {
      return { code: null, block: (await cores.get(id).get(index)).toString('hex') }
    } catch (error) {
      return { code: error.code }
    }
  },
  async byteStream({ id, start, length }) {
    const pieces = []
    for await (const piece of cores.get(id).createByteStream({ byteOffset: start, byteLength: length })) pieces.push(piece)
    return { bytes: Buffer.concat(pieces).toString('hex') }
  },
  async writeStream({ id, blocks }) {
    const stream = cores.get(id).createWriteStream()
    for (const value of blocks) stream.write(Buffer.from(value, 'hex'))
    stream.end()
    await new Promise((resolve, reject) => stream.once('finish', resolve).once('error', reject))
    return info(cores.get(id))
  },
  async seek({ id, bytes }) {
    return { found: await cores.get(id).seek(bytes) }
  },
  async digest({ id }) {
    const core = cores.get(id)
    const hash = crypto.createHash('sha256')
    for (let i = 0; i < core.length; i++) hash.update(await core.get(i, { wait: false }))
    return { digest: hash.digest('hex') }
  },
  async extension({ id, name, reply }) {
    const core = cores.get(id)
    const extension = core.registerExtension(name, {
      onmessage(message, peer) {
        events.push('extension: ' + message.toString())
        if (reply) extension.send(Buffer.from(reply), peer)
      }
    })
    core.heldExtension = extension
    return {}
  },
  async broadcast({ id, text }) {
    cores.get(id).heldExtension.broadcast(Buffer.from(text))
    return { peers: cores.get(id).peers.length }
  },
  async events() {
    return { events: events.splice(0) }
  },
  async stats({ id }) {
    return { stats: cores.get(id).core.replicator.stats, peers: cores.get(id).peers.length }
  }
}

function block(index, size) {
  const value = Buffer.alloc(size, index & 255)
  value.write('block ' + index + ' ')
  return value
}

function info(core) {
  return { key: core.key.toString('hex'), length: core.length, contiguous: core.contiguousLength, fork: core.fork }
}

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const { number, command, ...rest } = JSON.parse(line)
  let answer
  try {
    answer = await commands[command](rest)
  } catch (error) {
    answer = { error: error.message }
  }
  process.stdout.write(JSON.stringify({ number, ...answer }) + '\n')
}).on('close', () => {
  for (const stream of streams) stream.destroy()
  fs.rmSync(directory, { recursive: true, force: true, maxRetries: 10 })
  process.exit(0)
})
