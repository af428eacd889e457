// A JavaScript corestore in the directory named on the command line, that signs, appends and reads as it is
// told: one JSON command a line in, one answer a line out. Bytes are hex.
const net = require('net')
const readline = require('readline')
const Corestore = require('corestore')
const CoreStorage = require('hypercore-storage')
const Hypercore = require('hypercore')
const hypercoreCrypto = require('hypercore-crypto')
const NoiseSecretStream = require('@hyperswarm/secret-stream')
const Verifier = require('hypercore/lib/verifier')
const multisig = require('hypercore/lib/multisig')

// hypercore-storage 3.3.1 cannot open stores of Hypercore 10: its migration counts in `head.allocated`, which
// became `head` itself. With this name for it the rest of the migration runs as it is.
const getHead = CoreStorage.prototype._getHead
CoreStorage.prototype._getHead = async function (view) {
  const head = await getHead.call(this, view)
  Object.defineProperty(head, 'allocated', { value: head, enumerable: false })
  return head
}

const primaryKey = process.argv[3] ? { primaryKey: bytes(process.argv[3]), unsafe: true } : {}
const store = new Corestore(process.argv[2], primaryKey)
const cores = new Map()
const streams = []

function bytes(hex) {
  return hex ? Buffer.from(hex, 'hex') : null
}

function hex(buffer) {
  return buffer ? buffer.toString('hex') : null
}

function keyPairOf(seed) {
  return seed ? hypercoreCrypto.keyPair(bytes(seed)) : null
}

function attach(socket, isInitiator) {
  socket.setNoDelay(true)
  const stream = new NoiseSecretStream(isInitiator, socket)
  stream.on('error', () => {})
  store.replicate(stream)
  streams.push(stream)
}

function manifestOf({ signers = [], prologue, linked, userData, ...rest }) {
  return Verifier.createManifest({
    ...rest,
    signers: signers.map(({ publicKey, namespace }) => ({
      publicKey: bytes(publicKey),
      namespace: namespace ? bytes(namespace) : undefined
    })),
    prologue: prologue ? { hash: bytes(prologue.hash), length: prologue.length } : null,
    linked: linked ? linked.map(bytes) : null,
    userData: bytes(userData)
  })
}

function info(core) {
  return {
    key: hex(core.key),
    manifest: core.manifest ? hex(Verifier.encodeManifest(core.manifest)) : null,
    length: core.length,
    byteLength: core.byteLength,
    fork: core.fork,
    treeHash: hex(core.state.hash()),
    signature: hex(core.state.signature),
    compat: core.core.compat,
    isSigned: core.length === 0 || core.core.verifier.verify(core.state.createTreeBatch(), core.state.signature)
  }
}

const commands = {
  async manifest(fields) {
    const manifest = manifestOf(fields)
    return { manifest: hex(Verifier.encodeManifest(manifest)), key: hex(Hypercore.key(manifest)) }
  },
  async open({ id, name, key, manifest, seed, encryptionKey, blockKey }) {
    const options = {}
    if (name) options.name = name
    if (key) options.key = bytes(key)
    if (manifest) options.manifest = Verifier.decodeManifest(bytes(manifest))
    if (seed) options.keyPair = keyPairOf(seed)
    if (encryptionKey) options.encryption = { key: bytes(encryptionKey) }
    if (blockKey) options.encryption = { key: bytes(blockKey), block: true }
    const core = store.get(options)
    await core.ready()
    cores.set(id, core)
    return info(core)
  },
  async info({ id }) {
    return info(cores.get(id))
  },
  async append({ id, blocks, signature, seed }) {
    const options = { signature: bytes(signature), keyPair: keyPairOf(seed) || undefined }
    const core = cores.get(id)
    await core.append(blocks.map((block) => Buffer.from(block, 'hex')), options)
    return info(core)
  },
  async truncate({ id, length, signature }) {
    const core = cores.get(id)
    await core.truncate(length, signature ? { signature: bytes(signature) } : {})
    return info(core)
  },
  async copyPrologue({ id, from }) {
    await cores.get(id).core.copyPrologue(cores.get(from).state)
    return info(cores.get(id))
  },
  async signable({ id, length, fork }) {
    return { signable: hex(await cores.get(id).signable(length, fork)) }
  },
  // What the owner of `seed` signs of its own log `from` for the core `id` at `length`.
  async part({ id, from, seed, length }) {
    const { core } = cores.get(id)
    const source = cores.get(from).core
    const keyPair = keyPairOf(seed)
    const signer = core.manifest.signers.findIndex((one) => one.publicKey.equals(keyPair.publicKey))
    const signature = core.verifier.sign(source.state.createTreeBatch(), keyPair)
    const part = await multisig.partialSignature(source, signer, length, source.state.length, signature)
    return { part: hex(core.verifier.assemble([part])) }
  },
  // A part for the truncation of the core `id` itself.
  async truncationPart({ id, seed, length, fork }) {
    const { core } = cores.get(id)
    const keyPair = keyPairOf(seed)
    const signer = core.manifest.signers.findIndex((one) => one.publicKey.equals(keyPair.publicKey))
    const signable = await cores.get(id).signable(length, fork)
    const signature = hypercoreCrypto.sign(signable, keyPair.secretKey)
    return { part: hex(core.verifier.assemble([{ signer, signature, patch: 0, nodes: null }])) }
  },
  async assemble({ parts }) {
    const inputs = parts.map((data) => {
      const { proofs, patch } = multisig.inflate(bytes(data))
      return { ...proofs[0], nodes: proofs[0].patch ? patch : null }
    })
    return { signature: hex(multisig.assemble(inputs)) }
  },
  async get({ id, indices }) {
    const blocks = await Promise.all(indices.map((index) => cores.get(id).get(index)))
    return { blocks: blocks.map(hex) }
  },
  async getStored({ id, indices }) {
    const blocks = await Promise.all(indices.map((index) => cores.get(id).get(index, { raw: true })))
    return { blocks: blocks.map(hex) }
  },
  async seek({ id, bytes }) {
    return { found: await cores.get(id).seek(bytes) }
  },
  async update({ id }) {
    await cores.get(id).update({ wait: true })
    return info(cores.get(id))
  },
  async download({ id }) {
    const core = cores.get(id)
    await core.download({ start: 0, end: core.length }).done()
    return info(core)
  },
  async waitLength({ id, length, fork = 0 }) {
    const core = cores.get(id)
    while (core.length < length || core.fork < fork) {
      await new Promise((resolve) => { core.once('append', resolve); core.once('truncate', resolve) })
    }
    return info(core)
  },
  async blockKey({ key, encryptionKey, compat }) {
    const keys = Hypercore.DefaultEncryption.deriveKeys(bytes(encryptionKey), bytes(key), { compat })
    return { blockKey: hex(keys.block), blindingKey: hex(keys.blinding) }
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
  }
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
}).on('close', async () => {
  for (const stream of streams) stream.destroy()
  await store.close()
  process.exit(0)
})
