// What the originals' decoders make of bytes. One JSON question a line in: { decoder, inputs }, one
// answer a line out: for each input the value's encoding, or null where it is refused.
const readline = require('readline')
const c = require('compact-encoding')
const messages = require('hypercore/lib/messages')
const schema = require('hypercore-storage/encoding/spec/hyperschema')

const node = schema.getEncoding('@core/tree-node')

const primitives = [
  c.uint, c.int, c.buffer, c.buffer, c.string, c.bool, c.array(c.uint), c.uint32array,
  c.fixed32, c.fixed64, c.uint8, c.uint16, c.uint24, c.uint32, c.uint64, node
]

const sequence = {
  preencode(state, values) {
    for (const [number, value] of values) {
      c.uint8.preencode(state, number)
      primitives[number].preencode(state, value)
    }
  },
  encode(state, values) {
    for (const [number, value] of values) {
      c.uint8.encode(state, number)
      primitives[number].encode(state, value)
    }
  },
  decode(state) {
    const values = []
    while (state.start < state.end && values.length < 64) {
      const number = c.uint8.decode(state) % primitives.length
      values.push([number, primitives[number].decode(state)])
    }
    return values
  }
}

const codecs = {
  primitives: sequence,
  manifest: messages.manifest,
  'signature of version 0': messages.multiSignaturev0,
  'signature of version 1': messages.multiSignature,
  'store head': schema.getEncoding('@corestore/head'),
  'core record': schema.getEncoding('@corestore/core'),
  'auth record': schema.getEncoding('@core/auth'),
  'head record': schema.getEncoding('@core/head'),
  hints: schema.getEncoding('@core/hints'),
  'tree node': node,
  ...messages.wire
}

function recoded(decoder, input) {
  try {
    return c.encode(codecs[decoder], c.decode(codecs[decoder], input)).toString('hex')
  } catch {
    return null
  }
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const { decoder, inputs } = JSON.parse(line)
  const results = inputs.map((input) => recoded(decoder, Buffer.from(input, 'hex')))
  process.stdout.write(JSON.stringify({ results }) + '\n')
})
