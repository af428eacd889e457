// A HyperDHT node driven by JSON lines: {"number", "command", ...} in, {"number", ...} out.
// `node dht_peer.cjs testnet COUNT` makes an isolated network first and is a guest of it;
// `node dht_peer.cjs guest PORT` is a guest of the network whose bootstrap node is at PORT.
// `node dht_peer.cjs members HOST,HOST,...` is a network with a node at each of these addresses.
// `node dht_peer.cjs away HOST:PORT` is a guest that knows one node of a network elsewhere.
const readline = require('readline')
const DHT = require('hyperdht')
const createTestnet = require('@hyperswarm/testnet')
const Corestore = require('corestore')
const BlindRelay = require('blind-relay')
const Hyperswarm = require('hyperswarm')
const fs = require('fs')
const os = require('os')
const path = require('path')

const [mode, argument] = [process.argv[2], process.argv[3]]
const number = Number(argument)
const bytes = (hex) => Buffer.from(hex, 'hex')
const hex = (buffer) => buffer && buffer.toString('hex')
const address = (a) => [a.host, a.port]
const servers = []
const connections = new Set()
let store = null
let directory = null

async function openStore () {
  if (store === null) {
    directory = fs.mkdtempSync(path.join(os.tmpdir(), 'dht-peer-'))
    store = new Corestore(directory)
    await store.ready()
  }
  return store
}

function replicate (connection) {
  connections.add(connection)
  connection.on('error', () => {}).on('close', () => connections.delete(connection))
  store.replicate(connection)
}

const PORT = 49737

async function openMembers (hosts) {
  const members = []
  const bootstrap = [{ host: hosts[0], port: PORT }]
  for (const host of hosts) {
    const first = members.length === 0
    members.push(new DHT({
      bootstrap: first ? [] : bootstrap, host, port: PORT, ephemeral: false, firewalled: false
    }))
    await members[members.length - 1].fullyBootstrapped()
  }
  return { testnet: null, bootstrap, dht: members[0], members }
}

async function open () {
  if (mode === 'members') return openMembers(argument.split(','))
  if (mode === 'away') {
    const [host, port] = argument.split(':')
    const dht = new DHT({ bootstrap: [{ host, port: Number(port) }] })
    await dht.fullyBootstrapped()
    return { testnet: null, bootstrap: dht.bootstrapNodes, dht }
  }
  const testnet = mode === 'testnet' ? await createTestnet(number) : null
  const bootstrap = testnet ? testnet.bootstrap : [{ host: '127.0.0.1', port: number }]
  const dht = new DHT({ bootstrap, host: '127.0.0.1' })
  await dht.fullyBootstrapped()
  return { testnet, bootstrap, dht }
}

const record = (p) => ({ key: hex(p.publicKey), relays: p.relayAddresses.map(address) })

const commands = {
  async bootstrap ({ bootstrap }) {
    return { port: bootstrap[0].port }
  },
  async announce ({ dht }, { topic, seed, relays, bump, clear }) {
    const query = dht.announce(bytes(topic), DHT.keyPair(bytes(seed)),
      relays.map(([host, port]) => ({ host, port })), { bump, clear })
    await query.finished()
    return { nodes: query.closestReplies.length }
  },
  async unannounce ({ dht }, { topic, seed }) {
    await dht.unannounce(bytes(topic), DHT.keyPair(bytes(seed)))
    return {}
  },
  async lookup ({ dht }, { topic }) {
    const found = []
    for await (const answer of dht.lookup(bytes(topic))) {
      found.push({ bump: answer.bump, records: answer.peers.map(record) })
    }
    return { found }
  },
  async findPeer ({ dht }, { key }) {
    const found = []
    for await (const answer of dht.findPeer(bytes(key))) {
      found.push({ source: address(answer.from), ...record(answer.peer) })
    }
    return { found }
  },
  async listen ({ dht }, { seed }) {
    const server = dht.createServer()
    await server.listen(DHT.keyPair(bytes(seed)))
    servers.push(server)
    return { relays: server.relayAddresses.map(address) }
  },
  // A core on offer to whoever connects to the key of this seed.
  async serveCore ({ dht }, { seed, name, blocks, refuse }) {
    const core = (await openStore()).get({ name })
    await core.append(blocks.map((block) => Buffer.from(block)))
    const server = dht.createServer({ firewall: (key) => hex(key) === refuse }, replicate)
    await server.listen(DHT.keyPair(bytes(seed)))
    servers.push(server)
    return { core: hex(core.key) }
  },
  // All blocks of a core, from whoever has this key; the time is until the connection is open.
  async fetchCore ({ dht }, { peer, core: key, seed, relays }) {
    const core = (await openStore()).get({ key: bytes(key) })
    await core.ready()
    const started = performance.now()
    const relayAddresses = relays && relays.map(([host, port]) => ({ host, port }))
    const connection = dht.connect(bytes(peer), { keyPair: DHT.keyPair(bytes(seed)), relayAddresses })
    await new Promise((resolve, reject) => {
      connection.once('open', resolve).once('error', reject).once('close', () => reject(new Error('closed')))
    })
    const milliseconds = performance.now() - started
    replicate(connection)
    await core.update({ wait: true })
    const blocks = []
    for (let i = 0; i < core.length; i++) blocks.push((await core.get(i)).toString())
    const { remoteHost: host, remotePort: port } = connection.rawStream
    connection.destroy()
    return { blocks, milliseconds, host, port }
  },
  // Whoever connects to the key of this seed gets back what it says.
  async serveEcho ({ dht }, { seed, relay }) {
    const server = dht.createServer({ relayThrough: relay ? bytes(relay) : null }, (connection) => {
      connections.add(connection)
      connection.on('error', () => {}).on('close', () => connections.delete(connection))
      connection.on('data', (data) => connection.write(data))
    })
    await server.listen(DHT.keyPair(bytes(seed)))
    servers.push(server)
    return { key: hex(server.publicKey) }
  },
  // How long it takes to connect to such a server and to hear back from it.
  async callEcho ({ dht }, { key, seed, relay, settle }) {
    const started = performance.now()
    const connection = dht.connect(bytes(key), {
      keyPair: DHT.keyPair(bytes(seed)), relayThrough: relay ? bytes(relay) : null
    })
    await new Promise((resolve, reject) => {
      connection.once('data', resolve).once('error', reject)
      connection.once('close', () => reject(new Error('closed')))
      connection.write(Buffer.from('hello'))
    })
    const milliseconds = performance.now() - started
    const first = connection.rawStream.remoteHost
    for (let i = 0; i < (settle || 0) * 20 && connection.rawStream.remoteHost === first; i++) {
      connection.write(Buffer.from('still there?'))
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    const { remoteHost: host, remotePort: port } = connection.rawStream
    connection.destroy()
    return { milliseconds, address: host + ':' + port }
  },
  // Joins a topic, with a core on offer, and replicates with whoever is there.
  async swarm (context, { topic, seed, name, blocks }) {
    if (!context.swarm) {
      const { bootstrap } = context
      const dht = new DHT({ bootstrap, host: '127.0.0.1' })
      context.swarm = new Hyperswarm({ keyPair: DHT.keyPair(bytes(seed)), dht })
      context.swarm.on('connection', replicate)
    }
    const core = (await openStore()).get({ name })
    await core.append(blocks.map((block) => Buffer.from(block)))
    await context.swarm.join(bytes(topic)).flushed()
    return { core: hex(core.key), key: hex(context.swarm.keyPair.publicKey) }
  },
  async swarmPeers ({ swarm }) {
    return { keys: [...swarm.connections].map((connection) => hex(connection.remotePublicKey)) }
  },
  // All blocks of a core, from whoever has it.
  async readCore (_, { core: key }) {
    const core = (await openStore()).get({ key: bytes(key) })
    await core.ready()
    while (core.length === 0) await core.update({ wait: true })
    const blocks = []
    for (let i = 0; i < core.length; i++) blocks.push((await core.get(i)).toString())
    return { blocks }
  },
  // Swarms by name, for tests that need several; each says a word on every connection.
  async openSwarm (context, { name, seed, refuse }) {
    context.swarms = context.swarms || new Map()
    const dht = new DHT({ bootstrap: context.bootstrap, host: '127.0.0.1' })
    const swarm = new Hyperswarm({
      keyPair: DHT.keyPair(bytes(seed)), dht, backoffs: [100, 500, 1000, 2000], jitter: 0,
      firewall: (key) => refuse === hex(key)
    })
    swarm.opened = 0
    swarm.on('connection', (connection) => {
      swarm.opened++
      connection.on('error', () => {}).on('data', () => {})
      connection.write(Buffer.from('a word'))
    })
    context.swarms.set(name, swarm)
    return { key: hex(swarm.keyPair.publicKey) }
  },
  async joinTopic ({ swarms }, { name, topic, server, client, wait }) {
    const session = swarms.get(name).join(bytes(topic), { server, client })
    if (wait !== false) await session.flushed()
    return {}
  },
  async leaveTopic ({ swarms }, { name, topic }) {
    await swarms.get(name).leave(bytes(topic))
    return {}
  },
  async swarmState ({ swarms }, { name }) {
    const swarm = swarms.get(name)
    const keys = [...swarm.connections].map((connection) => hex(connection.remotePublicKey))
    return { keys, opened: swarm.opened, banned: swarm.stats.bannedPeers }
  },
  async hangUp ({ swarms }, { name, key }) {
    for (const connection of swarms.get(name).connections) {
      if (hex(connection.remotePublicKey) === key) connection.destroy()
    }
    return {}
  },
  async namedPeer ({ swarms }, { name, key, leave }) {
    if (leave) swarms.get(name).leavePeer(bytes(key))
    else swarms.get(name).joinPeer(bytes(key))
    return {}
  },
  async closeSwarm ({ swarms }, { name }) {
    await swarms.get(name).destroy()
    return {}
  },
  // So many connections at once to a server that echoes; how many bytes came back on all.
  async exchange ({ dht }, { key, seed, count, size, relay }) {
    const data = Buffer.alloc(size, 7)
    const one = () => new Promise((resolve, reject) => {
      const connection = dht.connect(bytes(key), {
        keyPair: DHT.keyPair(bytes(seed)), relayThrough: relay ? bytes(relay) : null
      })
      let received = 0
      connection.on('error', reject).on('data', (chunk) => {
        received += chunk.length
        if (received === size) resolve(connection.end() && received)
      })
      connection.write(data)
    })
    const all = []
    for (let i = 0; i < count; i++) all.push(one())
    return { received: (await Promise.all(all)).reduce((a, b) => a + b, 0) }
  },
  // Answers every connection with a word, and ends it.
  async serveWord ({ dht }, { seed }) {
    const server = dht.createServer((connection) => {
      connection.on('error', () => {})
      connection.end(Buffer.from('a word'))
    })
    await server.listen(DHT.keyPair(bytes(seed)))
    servers.push(server)
    return { key: hex(server.publicKey) }
  },
  async joinPeer ({ swarm }, { key }) {
    swarm.joinPeer(bytes(key))
    return {}
  },
  async leaveSwarm ({ swarm }) {
    await swarm.destroy()
    return {}
  },
  async serveRelay ({ dht }, { seed }) {
    const relay = new BlindRelay.Server({
      createStream: (options) => dht.createRawStream({ ...options, framed: true })
    })
    const server = dht.createServer((connection) => {
      const session = relay.accept(connection, { id: connection.remotePublicKey })
      session.on('error', () => {})
      connection.on('error', () => {})
    })
    await server.listen(DHT.keyPair(bytes(seed)))
    servers.push(server)
    return { key: hex(server.publicKey) }
  },
  async connections () {
    return { count: connections.size }
  },
  async closeServers () {
    for (const connection of connections) connection.destroy()
    while (servers.length) await servers.pop().close()
    return {}
  },
  async mutablePut ({ dht }, { seed, value, seq }) {
    const put = await dht.mutablePut(DHT.keyPair(bytes(seed)), bytes(value), { seq })
    return { nodes: put.closestNodes.length }
  },
  async mutableGet ({ dht }, { key, seq }) {
    const found = await dht.mutableGet(bytes(key), { seq })
    return found ? { value: hex(found.value), seq: found.seq } : { value: null }
  },
  async immutablePut ({ dht }, { value }) {
    return { hash: hex((await dht.immutablePut(bytes(value))).hash) }
  },
  async immutableGet ({ dht }, { hash }) {
    const found = await dht.immutableGet(bytes(hash))
    return { value: found ? hex(found.value) : null }
  },
  async ping ({ dht }, { port }) {
    const pong = await dht.ping({ host: '127.0.0.1', port })
    return { to: address(pong.to), id: hex(pong.from.id) }
  },
  async delayedPing ({ dht }, { port, delay }) {
    const started = Date.now()
    await dht.delayedPing({ host: '127.0.0.1', port }, delay)
    return { elapsed: Date.now() - started }
  },
  async join (context, { count }) {
    context.members = []
    for (let i = 0; i < count; i++) {
      const { bootstrap } = context
      const node = new DHT({ bootstrap, host: '127.0.0.1', ephemeral: false, firewalled: false })
      await node.fullyBootstrapped()
      context.members.push(node)
    }
    return { persistent: context.members.filter((node) => node.id !== null).length }
  },
  async state ({ dht }) {
    return { nodes: dht.nodes.length, firewalled: dht.firewalled, host: dht.host, port: dht.port }
  }
}

open().then((context) => {
  const lines = readline.createInterface({ input: process.stdin })
  lines.on('line', async (line) => {
    const { number, command, ...parameters } = JSON.parse(line)
    let result
    try {
      result = await commands[command](context, parameters)
    } catch (error) {
      result = { error: String(error && (error.code || error.stack || error)) }
    }
    process.stdout.write(JSON.stringify({ number, ...result }) + '\n')
  })
  lines.on('close', () => {
    if (directory !== null) fs.rmSync(directory, { recursive: true, force: true, maxRetries: 10 })
    process.exit(0)
  })
})
