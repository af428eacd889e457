// Generates roles.json: what cojson 0.20.19 says of groups made with its own API, of groups whose
// transactions are written directly, and of random ones. Run: node tests/vectors/cojson/gen-roles.mjs [SEED]
import { writeFileSync } from "node:fs";
import {
  LocalNode, accountDraft, connectedPeers, crypto, draftOf, groupDraft, judge, mapDraft, newAuthor, randomScenario, randomSource,
} from "../../interop/roles_oracle.mjs";

const SEED = Number(process.argv[2] ?? 20261125);
const RANDOM_SCENARIOS = 16;

// ---- with the API: several nodes, one clock

const realNow = Date.now;
let clock = 1_720_000_000_000;
Date.now = () => clock;

async function withApi(name, play) {
  const start = clock;
  const times = [start - 1];
  const tick = (ms = 1000) => { times.push(clock); clock += ms; times.push(clock - 1); return clock; };
  const people = {};
  for (const who of ["alice", "bob", "carol"]) {
    people[who] = await LocalNode.withNewlyCreatedAccount({ creationProps: { name: who }, crypto });
  }
  const { alice, bob, carol } = people;
  for (const other of [bob, carol]) {
    const [server, client] = connectedPeers(`server ${other.accountID}`, `client ${other.accountID}`, { peer1role: "server", peer2role: "client" });
    other.node.syncManager.addPeer(server);
    alice.node.syncManager.addPeer(client);
  }
  const settle = async () => {
    for (const { node } of Object.values(people)) await node.syncManager.waitForAllCoValuesSync();
  };
  const onNode = async (person, value) => { await settle(); return person.node.load(value.id); };
  const accountOf = (person) => onNode(alice, { id: person.accountID });
  await settle();
  tick();
  const cores = await play({ alice, bob, carol, tick, settle, onNode, accountOf });
  tick();
  await settle();
  const accounts = [];
  for (const person of Object.values(people)) accounts.push((await accountOf(person)).core);
  const members = [...Object.values(people).map((person) => person.accountID), alice.node.getCurrentAgent().currentAgentID(), "everyone"];
  return judge({ name, drafts: [...accounts, ...cores].map(draftOf), members, times: [...new Set(times)] });
}

const api = {
  async "members of every role, then removed"({ alice, bob, carol, tick, accountOf }) {
    const group = alice.node.createGroup();
    for (const role of ["reader", "writer", "writeOnly", "manager", "admin"]) {
      group.addMember(await accountOf(bob), role);
      tick();
    }
    group.addMember(await accountOf(carol), "writer");
    tick();
    await group.removeMember(await accountOf(carol));
    tick();
    group.addMember(await accountOf(carol), "reader");
    return [group.core];
  },
  async "everyone, and back"({ alice, bob, tick, accountOf }) {
    const group = alice.node.createGroup();
    tick();
    group.addMember("everyone", "writer");
    group.addMember(await accountOf(bob), "reader");
    tick();
    group.addMember("everyone", "writeOnly");
    tick();
    group.removeMember("everyone");
    return [group.core];
  },
  async "a manager at work"({ alice, bob, carol, tick, accountOf, onNode }) {
    const group = alice.node.createGroup();
    group.addMember(await accountOf(bob), "manager");
    tick();
    const groupOfBob = await onNode(bob, group);
    groupOfBob.addMember(await onNode(bob, { id: carol.accountID }), "writer");
    tick();
    await groupOfBob.removeMember(await onNode(bob, { id: carol.accountID }));
    return [(await onNode(alice, group)).core];
  },
  async "one's own leaving"({ alice, bob, tick, accountOf, onNode }) {
    const group = alice.node.createGroup();
    group.addMember(await accountOf(bob), "writer");
    tick();
    const groupOfBob = await onNode(bob, group);
    groupOfBob.removeMember(await onNode(bob, { id: bob.accountID }));
    return [(await onNode(alice, group)).core];
  },
  async "inherited roles"({ alice, bob, carol, tick, accountOf }) {
    const grandparent = alice.node.createGroup();
    const parent = alice.node.createGroup();
    const child = alice.node.createGroup();
    grandparent.addMember(await accountOf(bob), "manager");
    parent.addMember(await accountOf(carol), "reader");
    tick();
    child.extend(parent);
    tick();
    parent.extend(grandparent);
    tick();
    await child.revokeExtend(parent);
    tick();
    child.extend(parent, "writer");
    grandparent.addMember(await accountOf(bob), "writer");
    return [grandparent.core, parent.core, child.core];
  },
  async "an inherited admin at work"({ alice, bob, carol, tick, accountOf, onNode }) {
    const parent = alice.node.createGroup();
    const child = alice.node.createGroup();
    parent.addMember(await accountOf(bob), "admin");
    child.extend(parent);
    tick();
    const childOfBob = await onNode(bob, child);
    childOfBob.addMember(await onNode(bob, { id: carol.accountID }), "manager");
    await onNode(alice, child);
    tick();
    await parent.removeMember(alice.node.expectCurrentAccount("alice"));
    return [parent.core, (await onNode(alice, child)).core];
  },
  async "a value owned by an account"({ alice, bob, tick, onNode }) {
    const account = alice.node.expectCurrentAccount("alice");
    const map = account.createMap();
    map.set("by", "its owner", "trusting");
    tick();
    const mapOfBob = await onNode(bob, map);
    mapOfBob.core.makeTransaction([{ op: "set", key: "by", value: "a stranger" }], "trusting");
    return [(await onNode(alice, map)).core];
  },
};

for (const mapping of ["reader", "writer", "manager", "admin"]) {
  api[`a link that gives ${mapping}`] = async ({ alice, bob, carol, tick, accountOf }) => {
    const parent = alice.node.createGroup();
    const child = alice.node.createGroup();
    parent.addMember(await accountOf(bob), "reader");
    parent.addMember(await accountOf(carol), "writeOnly");
    tick();
    child.extend(parent, mapping);
    tick();
    child.set(bob.accountID, "writeOnly", "trusting"); // addMember refuses what is below the inherited role
    return [parent.core, child.core];
  };
}
for (const role of ["reader", "writer", "writeOnly", "manager", "admin"]) {
  api[`an invite to be ${role}`] = async ({ alice, bob, tick, settle, onNode }) => {
    const group = alice.node.createGroup();
    const invite = group.createInvite(role);
    await settle();
    tick();
    await bob.node.acceptInvite(group.id, invite);
    return [(await onNode(alice, group)).core];
  };
}

// ---- written directly: what no client would do, and equal or claimed times

const random = randomSource(7);
const [ANN, BOB, CAT, AGENT] = [newAuthor(random), newAuthor(random), newAuthor(random), newAuthor(random, { asAgent: true })];
const ACCOUNTS = [ANN, BOB, CAT].map((author) => {
  const draft = accountDraft(author);
  draft.set(author, author.session(author.agent), 10, author.agent, "admin");
  return draft;
});

function directly(name, play) {
  let groups = 0;
  const sessions = new Map();
  const session = (author, number = 0) => {
    const known = `${author.id} ${number}`;
    if (!sessions.has(known)) sessions.set(known, author.session());
    return sessions.get(known);
  };
  const newGroup = (founder = ANN, madeAt = 100) => {
    const draft = groupDraft(founder, `${name} ${groups++}`);
    const set = (author, at, key, value, number = 0) => draft.set(author, session(author, number), at, key, value);
    set(founder, madeAt, founder.id, "admin");
    return { draft, set, session };
  };
  const drafts = play(newGroup);
  const times = [9, 10, 99, 100, 150, 199, 200, 201, 250, 299, 300, 301, 400, 1000];
  const members = [ANN.id, BOB.id, CAT.id, AGENT.id, ANN.agent, "everyone"];
  return judge({ name, drafts: [...ACCOUNTS, ...drafts], members, times });
}

const direct = {
  "an admin cannot demote an admin, but itself"(newGroup) {
    const { draft, set } = newGroup();
    set(ANN, 200, BOB.id, "admin");
    set(BOB, 250, ANN.id, "reader");
    set(BOB, 300, BOB.id, "writer");
    return [draft];
  },
  "what a manager may not"(newGroup) {
    const { draft, set } = newGroup();
    set(ANN, 150, BOB.id, "manager");
    for (const role of ["admin", "adminInvite", "managerInvite"]) set(BOB, 200, CAT.id, role);
    set(BOB, 250, ANN.id, "revoked");
    set(BOB, 300, CAT.id, "manager");
    set(BOB, 300, "everyone", "admin");
    return [draft];
  },
  "backdated changes count at the time they claim"(newGroup) {
    const { draft, set } = newGroup();
    set(ANN, 200, BOB.id, "admin");
    set(ANN, 300, BOB.id, "revoked");
    set(BOB, 400, CAT.id, "admin");
    set(BOB, 250, CAT.id, "writer");
    set(BOB, 150, AGENT.id, "writer");
    return [draft];
  },
  "the founder is admin once"(newGroup) {
    const { draft, set } = newGroup();
    set(ANN, 200, ANN.id, "revoked");
    set(ANN, 300, ANN.id, "admin");
    set(BOB, 50, BOB.id, "admin");
    return [draft];
  },
  "equal times go by session"(newGroup) {
    const { draft, set } = newGroup();
    for (const number of [0, 1, 2]) set(ANN, 200, BOB.id, ["reader", "writer", "admin"][number], number);
    for (const number of [2, 1, 0]) set(ANN, 300, CAT.id, ["reader", "writer", "revoked"][number], number);
    return [draft];
  },
  "one session, times that go back"(newGroup) {
    const { draft, set } = newGroup();
    for (const [at, role] of [[300, "writer"], [200, "reader"], [250, "admin"], [300, "writeOnly"], [200, "manager"]]) set(ANN, at, BOB.id, role);
    return [draft];
  },
  "an agent as a member"(newGroup) {
    const { draft, set } = newGroup();
    set(ANN, 150, AGENT.id, "admin");
    set(AGENT, 200, BOB.id, "writer");
    return [draft];
  },
  "invites give their own role and no other"(newGroup) {
    const { draft, set } = newGroup();
    set(ANN, 150, AGENT.id, "writerInvite");
    set(AGENT, 200, BOB.id, "admin");
    set(AGENT, 250, BOB.id, "writer");
    set(AGENT, 300, "key_z1_for_" + BOB.id, "sealed_U");
    set(AGENT, 300, "readKey", "key_z1");
    return [draft];
  },
  "write keys and whose they are"(newGroup) {
    const { draft, set } = newGroup();
    set(ANN, 120, BOB.id, "writeOnly");
    set(BOB, 150, "writeKeyFor_" + BOB.id, "key_zown");
    set(BOB, 200, "key_zown_for_" + ANN.id, "sealed_U");
    set(BOB, 200, "key_zother_for_" + ANN.id, "sealed_U");
    set(BOB, 250, "writeKeyFor_" + BOB.id, "key_zother");
    set(BOB, 300, "key_zother_sealedFor_sealer_z1", "sealed_U");
    set(CAT, 300, "writeKeyFor_" + BOB.id, "key_zcat");
    set(CAT, 300, "writeKeyFor_" + CAT.id, "key_zcat");
    set(CAT, 400, "key_zcat_for_" + ANN.id, "sealed_U");
    return [draft];
  },
  "links that name no role, or an invite"(newGroup) {
    const parent = newGroup(BOB);
    parent.set(BOB, 120, CAT.id, "reader");
    return [parent.draft, ...["adminInvite", "writeOnly", "nonsense", "", null, 7].map((mapping) => {
      const child = newGroup();
      child.set(ANN, 150, "parent_" + parent.draft.id, mapping);
      child.set(CAT, 200, AGENT.id, "admin");
      child.set(CAT, 250, AGENT.id, "writer");
      return child.draft;
    })];
  },
  "a parent at the same time"(newGroup) {
    const parent = newGroup(BOB);
    const child = newGroup();
    child.set(ANN, 200, "parent_" + parent.draft.id, "extend");
    parent.set(BOB, 250, CAT.id, "admin");
    child.set(CAT, 250, AGENT.id, "writer");
    parent.set(BOB, 300, CAT.id, "writer");
    child.set(CAT, 300, AGENT.id, "admin");
    return [parent.draft, child.draft];
  },
  "an account is no parent"(newGroup) {
    const { draft, set } = newGroup();
    set(ANN, 150, "parent_" + BOB.id, "extend");
    return [draft];
  },
  "everyone of a parent, and one's own"(newGroup) {
    const parent = newGroup(BOB);
    const child = newGroup();
    parent.set(BOB, 150, "everyone", "reader");
    child.set(ANN, 200, "parent_" + parent.draft.id, "extend");
    child.set(ANN, 250, "everyone", "writer");
    child.set(ANN, 300, CAT.id, "writeOnly");
    return [parent.draft, child.draft];
  },
  "two parents, and one over two ways"(newGroup) {
    const top = newGroup(CAT);
    const [left, right, child] = [newGroup(), newGroup(), newGroup()];
    top.set(CAT, 120, BOB.id, "manager");
    left.set(ANN, 150, "parent_" + top.draft.id, "reader");
    right.set(ANN, 200, "parent_" + top.draft.id, "extend");
    for (const parent of [left, right]) child.set(ANN, 200, "parent_" + parent.draft.id, "extend");
    child.set(ANN, 300, "parent_" + right.draft.id, "revoked");
    return [top.draft, left.draft, right.draft, child.draft];
  },
  "who may write into a map"(newGroup) {
    const { draft, set, session } = newGroup();
    for (const [author, role] of [[BOB, "reader"], [CAT, "writeOnly"], [AGENT, "writerInvite"]]) set(ANN, 200, author.id, role);
    const map = mapDraft(draft.id, "who may write");
    for (const author of [ANN, BOB, CAT, AGENT]) {
      for (const at of [99, 199, 200, 300]) map.set(author, session(author), at, "a", at);
    }
    map.write(BOB, session(BOB), 300, [], { branch: "b", ownerId: "co_z1" });
    map.write(BOB, session(BOB), 300, [], { branch: "b" });
    map.write(BOB, session(BOB), 300, [], { branch: [], ownerId: {} });
    map.write(BOB, session(BOB), 100, [], { branch: "b", ownerId: "co_z1" });
    return [draft, map];
  },
};

const scenarios = [];
for (const [name, play] of Object.entries(api)) scenarios.push(await withApi(name, play));
Date.now = realNow;
for (const [name, play] of Object.entries(direct)) scenarios.push(directly(name, play));
for (let number = 0; number < RANDOM_SCENARIOS; number++) scenarios.push(randomScenario(SEED + number));
console.log(`${scenarios.length} scenarios, random ones from seed ${SEED}`);
const lines = scenarios.map((scenario) => JSON.stringify(scenario));
const text = `{"generator":"cojson 0.20.19 / cojson-core-napi 0.20.19","seed":${SEED},"scenarios":[\n${lines.join(",\n")}\n]}`;
writeFileSync(new URL("./roles.json", import.meta.url), `${text}\n`, "utf8");
process.exit(0);
