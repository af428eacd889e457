// JavaScript cores that do what they are told over a control connection: one JSON command a line
// in, one answer a line out. Each control connection has its own cores, in a directory of its own,
// which are gone when it ends; so one process serves a whole file of tests.
const net = require('net')
const os = require('os')
const fs = require('fs')
const path = require('path')
const readline = require('readline')
const Hypercore = require('hypercore')
const NoiseSecretStream = require('@hyperswarm/secret-stream')

const LOOK_AGAIN_MS = 2
const WIRE = ['Sync', 'Request', 'Cancel', 'Data', 'Want', 'Bitfield', 'Range', 'Extension']

const sessions = new Set()

class Session {
  constructor() {
    sessions.add(this)
    this.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cores-'))
    this.cores = new Map()
    this.options = new Map()
    this.streams = new Map()
    this.servers = []
    this.downloads = new Map()
    this.events = new Map()
    this.extensions = new Map()
    this.askedTooLittle = new Map()
  }

  async open({ id, key, options = {} }) {
    const core = new Hypercore(path.join(this.directory, id), key ? Buffer.from(key, 'hex') : null, options)
    this.cores.set(id, core)
    this.options.set(id, { key, options })
    await core.ready()
    const events = this.events.get(id) || []
    this.events.set(id, events)
    core.on('verification-error', (error, request, answer) => {
      events.push('verification ' + error.code)
      if (hasAskedTooLittle(error, request, answer)) this.askedTooLittle.set(id, this.asked(id) + 1)
    })
    core.on('upload', (index) => events.push('upload ' + index))
    core.on('download', (index, size, peer, request) => events.push((request ? 'download ' : 'pushed ') + index))
    core.on('manifest', () => events.push('manifest'))
    core.on('truncate', (length, fork) => events.push('truncate ' + length + ' ' + fork))
    core.on('remote-contiguous-length', (length) => events.push('remote contiguous ' + length))
    return this.state({ id })
  }

  async reopen({ id }) {
    await this.cores.get(id).close()
    return this.open({ id, ...this.options.get(id) })
  }

  async close({ id }) {
    await this.cores.get(id).close()
    return {}
  }

  async listen({ id, name, options = {} }) {
    const server = net.createServer((socket) => this.attach(id, name, socket, false, options))
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    this.servers.push(server)
    return { port: server.address().port }
  }

  async connect({ id, name, port }) {
    const socket = net.connect(port, '127.0.0.1')
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    this.attach(id, name, socket, true)
    return {}
  }

  attach(id, name, socket, isInitiator) {
    socket.setNoDelay(true)
    socket.on('error', () => {}) // the stream tells
    const stream = new NoiseSecretStream(isInitiator, socket)
    const events = this.events.get(id)
    stream.on('error', (error) => events.push('stream ' + (error.code || error.message)))
    stream.on('close', () => events.push('stream closed'))
    for (const one of id.split('+')) this.cores.get(one).replicate(stream)
    this.keep(name, stream)
  }

  keep(name, stream) {
    this.streams.set(name, [...(this.streams.get(name) || []), stream])
  }

  async unpair({ name }) {
    const streams = this.streams.get(name) || []
    this.streams.delete(name)
    const open = streams.filter((stream) => !stream.destroying).length
    await Promise.all(
      streams.map((stream) => new Promise((resolve) => {
        if (stream.destroyed) return resolve()
        stream.once('close', resolve)
        stream.destroy()
      }))
    )
    return { open }
  }

  async state({ id }) {
    const core = this.cores.get(id)
    return {
      key: core.key.toString('hex'),
      length: core.length,
      byte_length: core.byteLength,
      fork: core.fork,
      contiguous: core.contiguousLength,
      remote_contiguous: core.remoteContiguousLength,
      has_manifest: core.manifest !== null,
      asked_too_little: this.asked(id)
    }
  }

  asked(id) {
    return this.askedTooLittle.get(id) || 0
  }

  async peers({ id }) {
    return {
      peers: this.cores.get(id).replicator.peers.map((peer) => ({
        length: peer.remoteLength,
        contiguous: peer.remoteContiguousLength,
        allows_push: peer.remoteAllowPush,
        is_downloading: peer.remoteDownloading,
        is_paused: peer.paused,
        window: peer.inflightRange,
        key: peer.stream.remotePublicKey.toString('hex'),
        ...named(peer.stats)
      }))
    }
  }

  // Blocks that it believes to be on their way though no request for them is open: a block of a
  // later history that comes before the core has gone over to that is dropped, and not asked again.
  async forgotten({ id }) {
    const { _blocks, _inflight } = this.cores.get(id).replicator
    const open = new Set(_inflight)
    const waiting = [..._blocks].filter((block) => block.inflight.some((request) => !open.has(request)))
    return { blocks: waiting.map((block) => block.index) }
  }

  // Blocks by one of which alone it goes on to another history: it asks a peer that has it for a
  // hash on its path. Of each history that was proven and is not followed yet, [start, end).
  async soughtAtForks({ id }) {
    const { _reorgs } = this.cores.get(id).replicator
    const led = _reorgs.filter(({ batch }) => batch !== null && batch.want !== null)
    return { sought: led.map(({ batch }) => [batch.want.start, batch.want.end]) }
  }

  async stats({ id }) {
    return { stats: named(this.cores.get(id).replicator.stats) }
  }

  // Until a figure of `state`, of `stats`, or of "any" or "all" peers (or the one with the index
  // `peer`; their order changes), is at least or exactly that.
  async until({ id, field, least, peer, exactly }) {
    while (true) {
      const figures = { ...(await this.state({ id })), ...(await this.stats({ id })).stats }
      const peers = (await this.peers({ id })).peers
      figures.peer_count = peers.length
      const fits = (value) => (exactly !== undefined ? value === exactly : value >= least)
      const values = peers.map((one) => one[field])
      if (peer === undefined ? fits(figures[field])
        : peer === 'any' ? values.some(fits)
        : peer === 'all' ? values.every(fits)
        : peer < values.length && fits(values[peer])) return {}
      await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS))
    }
  }

  async append({ id, blocks }) {
    await this.cores.get(id).append(blocks.map((block) => Buffer.from(block, 'hex')))
    return {}
  }

  // Appends "#" and its number for each block.
  async fill({ id, count }) {
    const core = this.cores.get(id)
    const blocks = []
    for (let index = core.length; blocks.length < count; index++) blocks.push(Buffer.from('#' + index))
    await core.append(blocks)
    return {}
  }

  async truncate({ id, length }) {
    await this.cores.get(id).truncate(length)
    return {}
  }

  async clear({ id, start, stop }) {
    await this.cores.get(id).clear(start, stop)
    return {}
  }

  async clearEveryOther({ id, length }) {
    const core = this.cores.get(id)
    for (let index = 0; index < length; index += 2) await core.clear(index, index + 1)
    return {}
  }

  async get({ id, index, options }) {
    const block = await this.cores.get(id).get(index, options)
    return { block: block === null ? null : block.toString('hex') }
  }

  // Asks for a block and, once the request is on its way, takes it back.
  async cancelGet({ id, index }) {
    const core = this.cores.get(id)
    const session = core.session()
    const got = session.get(index).then(() => 'GOT', (error) => error.code)
    const requests = core.core.replicator._inflight._requests
    while (!requests.find((request) => request && request.block)) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    await session.close()
    return { result: await got }
  }

  async has({ id, start, stop }) {
    return { has: await this.cores.get(id).has(start, stop) }
  }

  async held({ id, length }) {
    const core = this.cores.get(id)
    const held = []
    for (let index = 0; index < length; index++) if (await core.has(index)) held.push(index)
    return { held }
  }

  async update({ id, options }) {
    return { updated: await this.cores.get(id).update(options) }
  }

  async findingPeers({ id, name }) {
    this.downloads.set(name, { destroy: this.cores.get(id).findingPeers() })
    return {}
  }

  async download({ id, name, options }) {
    this.downloads.set(name, this.cores.get(id).download(options))
    return {}
  }

  async done({ name }) {
    await this.downloads.get(name).done()
    return {}
  }

  async destroy({ name }) {
    this.downloads.get(name).destroy()
    return {}
  }

  async push({ id, index }) {
    await this.cores.get(id).replicator.push(index)
    return {}
  }

  // Pushes the next block after it is stored, and before the length is told.
  async pushWhileAppending({ id, blocks }) {
    const core = this.cores.get(id)
    const state = core.core.state
    const flush = state.flush
    state.flush = async function () {
      const result = await flush.call(state)
      state.flush = flush
      await core.replicator.push(core.length)
      return result
    }
    return this.append({ id, blocks })
  }

  async wantAny({ id, start, length }) {
    this.cores.get(id).replicator.peers[0].wireWant.send({ start, length, any: true })
    return {}
  }

  // What the first peer is known to have of a range.
  async remoteHas({ id, start, stop }) {
    const peer = this.cores.get(id).replicator.peers[0]
    const has = []
    for (let index = start; index < stop; index++) if (peer._remoteHasBlock(index)) has.push(index)
    return { has }
  }

  async setPush({ id, allow, only }) {
    this.cores.get(id).replicator.setAllowPush(allow)
    this.cores.get(id).replicator.setPushOnly(only)
    return {}
  }

  async setActive({ id, active }) {
    this.cores.get(id).setActive(active)
    return {}
  }

  // Sends a request that cannot be answered, to the first peer.
  async invalidRequest({ id, request }) {
    const core = this.cores.get(id)
    const peer = core.replicator.peers[0]
    const message = {
      peer, rt: 0, id: request, fork: 0, block: { index: 0, nodes: 2 }, hash: null,
      seek: { bytes: 1, padding: 1 }, upgrade: { start: 0, length: 2 }, manifest: false,
      priority: 1, timestamp: Date.now(), elapsed: 0
    }
    core.replicator._inflight.add(message)
    peer.wireRequest.send(message)
    return {}
  }

  // Forgets that a block is here, without saying so: what a wrong bitfield looks like to others.
  async forgetBlock({ id, index }) {
    await this.cores.get(id).core.bitfield.set(index, false)
    return {}
  }

  async breakSignatures({ id }) {
    this.cores.get(id).core.verifier = { sign: () => Buffer.alloc(64), verify: () => false }
    return {}
  }

  async extension({ id, name }) {
    const events = this.events.get(id)
    const extension = this.cores.get(id).registerExtension(name, {
      encoding: 'utf-8',
      onmessage: (message) => events.push('extension ' + name + ' ' + message)
    })
    this.extensions.set(id + name, extension)
    return {}
  }

  async sendExtension({ id, name, text }) {
    const core = this.cores.get(id)
    for (const peer of core.peers) this.extensions.get(id + name).send(text, peer)
    return {}
  }

  async takeEvents({ id }) {
    return { events: this.events.get(id).splice(0) }
  }

  async smallWants({ enabled }) {
    Hypercore.enable(enabled ? Hypercore.SMALL_WANTS : 0)
    return {}
  }

  async end() {
    for (const server of this.servers) server.close()
    for (const streams of this.streams.values()) for (const stream of streams) stream.destroy()
    for (const core of this.cores.values()) await core.close().catch(() => {})
    this.remove()
    sessions.delete(this)
  }

  // The database's threads may still write for a moment: then there is something left to remove.
  remove() {
    fs.rmSync(this.directory, { recursive: true, force: true, maxRetries: 10 })
  }
}

// Whether an answer that could not be verified was as long as the request had it: the node that it
// leads to was here, or was thought to be, when it was asked for, and is not any more.
function hasAskedTooLittle(error, request, answer) {
  return error.code === 'INVALID_OPERATION' && request !== null && request.block !== null &&
    answer.block !== null && answer.block.nodes.length >= request.block.nodes
}

function named(stats) {
  const result = {
    hotswaps: stats.hotswaps,
    invalid_data: stats.invalidData,
    invalid_requests: stats.invalidRequests,
    backoffs: stats.backoffs,
    not_available: stats.notAvailableBackoffs
  }
  for (const name of WIRE) {
    result[`wire_${name.toLowerCase()}_rx`] = stats['wire' + name].rx
    result[`wire_${name.toLowerCase()}_tx`] = stats['wire' + name].tx
  }
  return result
}

const control = net.createServer((socket) => {
  const session = new Session()
  socket.on('error', () => {})
  readline.createInterface({ input: socket }).on('line', async (line) => {
    const { number, command, ...rest } = JSON.parse(line)
    let answer
    try {
      answer = await session[command](rest)
    } catch (error) {
      answer = { error: error.code || error.message }
    }
    if (socket.writable) socket.write(JSON.stringify({ number, ...answer }) + '\n')
  }).on('close', () => session.end())
})
control.listen(0, '127.0.0.1', () => console.log(control.address().port))
process.on('unhandledRejection', () => {})
process.on('uncaughtException', (error) => console.error(error.stack))
process.stdin.on('end', () => {
  try {
    for (const session of sessions) session.remove()
  } finally {
    process.exit(0)
  }
}).resume()
