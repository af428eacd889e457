// A real cojson client that uploads N maps, waits until all are acknowledged, and prints their ids.
// node fill.mjs ws://HOST:PORT N  ->  {"ids":[...]}
import WebSocket from 'ws'
import { LocalNode, logger, LogLevel } from 'cojson'
import { NapiCrypto } from 'cojson/crypto/NapiCrypto'
import { WebSocketPeerWithReconnection } from 'cojson-transport-ws'

logger.setLevel(LogLevel.NONE)
const [url, count] = [process.argv[2], Number(process.argv[3])]
const crypto = await NapiCrypto.create()
const { node } = await LocalNode.withNewlyCreatedAccount({ creationProps: { name: 'filler' }, crypto })
const link = new WebSocketPeerWithReconnection({
  peer: url,
  reconnectionTimeout: 100,
  addPeer: (peer) => node.syncManager.addPeer(peer),
  removePeer: () => {},
  WebSocketConstructor: WebSocket
})
link.enable()
const group = node.createGroup()
group.addMember('everyone', 'reader')
const ids = []
for (let number = 0; number < count; number++) {
  const map = group.createMap()
  map.set('number', number, 'trusting')
  map.set('text', `value ${number} ` + 'lorem ipsum '.repeat(8))
  ids.push(map.id)
  if (number % 500 === 499) await node.syncManager.waitForAllCoValuesSync(120_000)
}
await node.syncManager.waitForAllCoValuesSync(120_000)
process.stdout.write(JSON.stringify({ ids }) + '\n', () => process.exit(0))
