// JavaScript hypercores of writers whose seeds are given, which replicate, report conflicts, and
// make and verify fully remote proofs. One JSON command a line in, one answer a line out.
const fs = require('fs')
const net = require('net')
const os = require('os')
const path = require('path')
const readline = require('readline')
const crypto = require('hypercore-crypto')
const Corestore = require('corestore')
const NoiseSecretStream = require('@hyperswarm/secret-stream')
const remote = require('hypercore/lib/fully-remote-proof.js')

console.log = () => {} // hypercore announces conflicts there, among our answers
const root = fs.mkdtempSync(path.join(os.tmpdir(), 'evidence-'))
const stores = new Map()
const cores = new Map()
const streams = []
const bytes = (hex) => Buffer.from(hex, 'hex')

function storeOf(name) {
  if (!stores.has(name)) stores.set(name, new Corestore(path.resolve(root, name)))
  return stores.get(name)
}

function attach(socket, isInitiator, store) {
  const stream = new NoiseSecretStream(isInitiator, socket)
  stream.on('error', () => {})
  storeOf(store).replicate(stream)
  streams.push(stream)
}

function describe({ core, events }) {
  return {
    key: core.key.toString('hex'),
    length: core.length,
    fork: core.fork,
    frozen: core.core.header.frozen === true,
    events
  }
}

const commands = {
  // A core of the writer with this seed, or, by key alone, of somebody else's.
  async open({ id, store, seed, key, blocks = [] }) {
    const options = seed ? { keyPair: crypto.keyPair(bytes(seed)) } : { key: bytes(key) }
    const core = storeOf(store).get(options)
    await core.ready()
    const events = []
    core.on('conflict', (length, fork) => events.push({ conflict: length, fork }))
    core.on('verification-error', (error) => events.push({ error: error.message }))
    cores.set(id, { core, events })
    if (blocks.length > core.length) await core.append(blocks.slice(core.length).map(bytes))
    return describe(cores.get(id))
  },
  async listen({ store }) {
    const server = net.createServer((socket) => attach(socket, false, store))
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    return { port: server.address().port }
  },
  async info({ id }) {
    return describe(cores.get(id))
  },
  async userData({ id, key }) {
    const value = await cores.get(id).core.getUserData(key)
    return { value: value && value.toString('hex') }
  },
  async get({ id, index }) {
    try {
      return { block: (await cores.get(id).core.get(index)).toString('hex') }
    } catch (error) {
      return { failure: error.message }
    }
  },
  async download({ id, stop }) {
    await cores.get(id).core.download({ start: 0, end: stop }).done()
    return describe(cores.get(id))
  },
  async waitConflict({ id }) {
    while (!cores.get(id).events.some((event) => 'conflict' in event)) {
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    return describe(cores.get(id))
  },
  async prove({ id, index, block, upgrade }) {
    const options = { index, upgrade, block: block === undefined ? null : bytes(block) }
    return { proof: (await remote.proof(cores.get(id).core, options)).toString('hex') }
  },
  async verify({ store, proofs, referrer }) {
    const options = referrer ? { referrer: bytes(referrer) } : {}
    const results = []
    for (const proof of proofs) results.push(await verify(storeOf(store), bytes(proof), options))
    return { results }
  },
  async hashes({ id, lengths }) {
    const { core } = cores.get(id)
    const hashes = []
    for (const length of lengths) {
      hashes.push([
        (await core.treeHash(length)).toString('hex'),
        (await core.signable(length)).toString('hex')
      ])
    }
    return { hashes }
  }
}

async function verify(store, proof, options) {
  let result
  try {
    result = await remote.verify(store.storage, proof, options)
  } catch (error) {
    return { failure: error.message }
  }
  if (result === null) return null
  return {
    key: result.key.toString('hex'),
    length: result.length,
    newer: result.newer,
    upgrade: [result.proof.upgrade.start, result.proof.upgrade.length],
    block: result.block && { index: result.block.index, value: result.block.value.toString('hex') }
  }
}

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const { number, command, ...rest } = JSON.parse(line)
  let answer
  try {
    answer = await commands[command](rest)
  } catch (error) {
    answer = { error: error.stack }
  }
  process.stdout.write(JSON.stringify({ number, ...answer }) + '\n')
}).on('close', () => {
  for (const stream of streams) stream.destroy()
  fs.rmSync(root, { recursive: true, force: true, maxRetries: 10 })
  process.exit(0)
})
