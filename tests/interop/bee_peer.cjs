// A JavaScript Hyperbee that does what it is told: one JSON command a line in, one answer a line out.
// node bee_peer.cjs [DIRECTORY of a corestore; a temporary one without]
const net = require('net')
const os = require('os')
const fs = require('fs')
const path = require('path')
const readline = require('readline')
const Corestore = require('corestore')
const Hyperbee = require('hyperbee')
const SubEncoder = require('sub-encoder')
const NoiseSecretStream = require('@hyperswarm/secret-stream')

const given = process.argv[2]
const directory = given || fs.mkdtempSync(path.join(os.tmpdir(), 'bee-peer-'))
const store = new Corestore(directory)
const bees = new Map()
const streams = []

const bytes = (hex) => (hex === null || hex === undefined ? hex : Buffer.from(hex, 'hex'))
const shown = (entry) => entry && [entry.seq, entry.key.toString('hex'), entry.value && entry.value.toString('hex')]
const keyOf = (i) => Buffer.from('key-' + String(i).padStart(7, '0'))

function attach (socket, isInitiator) {
  socket.setNoDelay(true)
  const stream = new NoiseSecretStream(isInitiator, socket)
  stream.on('error', () => {})
  store.replicate(stream)
  streams.push(stream)
}

async function one (target, [kind, key, value, accept, names]) {
  const options = typeof accept === 'boolean' ? { cas: () => accept } : {}
  for (const name of names || []) {
    if (target.sub) target = target.sub(bytes(name))
    // A batch has no subs; the encoding of their keys does the same.
    else options.keyEncoding = options.keyEncoding ? options.keyEncoding.sub(bytes(name)) : new SubEncoder(bytes(name))
  }
  if (kind === 'put') await target.put(bytes(key), bytes(value), options)
  else await target.del(bytes(key), options)
}

const commands = {
  async open ({ id, name, key, encryptionKey, options = {} }) {
    const encryption = encryptionKey ? { key: bytes(encryptionKey) } : null
    const core = key ? store.get({ key: bytes(key), encryption }) : store.get({ name })
    await core.ready()
    const bee = new Hyperbee(core, options)
    await bee.ready()
    bees.set(id, bee)
    return info(bee)
  },
  async apply ({ id, operations }) {
    const bee = bees.get(id)
    for (const operation of operations) {
      if (typeof operation[0] === 'string') {
        await one(bee, operation)
        continue
      }
      const batch = bee.batch()
      for (const inner of operation) await one(batch, inner)
      await batch.flush()
    }
    return info(bee)
  },
  // Each number is key and value of an entry; `doubles` are their bytes.
  async putNumbers ({ id, doubles }) {
    const batch = bees.get(id).batch()
    for (const double of doubles) {
      const number = bytes(double).readDoubleBE()
      await batch.put(number, [number, { '1.0': number }])
    }
    await batch.flush()
    return info(bees.get(id))
  },
  async fill ({ id, count, size }) {
    const bee = bees.get(id)
    for (let start = 0; start < count; start += 1000) {
      const batch = bee.batch()
      for (let i = start; i < Math.min(count, start + 1000); i++) {
        const at = (i * 7919) % count
        await batch.put(keyOf(at), Buffer.alloc(size, at & 255))
      }
      await batch.flush()
    }
    return info(bee)
  },
  async blocks ({ id, start, stop }) {
    const core = bees.get(id).core
    const blocks = []
    for (let i = start; i < (stop || core.length); i++) blocks.push((await core.get(i)).toString('hex'))
    return { blocks }
  },
  async get ({ id, key, version }) {
    const bee = bees.get(id)
    return { entry: shown(await (version ? bee.checkout(version) : bee).get(bytes(key))) }
  },
  async range ({ id, gt, gte, lt, lte, reverse = false, limit = -1 }) {
    const entries = []
    const range = { gt: bytes(gt), gte: bytes(gte), lt: bytes(lt), lte: bytes(lte), reverse, limit }
    for (const name of Object.keys(range)) if (range[name] === undefined) delete range[name]
    for await (const entry of bees.get(id).createReadStream(range)) entries.push(shown(entry))
    return { entries }
  },
  async diff ({ id, left, right }) {
    const rows = []
    for await (const row of bees.get(id).checkout(left).createDiffStream(right)) {
      rows.push([shown(row.left), shown(row.right)])
    }
    return { rows }
  },
  // Reads [start, stop) of each, so many at a time; what came over the network for that.
  async sample ({ id, ranges, atOnce }) {
    const bee = bees.get(id)
    let blocks = 0
    const count = () => blocks++
    bee.core.on('download', count)
    const bytes0 = streams.reduce((sum, stream) => sum + stream.rawStream.bytesRead, 0)
    const started = performance.now()
    let entries = 0
    const waiting = ranges.slice()
    const reader = async () => {
      for (let range; (range = waiting.pop());) {
        for await (const _ of bee.createReadStream({ gte: bytes(range[0]), lt: bytes(range[1]) })) entries++
      }
    }
    await Promise.all(Array.from({ length: atOnce }, reader))
    const seconds = (performance.now() - started) / 1000
    bee.core.off('download', count)
    return { entries, blocks, seconds, bytes: streams.reduce((sum, stream) => sum + stream.rawStream.bytesRead, 0) - bytes0 }
  },
  // As `range`, `diff` and the history, of a version and inside subs.
  async view ({ id, version, names = [], kind, other, options = {} }) {
    let view = version ? bees.get(id).checkout(version) : bees.get(id)
    for (const name of names) view = view.sub(bytes(name))
    const bounds = { ...options }
    if (kind !== 'history') for (const name of ['gt', 'gte', 'lt', 'lte']) if (name in bounds) bounds[name] = bytes(bounds[name])
    const rows = []
    if (kind === 'range') for await (const entry of view.createReadStream(bounds)) rows.push(shown(entry))
    if (kind === 'history') for await (const entry of view.createHistoryStream(bounds)) rows.push([entry.type, ...shown(entry)])
    if (kind === 'diff') for await (const row of view.createDiffStream(other, bounds)) rows.push([shown(row.left), shown(row.right)])
    return { rows }
  },
  async header ({ id }) {
    return await bees.get(id).getHeader()
  },
  async held ({ id }) {
    const core = bees.get(id).core
    let held = 0
    for (let i = 0; i < core.length; i++) if (await core.has(i)) held++
    return { held, length: core.length }
  },
  async audit ({ id }) {
    return { stats: await bees.get(id).core.core.audit({}) }
  },
  async listen () {
    const server = net.createServer((socket) => attach(socket, false))
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    return { port: server.address().port }
  },
  async connect ({ port }) {
    const socket = net.connect(port, '127.0.0.1')
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    attach(socket, true)
    return {}
  },
  async waitLength ({ id, length }) {
    const core = bees.get(id).core
    while (core.length < length) await new Promise((resolve) => core.once('append', resolve))
    return info(bees.get(id))
  },
  async messages ({ id }) {
    return { stats: bees.get(id).core.core.replicator.stats }
  },
  async close () {
    for (const stream of streams) stream.destroy()
    await store.close()
    return {}
  }
}

function info (bee) {
  return { key: bee.core.key.toString('hex'), length: bee.core.length }
}

let turn = Promise.resolve()
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const { number, command, ...rest } = JSON.parse(line)
  turn = turn.then(async () => {
    let answer
    try {
      answer = await commands[command](rest)
    } catch (error) {
      answer = { error: error.stack }
    }
    process.stdout.write(JSON.stringify({ number, ...answer }) + '\n')
  })
}).on('close', () => {
  for (const stream of streams) stream.destroy()
  if (!given) fs.rmSync(directory, { recursive: true, force: true, maxRetries: 10 })
  process.exit(0)
})
