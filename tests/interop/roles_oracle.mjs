// Scenarios of groups, and what cojson says of them: every role at every time, every transaction's validity.
// usage: node roles_oracle.mjs SEED COUNT   prints COUNT random scenarios as JSON
//
// A scenario is judged by a fresh node that is given every value whole, parents first, and the sessions of a
// value in the order of their ids: cojson breaks ties between equal times by the order of arrival.
//   values:  [{id, header, sessions: {sessionID: [transaction]}, valid: {sessionID: "10110"}}]
//   times:   [ms]
//   roles:   {group id: {member: "admin - reader"}}, one for each of times, "-" where there is none
import { pathToFileURL } from "node:url";
import { LocalNode, LogLevel, cojsonInternals, logger } from "cojson";
import { NapiCrypto } from "cojson/crypto/NapiCrypto";
import { SessionMap } from "cojson-core-napi";
import { base58 } from "@scure/base";

logger.setLevel(LogLevel.NONE);
export { LocalNode };
export const { connectedPeers } = cojsonInternals;
export const crypto = await NapiCrypto.create();
const { idforHeader } = cojsonInternals;
const encoder = new TextEncoder();

// ---- chance

export function randomSource(seed) {
  let state = seed >>> 0;
  const next = () => {
    // mulberry32: small, and the same numbers everywhere
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (limit) => Math.floor(next() * limit);
  const bytes = (length) => Uint8Array.from({ length }, () => below(256));
  return { next, below, bytes, pick: (items) => items[below(items.length)] };
}

// ---- who writes, and what they write into

export function newAuthor(random, { asAgent = false } = {}) {
  const secret = crypto.agentSecretFromSecretSeed(random.bytes(32));
  const agent = crypto.getAgentID(secret);
  const header = {
    type: "comap", ruleset: { type: "group", initialAdmin: agent }, meta: { type: "account" }, createdAt: null, uniqueness: null,
  };
  const id = asAgent ? agent : idforHeader(header, crypto);
  const session = (owner = id) => `${owner}_session_z${base58.encode(random.bytes(8))}`;
  return { id, agent, header, signerSecret: crypto.getAgentSignerSecret(secret), isAgent: asAgent, session };
}

// A value whose sessions are written directly, at any time and by anybody.
export class Draft {
  constructor(header) {
    this.header = header;
    this.id = idforHeader(header, crypto);
    this.map = new SessionMap(this.id, JSON.stringify(header), 102400, false);
    this.sessions = {};
  }

  write(author, session, madeAt, changes, meta) {
    const text = typeof changes === "string" ? changes : JSON.stringify(changes);
    const metaText = meta === undefined ? undefined : JSON.stringify(meta);
    this.#keep(session, this.map.makeNewTrustingTransaction(session, author.signerSecret, text, metaText, madeAt));
  }

  writePrivate(author, session, madeAt, changes) {
    const keyID = "key_z" + base58.encode(new Uint8Array(12).fill(9));
    const keySecret = "keySecret_z" + base58.encode(new Uint8Array(32).fill(7));
    this.#keep(
      session,
      this.map.makeNewPrivateTransaction(session, author.signerSecret, JSON.stringify(changes), keyID, keySecret, undefined, madeAt),
    );
  }

  set(author, session, madeAt, key, value) {
    this.write(author, session, madeAt, [{ op: "set", key, value }]);
  }

  #keep(session, made) {
    const { transaction, signature } = JSON.parse(made);
    const log = (this.sessions[session] ??= { after: 0, newTransactions: [], lastSignature: "" });
    log.newTransactions.push(transaction);
    log.lastSignature = signature;
  }
}

export const accountDraft = (author) => new Draft(author.header);

export function groupDraft(author, uniqueness) {
  return new Draft({ type: "comap", ruleset: { type: "group", initialAdmin: author.id }, meta: null, uniqueness });
}

export function mapDraft(group, uniqueness) {
  return new Draft({ type: "comap", ruleset: { type: "ownedByGroup", group }, meta: null, uniqueness });
}

// What a node that made values holds of one of them, in the shape of a draft.
export function draftOf(core) {
  const sessions = {};
  for (const piece of core.newContentSince(undefined)) {
    for (const [session, part] of Object.entries(piece.new)) {
      const log = (sessions[session] ??= { after: 0, newTransactions: [], lastSignature: "" });
      log.newTransactions.push(...part.newTransactions);
      log.lastSignature = part.lastSignature;
    }
  }
  return { id: core.id, header: core.verified.header, sessions };
}

// ---- judging

const sortedEntries = (object) => Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1));

export function judge({ name, drafts, members, times }) {
  const secret = crypto.newRandomAgentSecret();
  const node = new LocalNode(secret, crypto.newRandomSessionID(crypto.getAgentID(secret)), crypto);
  // Headers first: values that name one another would wait for one another for ever.
  const give = (id, header, sessions) =>
    node.syncManager.handleNewContent({ action: "content", id, header, priority: 0, new: sessions }, "import");
  for (const { id, header } of drafts) give(id, header, {});
  for (const { id, header, sessions } of drafts) give(id, header, Object.fromEntries(sortedEntries(sessions)));
  const values = [];
  const roles = {};
  for (const { id, header, sessions } of drafts) {
    const core = node.expectCoValueLoaded(id);
    const content = core.getCurrentContent();
    const valid = {};
    const transactions = {};
    for (const [session, log] of sortedEntries(sessions)) {
      transactions[session] = log.newTransactions;
      const verdicts = core.verifiedTransactions
        .filter((transaction) => transaction.currentTxID.sessionID === session)
        .sort((a, b) => a.currentTxID.txIndex - b.currentTxID.txIndex);
      if (verdicts.length !== log.newTransactions.length) throw new Error(`${name}: ${id} was not taken whole`);
      valid[session] = verdicts.map((transaction) => (transaction.isValid ? "1" : "0")).join("");
    }
    values.push({ id, header, sessions: transactions, valid });
    if (header.ruleset.type !== "group") continue;
    roles[id] = {};
    for (const member of members) {
      roles[id][member] = times.map((time) => content.atTime(time).roleOfInternal(member) ?? "-").join(" ");
    }
  }
  return { name, values, times, roles };
}

// ---- random scenarios

const ROLES = [
  "admin", "manager", "writer", "reader", "writeOnly", "revoked",
  "adminInvite", "managerInvite", "writerInvite", "readerInvite", "writeOnlyInvite",
];
const MAPPINGS = [
  "extend", "extend", "extend", "reader", "writer", "manager", "admin", "revoked", "revoked",
  "writeOnly", "adminInvite", "writerInvite", "nonsense", "", null, 7, { a: 1 },
];
const START = 1_700_000_000_000;

export function randomScenario(seed) {
  const random = randomSource(seed);
  const authors = [0, 1, 2, 3, 4, 5].map((number) => newAuthor(random, { asAgent: number > 3 }));
  const accounts = authors.filter((author) => !author.isAgent);
  const accountDrafts = accounts.map((author) => {
    const draft = accountDraft(author);
    draft.set(author, author.session(author.agent), START + random.below(3), author.agent, "admin");
    return draft;
  });
  const span = random.pick([4, 12, 60]);
  const time = () => START + random.below(span);
  const groups = [];
  for (let number = 0, count = 1 + random.below(4); number < count; number++) {
    const founder = random.pick(authors);
    const group = groupDraft(founder, `group ${seed} ${number}`);
    const sessions = authors.map((author) => [author.session(), author.session()]);
    const writeKeys = authors.map((_, index) => `key_z${index}write`);
    group.set(founder, random.pick(sessions[authors.indexOf(founder)]), random.next() < 0.9 ? START : time(), founder.id, "admin");
    for (let left = 10 + random.below(40); left > 0; left--) {
      const author = random.next() < 0.5 ? founder : random.pick(authors);
      const index = authors.indexOf(author);
      randomEdit({ random, group, groups, author, authors, writeKeys, session: random.pick(sessions[index]), madeAt: time() });
    }
    groups.push(group);
  }
  for (const account of accountDrafts.slice(0, 2)) randomAccountEdits(random, account, accounts, time);
  const owned = [random.pick(groups), accountDrafts[0]].map((owner, number) => {
    const map = mapDraft(owner.id, `map ${seed} ${number}`);
    for (const author of authors) {
      for (const session of [author.session(), author.session(author.agent)]) {
        for (let left = 3; left > 0; left--) randomWrite(random, map, author, session, time());
      }
    }
    return map;
  });
  const times = [START - 1, ...Array.from({ length: Math.min(span, 16) }, (_, i) => START + Math.floor((i * span) / Math.min(span, 16)))];
  const members = [...authors.map((author) => author.id), accounts[0].agent, accounts[1].agent, "everyone"];
  return judge({ name: `random ${seed}`, drafts: [...accountDrafts, ...groups, ...owned], members, times });
}

function randomEdit({ random, group, groups, author, authors, writeKeys, session, madeAt }) {
  const someone = random.pick(authors);
  const member = random.next() < 0.12 ? "everyone" : someone.id;
  const key = random.pick(writeKeys);
  const dice = random.below(100);
  const set = (name, value) => group.set(author, session, madeAt, name, value);
  if (dice < 55) set(member, random.pick(ROLES));
  else if (dice < 67 && groups.length > 0) set(`parent_${random.pick(groups).id}`, random.pick(MAPPINGS));
  else if (dice < 70) set(random.pick(["readKey", "groupSealer", "profile", "root"]), "anything");
  else if (dice < 76) set(`${key}_for_${random.pick([someone.id, "key_zother", "everyone", someone.agent])}`, "sealed_Uabc");
  else if (dice < 78) set(`${key}_sealedFor_sealer_z1`, "sealed_Uabc");
  else if (dice < 85) set(`writeKeyFor_${random.next() < 0.5 ? author.id : someone.id}`, key);
  else if (dice < 87) set(`child_${group.id}`, "extend");
  else if (dice < 89) group.write(author, session, madeAt, [{ op: "del", key: someone.id }]);
  else if (dice < 91) group.write(author, session, madeAt, [{ op: "set", key: someone.id, value: "admin" }, { op: "set", key: "root", value: 1 }]);
  else if (dice < 93) set(someone.id, random.pick(["superuser", null, 5, ["admin"], "extend"]));
  else if (dice < 95) group.writePrivate(author, session, madeAt, [{ op: "set", key: someone.id, value: "admin" }]);
  else if (dice < 97) group.write(author, session, madeAt, random.pick(["", "[]", "[", '"a"', "[7]", '[{"op":"set","key":"root","value":NaN}]']));
  else set(random.pick(["", "key_", "writeKeyFor_", "nobody"]), random.pick(ROLES));
}

function randomAccountEdits(random, account, accounts, time) {
  const [owner, other] = [accounts.find((author) => author.header.ruleset.initialAdmin === account.header.ruleset.initialAdmin), random.pick(accounts)];
  for (const [author, as] of [[owner, owner.agent], [owner, owner.id], [other, other.id], [other, other.agent]]) {
    const session = author.session(as);
    account.set(author, session, time(), "root", "co_zroot");
    account.writePrivate(author, session, time(), [{ op: "set", key: "root", value: "co_zroot" }]);
    account.set(author, session, time(), other.id, random.pick(ROLES));
    account.set(author, session, time(), random.pick(["everyone", other.agent]), random.pick(ROLES));
  }
}

function randomWrite(random, map, author, session, madeAt) {
  const meta = random.next() < 0.4 ? { branch: random.pick(["b", "", null, 1]), ownerId: random.pick(["co_zo", "", [], false]) } : undefined;
  if (random.next() < 0.2) map.writePrivate(author, session, madeAt, [{ op: "set", key: "a", value: 1 }]);
  else map.write(author, session, madeAt, [{ op: "set", key: "a", value: 1 }], meta);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [seed, count] = process.argv.slice(2).map(Number);
  const scenarios = Array.from({ length: count }, (_, number) => randomScenario(seed + number));
  process.stdout.write(JSON.stringify(scenarios), () => process.exit(0));
}
