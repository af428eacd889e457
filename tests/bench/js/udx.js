// UDX over a link that delays and loses: node udx.js --case loss1_rtt20 --n 64   (n in MiB)
// node udx.js --serve --link PORT : the receiving end, by the other side's script, too.
const { execFileSync, spawn } = require('child_process'); const fs = require('fs'); const os = require('os'); const path = require('path')
const UDX = require('udx-native'); const L = require('./lib')
const a = L.args({ n: 64, case: 'all', server: 'node udx.js', seed: 1 })
const CHUNK = 65536
function serve () {
  const u = new UDX(); const socket = u.createSocket(); socket.bind(0, '127.0.0.1')
  const stream = u.createStream(2); stream.connect(socket, 1, a.link, '127.0.0.1')
  socket.send(Buffer.from('here'), a.link, '127.0.0.1') // so the link knows where we are
  let received = 0
  stream.on('data', (d) => { received += d.length }); stream.on('end', () => stream.end()); stream.on('error', () => {})
  const started = L.cpuSec(); process.stdout.write(JSON.stringify({ ready: true }) + '\n')
  process.stdin.on('data', () => process.stdout.write(JSON.stringify({ stats: true, received, cpu_s: L.cpuSec() - started, rss_mb: L.rssMb() }) + '\n'))
  process.stdin.on('end', () => process.exit(0))
}
function lines (proc) { // the next line as an object, again and again
  let buf = ''; const waiting = []; const ready = []
  proc.stdout.on('data', (d) => { buf += d; let i; while ((i = buf.indexOf('\n')) !== -1) { const o = JSON.parse(buf.slice(0, i)); buf = buf.slice(i + 1); if (waiting.length) waiting.shift()(o); else ready.push(o) } })
  return () => ready.length ? Promise.resolve(ready.shift()) : new Promise((resolve) => waiting.push(resolve))
}
async function run (name, loss, rtt) {
  const exe = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'udp-link-')), 'udp_link')
  execFileSync('gcc', ['-O2', '-o', exe, path.join(__dirname, '..', 'udp_link.c')])
  const link = spawn(exe, [String(rtt * 500), String(loss * 10000), String(a.seed)], { stdio: ['pipe', 'pipe', 'inherit'] })
  const { left, right } = await lines(link)()
  const [command, ...rest] = a.server.split(' ')
  const server = spawn(command, [...rest, '--serve', '--link', String(right)], { stdio: ['pipe', 'pipe', 'inherit'], cwd: command === 'node' ? __dirname : path.join(__dirname, '..', '..', '..') })
  const next = lines(server); await next()
  const u = new UDX(); const socket = u.createSocket(); socket.bind(0, '127.0.0.1')
  const stream = u.createStream(1); stream.connect(socket, 2, left, '127.0.0.1')
  const size = a.n * 1048576; const chunk = Buffer.from(L.block(1, CHUNK)); const cpu = L.cpuSec(); const start = L.now()
  stream.on('data', () => {})
  await new Promise((resolve) => {
    stream.on('end', resolve)
    let left = size
    const write = () => { while (left > 0) { left -= CHUNK; if (!stream.write(chunk)) return stream.once('drain', write) } stream.end() }
    write()
  })
  const seconds = L.now() - start; const used = L.cpuSec() - cpu; const retransmissions = stream.retransmits
  server.stdin.write('stats\n'); const remote = await next()
  if (remote.received !== size) throw new Error('received ' + remote.received + ' of ' + size)
  const per100 = (s) => +(s * 100 / a.n).toFixed(2)
  L.line(name, a.n, seconds, size, { sender_cpu_per_100mib: per100(used), receiver_cpu_per_100mib: per100(remote.cpu_s), retransmissions, mtu: stream.mtu })
  server.stdin.end(); link.stdin.end(); await new Promise((resolve) => setTimeout(resolve, 100)); stream.destroy(); socket.close(); fs.rmSync(path.dirname(exe), { recursive: true })
}
async function main () {
  const cases = {}; for (const rtt of [0, 20, 100]) for (const loss of [0, 1, 2]) cases['loss' + loss + '_rtt' + rtt] = () => run('loss' + loss + '_rtt' + rtt, loss, rtt)
  for (const c of a.case === 'all' ? Object.keys(cases) : a.case.split(',')) await cases[c]()
}
if (a.serve) serve(); else main().then(() => process.exit(0))
