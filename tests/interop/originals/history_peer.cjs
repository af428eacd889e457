// JavaScript's corestore on a directory that others change in turn: one JSON command a line in,
// one answer a line out. Between `open` and `close` it has the directory's lock.
const readline = require('readline')
const { createHash } = require('crypto')
const Corestore = require('corestore')

let store = null

function core (name) {
  return store.get({ name })
}

const commands = {
  async open ({ dir, primaryKey }) {
    const options = primaryKey ? { primaryKey: Buffer.from(primaryKey, 'hex'), unsafe: true } : {}
    store = new Corestore(dir, options)
    await store.ready()
    return {}
  },
  async close () {
    await store.close()
    return {}
  },
  async append ({ name, blocks }) {
    await core(name).append(blocks.map((block) => Buffer.from(block)))
    return {}
  },
  async truncate ({ name, length }) {
    await core(name).truncate(length)
    return {}
  },
  async clear ({ name, start, stop }) {
    const cleared = await core(name).clear(start, stop, { diff: true })
    return { cleared }
  },
  // Marks by reading and by ranges [start, stop); `sweep` afterwards or later.
  async mark ({ name, indices = [], ranges = [] }) {
    const marked = core(name)
    await marked.ready()
    await marked.startMarking()
    for (const index of indices) await marked.get(index)
    for (const [start, stop] of ranges) await marked.markBlock(start, stop)
    return {}
  },
  async sweep ({ name }) {
    const swept = core(name)
    await swept.ready()
    await swept.sweep()
    return {}
  },
  async atom ({ changes }) {
    const cores = changes.map(({ name }) => core(name))
    for (const one of cores) await one.ready()
    const atom = cores[0].state.storage.createAtom()
    const sessions = cores.map((one) => one.session({ atom }))
    for (const [number, session] of sessions.entries()) {
      const { append, truncate, userData } = changes[number]
      await session.ready()
      if (truncate !== undefined) await session.truncate(truncate)
      if (append) await session.append(append.map((block) => Buffer.from(block)))
      for (const [key, value] of Object.entries(userData || {})) {
        await session.setUserData(key, Buffer.from(value))
      }
    }
    await atom.flush()
    for (const session of sessions) await session.close()
    return {}
  },
  async join ({ name, topic }) {
    const joined = store.get({ name, group: Buffer.from(topic, 'hex') })
    await joined.ready()
    return { key: joined.key.toString('hex') }
  },
  async updates ({ topic }) {
    const handle = store.notifyGroup(Buffer.from(topic, 'hex'))
    const keys = []
    for await (const key of handle.updates()) keys.push(key.toString('hex'))
    handle.destroy()
    return { keys }
  },
  async purge ({ name }) {
    await core(name).purge()
    return {}
  },
  async names () {
    const names = []
    for await (const { alias } of store.storage.createAliasStream(Buffer.alloc(32))) {
      names.push(alias.name)
    }
    let cores = 0
    for await (const discoveryKey of store.list()) cores += discoveryKey.byteLength === 32 ? 1 : 0
    return { names, cores }
  },
  async describe ({ name }) {
    const one = core(name)
    await one.ready()
    const hash = createHash('sha256')
    const held = []
    for (let i = 0; i < one.length; i++) {
      if (!(await one.has(i))) continue
      held.push(i)
      hash.update(await one.get(i))
    }
    const isSigned = one.length === 0 || one.core.verifier.verify(
      one.state.createTreeBatch(), one.core.header.tree.signature
    )
    const userData = {}
    for (const key of ['note', 'beemesh/marked']) {
      const value = await one.getUserData(key)
      if (value) userData[key] = value.toString()
    }
    // Not treeHash(), which waits for peers when the last block was cleared.
    const audit = await one.core.audit({ dryRun: true })
    return {
      length: one.length,
      byteLength: one.byteLength,
      fork: one.fork,
      contiguousLength: one.contiguousLength,
      writable: one.writable,
      treeHash: one.state.hash().toString('hex'),
      digest: hash.digest('hex'),
      isSigned,
      held,
      userData,
      dropped: audit.droppedTreeNodes + audit.droppedBlocks + audit.droppedBits,
      corrupt: !!audit.corrupt
    }
  }
}

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const { command, ...rest } = JSON.parse(line)
  let answer
  try {
    answer = await commands[command](rest)
  } catch (error) {
    answer = { error: error.message }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}).on('close', () => process.exit())
