// Reads JSON cases from stdin, answers each with what hypercore itself says.
//   verify:   does this signature make this head valid?
//   assemble: the multisignature of these parts
const Verifier = require('hypercore/lib/verifier')
const multisig = require('hypercore/lib/multisig')
const { MerkleTreeBatch } = require('hypercore/lib/merkle-tree')

const bytes = (hex) => Buffer.from(hex, 'hex')
const node = ([index, size, hash]) => ({ index, size, hash: bytes(hash) })

function verify({ key, manifest, head, signature }) {
  const roots = head.roots.map(node)
  const byteLength = roots.reduce((sum, root) => sum + root.size, 0)
  const batch = new MerkleTreeBatch({ ...head, roots, byteLength, signature: null, prologue: null })
  const verifier = new Verifier(bytes(key), Verifier.decodeManifest(bytes(manifest)))
  try {
    return verifier.verify(batch, bytes(signature))
  } catch {
    return false
  }
}

function assemble({ version, parts }) {
  const inputs = parts.map(({ signer, signature, patch, nodes }) => ({
    signer,
    signature: bytes(signature),
    patch,
    nodes: patch ? nodes.map(node) : null
  }))
  const encoded = version === 0 ? multisig.assemblev0(inputs) : multisig.assemble(inputs)
  return encoded.toString('hex')
}

const answers = { verify, assemble }
const input = require('fs').readFileSync(0)
const results = JSON.parse(input).map((question) => answers[question.kind](question))
process.stdout.write(JSON.stringify(results))
