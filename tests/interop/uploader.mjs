// A real cojson client that never stops writing: node uploader.mjs ws://HOST:PORT
// Prints {"ack":[id, sessionID, count]} for every edit once the server has acknowledged it; {"ready":true} first.
// Survives the server's death: it reconnects and goes on. Ends when stdin does.
import WebSocket from 'ws'
import { LocalNode, logger, LogLevel } from 'cojson'
import { NapiCrypto } from 'cojson/crypto/NapiCrypto'
import { WebSocketPeerWithReconnection } from 'cojson-transport-ws'

logger.setLevel(LogLevel.NONE)
const url = process.argv[2]
const lanes = Number(process.argv[3] ?? 8)
const crypto = await NapiCrypto.create()
const print = (value) => process.stdout.write(JSON.stringify(value) + '\n')

class QuietWebSocket extends WebSocket {
  constructor (address) {
    super(address)
    this.on('error', () => {})
  }
}

const { node, accountID } = await LocalNode.withNewlyCreatedAccount({ creationProps: { name: 'uploader' }, crypto })
const link = new WebSocketPeerWithReconnection({
  peer: url,
  reconnectionTimeout: 20,
  addPeer: (peer) => node.syncManager.addPeer(peer),
  removePeer: () => {},
  WebSocketConstructor: QuietWebSocket
})
link.enable()
const group = node.createGroup()
group.addMember('everyone', 'reader')
await group.core.waitForSync({ timeout: 60_000 })
print({ ready: true, account: accountID, group: group.id })

async function lane (number) {
  for (let round = 0; ; round++) {
    const map = group.createMap()
    for (let edit = 0; edit < 10; edit++) {
      map.set('lane' + number, `round ${round} edit ${edit} ` + 'x'.repeat(200), edit % 2 ? 'trusting' : 'private')
      await map.core.waitForSync({ timeout: 120_000 })
      for (const [session, count] of Object.entries(map.core.knownState().sessions)) print({ ack: [map.id, session, count] })
    }
  }
}
for (let number = 0; number < lanes; number++) lane(number)
process.stdin.on('end', () => process.exit(0)).resume()
