// Runs a corestore on one directory, told what to do on standard input, one JSON object:
//   { dir, primaryKey, readOnly, recovering, steps: [{ core: { name, namespaces } or { key }, ...what to do }] }
// and prints one JSON object: what every core that was touched looks like afterwards.
const Corestore = require('corestore')
const { createHash } = require('crypto')

async function openCore (store, id) {
  let within = store
  for (const name of id.namespaces || []) within = within.namespace(name)
  const encryption = id.encryptionKey ? { key: Buffer.from(id.encryptionKey, 'hex') } : null
  const core = id.key
    ? within.get({ key: Buffer.from(id.key, 'hex'), encryption })
    : within.get({ name: id.name, encryption })
  await core.ready()
  return core
}

async function carryOut (core, step) {
  if (step.append) await core.append(step.append.map((block) => Buffer.from(block, 'hex')))
  if (step.truncate !== undefined) await core.truncate(step.truncate)
  if (step.clear) await core.clear(...step.clear)
  for (const [key, value] of Object.entries(step.userData || {})) {
    await core.setUserData(key, Buffer.from(value, 'hex'))
  }
}

async function describe (core) {
  const hash = createHash('sha256')
  let held = 0
  for (let i = 0; i < core.length; i++) {
    if (!(await core.has(i))) continue
    held++
    hash.update(await core.get(i))
  }
  const signature = core.core.header.tree.signature
  const isSigned = core.length === 0 ||
    core.core.verifier.verify(core.state.createTreeBatch(), signature)
  return {
    key: core.key.toString('hex'),
    discoveryKey: core.discoveryKey.toString('hex'),
    length: core.length,
    byteLength: core.byteLength,
    fork: core.fork,
    contiguousLength: core.contiguousLength,
    writable: core.writable,
    held,
    digest: hash.digest('hex'),
    treeHash: (await core.treeHash()).toString('hex'),
    isSigned,
    audit: await core.core.audit({ dryRun: true })
  }
}

async function main () {
  const chunks = []
  for await (const chunk of process.stdin) chunks.push(chunk)
  const task = JSON.parse(Buffer.concat(chunks).toString())
  const options = task.primaryKey
    ? { primaryKey: Buffer.from(task.primaryKey, 'hex'), unsafe: true }
    : {}
  const store = new Corestore(task.dir, { ...options, readOnly: !!task.readOnly })
  await store.ready()
  const touched = new Map()
  for (const step of task.steps) {
    const core = await openCore(store, step.core)
    await carryOut(core, step)
    touched.set(JSON.stringify(step.core), core)
  }
  const cores = []
  for (const core of touched.values()) cores.push(await describe(core))
  const names = []
  for await (const { alias } of store.storage.createAliasStream(Buffer.alloc(32))) {
    names.push(alias.name)
  }
  if (task.recovering) await store.storage.setRecovering()
  if (task.compact) await store.storage.compact()
  await store.close()
  console.log(JSON.stringify({ cores, names }))
}

main().catch((error) => {
  console.log(JSON.stringify({ error: error.message }))
  process.exit(1)
})
