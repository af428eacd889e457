// Puts and gets blobs in the core `blobs` of one store directory; standard input is one JSON object:
//   { dir, steps: [{ put: hex, blockSize } or { get: id, start, length } or { clear: id }] }
// and standard output the results, in order: ids, bytes in hex, null.
const Corestore = require('corestore')
const Hyperblobs = require('hyperblobs')

async function carryOut (blobs, step) {
  if (step.put !== undefined) {
    const options = step.blockSize ? { blockSize: step.blockSize } : {}
    return blobs.put(Buffer.from(step.put, 'hex'), options)
  }
  if (step.clear) {
    await blobs.clear(step.clear)
    return null
  }
  const { start, length } = step
  const bytes = await blobs.get(step.get, start === undefined ? { wait: false } : { start, length })
  return bytes && bytes.toString('hex')
}

async function main () {
  const chunks = []
  for await (const chunk of process.stdin) chunks.push(chunk)
  const task = JSON.parse(Buffer.concat(chunks).toString())
  const store = new Corestore(task.dir)
  await store.ready()
  const core = store.get({ name: 'blobs' })
  await core.ready()
  const blobs = new Hyperblobs(core)
  const results = []
  for (const step of task.steps) results.push(await carryOut(blobs, step))
  await store.close()
  console.log(JSON.stringify(results))
}

main()
