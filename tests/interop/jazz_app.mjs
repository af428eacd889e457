// A small app as Jazz developers write it, with jazz-tools: two users, one at each of two servers.
// usage: node jazz_app.mjs ws://127.0.0.1:4200 ws://127.0.0.1:4201
// Prints "ok ..." for what came true, "FAILED ..." for what did not, and how many of each.
import { createHash, randomBytes } from "node:crypto";
import WebSocket from "ws";
import {
  Account, Group, InboxSender, MockSessionProvider, co, createInviteLink,
  createJazzContextForNewAccount, deleteCoValues, z,
} from "jazz-tools";
import { startWorker } from "jazz-tools/worker";
import { LogLevel, logger } from "cojson";
import { NapiCrypto } from "cojson/crypto/NapiCrypto";
import { WebSocketPeerWithReconnection } from "cojson-transport-ws";

logger.setLevel(LogLevel.NONE);
// jazz-tools says there what is expected here: that a file was written, that a value was deleted.
for (const level of ["debug", "log", "info", "warn", "error"]) console[level] = () => {};

const [first, second] = process.argv.slice(2);
const crypto = await NapiCrypto.create();
const TASKS = 20;
const FILE_BYTES = 3_000_000;
const SYNC = { timeout: 30_000 };

let passed = 0;
let failed = 0;
function check(isTrue, claim) {
  if (isTrue) passed += 1;
  else failed += 1;
  process.stdout.write(`${isTrue ? "ok" : "FAILED"} ${claim}\n`);
}

const hashed = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** Resolves as soon as `holds()` does, or with false after some seconds. */
async function comesTrue(holds) {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    if (await holds()) return true;
    await new Promise((done) => setTimeout(done, 20));
  }
  return false;
}

/** The credentials of a new account, which was made at that server. */
async function signUp(server, name) {
  let node;
  const early = [];
  const connection = new WebSocketPeerWithReconnection({
    peer: server,
    reconnectionTimeout: 100,
    addPeer: (peer) => (node ? node.syncManager.addPeer(peer) : early.push(peer)),
    removePeer: () => {},
    WebSocketConstructor: WebSocket,
  });
  connection.enable();
  await connection.waitUntilConnected();
  const context = await createJazzContextForNewAccount({
    creationProps: { name },
    peers: early,
    crypto,
    sessionProvider: new MockSessionProvider(),
    asActiveAccount: false,
  });
  node = context.account.$jazz.localNode;
  await context.account.$jazz.waitForAllCoValuesSync(SYNC);
  const credentials = {
    accountID: context.account.$jazz.id,
    accountSecret: node.getCurrentAgent().agentSecret,
  };
  connection.disable();
  context.done();
  return credentials;
}

async function logIn(credentials, syncServer, asActiveAccount = false) {
  const options = { ...credentials, syncServer, WebSocket, crypto, asActiveAccount };
  const { worker, experimental, done } = await startWorker(options);
  return { ...credentials, me: worker, inbox: experimental.inbox, done };
}

const synced = (user) => user.me.$jazz.waitForAllCoValuesSync(SYNC);

const Task = co.map({
  title: co.plainText(),
  isDone: z.boolean(),
  due: z.date().optional(),
  tags: co.list(z.string()),
});
const Project = co.map({
  name: z.string(),
  tasks: co.list(Task),
  notes: co.richText(),
  news: co.feed(z.object({ kind: z.literal(["made", "closed"]), at: z.number() })),
  counts: co.record(z.string(), z.number()),
  file: co.optional(co.fileStream()),
});
const Settings = co.map({ color: z.string() });
const Message = co.map({ text: z.string() });

const ann = await logIn(await signUp(first, "Ann"), first, true);
const ben = await logIn(await signUp(second, "Ben"), second);

// A project of a group, with everything that values can be.
const team = Group.create({ owner: ann.me });
const project = Project.create(
  { name: "Bees", tasks: [], notes: "<p>Wings</p>", news: [], counts: {} }, team,
);
for (let i = 0; i < TASKS; i++) {
  const task = { title: `task ${i}`, isDone: false, due: new Date(0), tags: ["all", `${i}`] };
  project.tasks.$jazz.push(task);
  project.counts.$jazz.set(`count ${i}`, i);
}
project.news.$jazz.push({ kind: "made", at: 1 });
const bytes = randomBytes(FILE_BYTES);
const blob = new Blob([bytes], { type: "application/octet-stream" });
project.$jazz.set("file", await co.fileStream().createFromBlob(blob, { owner: team }));
team.addMember(await Account.load(ben.accountID, { loadAs: ann.me }), "writer");
await synced(ann);

const id = project.$jazz.id;
const all = { tasks: { $each: { title: true, tags: true } }, notes: true, news: true, counts: true };
const seen = await Project.load(id, { loadAs: ben.me, resolve: { ...all, file: true } });
check(seen.$isLoaded && seen.tasks.length === TASKS, "the other user loads all of it, at the other server");
check(seen.tasks[7].title.toString() === "task 7" && seen.tasks[7].tags[1] === "7", "texts and lists are there");
check(seen.notes.toString() === "<p>Wings</p>" && seen.counts["count 9"] === 9, "rich texts and records, too");
check(seen.news.perAccount[ann.accountID].value.at === 1, "a feed has its author");
const file = await co.fileStream().loadAsBlob(seen.file.$jazz.id, { loadAs: ben.me });
check(hashed(Buffer.from(await file.arrayBuffer())) === hashed(bytes), "a file is the same, byte for byte");

// Both edit, and each sees what the other does.
let isHeard = false;
const stop = Project.subscribe(id, { loadAs: ann.me, resolve: { tasks: true } }, (value) => {
  isHeard ||= value.tasks.length === TASKS + 1;
});
seen.tasks.$jazz.push({ title: "of Ben", isDone: true, tags: [] });
seen.tasks[0].title.insertBefore(0, "first ");
check(await comesTrue(() => isHeard), "a subscription hears of an edit at the other server");
stop();
const title = project.tasks[0].title;
check(await comesTrue(() => title.toString() === "first task 0"), "a text is edited in place");

// An invitation, and rights that come by way of another group.
const cas = await logIn(await signUp(first, "Cas"), second);
const [, invitedTo, secret] = createInviteLink(project, "reader", "http://app/").match(/(co_z\w+)\/(inviteSecret_z\w+)/);
await cas.me.acceptInvite(invitedTo, secret, Project);
const read = await Project.load(id, { loadAs: cas.me, resolve: { tasks: { $each: { title: true } } } });
check(read.$isLoaded && read.tasks.length === TASKS + 1, "who was invited reads it");
const circle = Group.create({ owner: ann.me });
circle.addMember(team);
const settings = Settings.create({ color: "red" }, circle);
await synced(ann);
const inherited = await Settings.load(settings.$jazz.id, { loadAs: cas.me });
check(inherited.$isLoaded && inherited.color === "red", "and what a group of that group owns");

// A message to a server worker, and its answer.
let letter;
ann.inbox.subscribe(Message, async (message, from) => {
  letter = { text: message.text, from };
  return Message.create({ text: "yes" }, { owner: message.$jazz.owner });
});
const between = Group.create({ owner: ben.me });
between.addMember(await Account.load(ann.accountID, { loadAs: ben.me }), "writer");
const sender = await InboxSender.load(ann.accountID, ben.me);
const answer = await sender.sendMessage(Message.create({ text: "well?" }, { owner: between }));
check(letter?.text === "well?" && letter.from === ben.accountID, "a message comes into the inbox");
check((await Message.load(answer, { loadAs: ben.me })).text === "yes", "and its answer comes back");

// Values found by their name, and branches.
const named = { value: { color: "blue" }, unique: "settings", owner: team };
await Settings.upsertUnique(named);
await synced(ann);
const found = await Settings.loadUnique("settings", team.$jazz.id, { loadAs: ben.me });
check(found.$isLoaded && found.color === "blue", "a value is found by its name");
const branch = { name: "draft" };
const draft = await Project.load(id, { loadAs: ben.me, unstable_branch: branch });
draft.$jazz.set("name", "Wasps");
await synced(ben);
const theirs = await Project.load(id, { loadAs: ann.me, unstable_branch: branch });
check(await comesTrue(() => theirs.name === "Wasps"), "a branch is seen at the other server");
check(project.name === "Bees", "and changes nothing but itself");
await draft.$jazz.unstable_merge();
check(await comesTrue(() => project.name === "Wasps"), "until it is merged");

// What is taken away.
await team.removeMember(await Account.load(cas.accountID, { loadAs: ann.me }));
project.$jazz.set("name", "Hornets");
await synced(ann);
check(await comesTrue(() => seen.name === "Hornets"), "a member reads on after another one was removed");
const late = await logIn(cas, second);
const shut = await Project.load(id, { loadAs: late.me });
check(!shut.$isLoaded || shut.name !== "Hornets", "who was removed reads no more");
await deleteCoValues(Settings, settings.$jazz.id, { loadAs: ann.me });
await synced(ann);
const gone = await comesTrue(
  async () => (await Settings.load(settings.$jazz.id, { loadAs: ben.me })).$jazz.loadingState === "deleted",
);
check(gone, "what was deleted is gone");

await Promise.all([ann, ben, cas, late].map((user) => user.done()));
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exit(failed ? 1 : 0);
