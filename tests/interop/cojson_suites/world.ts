// What is different in the world of the tests: time, and chance. Done once for each worker.
import { base58 } from "@scure/base";
import { idforHeader } from "../coValueCore/coValueCore.js";
import { WasmCrypto } from "../crypto/WasmCrypto.js";
import { LocalNode } from "../exports.js";
import { bridge } from "./bridge.js";

// Many tests wait for a fixed time, or expect that something comes before a timer. Waiting for the
// Python process stops everything, so the time that it takes is added to the timers.
const { setTimeout, setInterval, clearTimeout } = globalThis;
const prolonged = new WeakMap<object, NodeJS.Timeout>();
const SHORT_MS = 10; // of these the order counts, and not the time

globalThis.setTimeout = ((callback: (...args: any[]) => void, ms = 0, ...args: any[]) => {
  let counted = bridge.blockedMs;
  const ring = () => {
    const owed = bridge.blockedMs - counted;
    if (ms < SHORT_MS || owed < 1) return callback(...args);
    counted = bridge.blockedMs;
    prolonged.set(timer, setTimeout(ring, owed));
  };
  const timer = setTimeout(ring, ms);
  return timer;
}) as typeof setTimeout;

globalThis.clearTimeout = (timer) => {
  clearTimeout(timer);
  if (typeof timer === "object") clearTimeout(prolonged.get(timer));
};

// Tests look every 100 ms whether one node is done, and take for granted that others are, too. So
// they look when nobody needed a storage since they looked last.
const PATIENCE = 20;
globalThis.setInterval = ((callback: (...args: any[]) => void, ms = 0, ...args: any[]) => {
  let counted = bridge.blockedMs;
  let skipped = 0;
  return setInterval(() => {
    const isQuiet = bridge.blockedMs === counted;
    counted = bridge.blockedMs;
    skipped = isQuiet ? 0 : skipped + 1;
    if (isQuiet || skipped > PATIENCE) callback(...args);
  }, ms);
}) as typeof setInterval;

// SQLite hands out values and sessions in the order in which they were stored, we by id, and many
// tests look at the order. So ids are made to rise: chance only decides what comes after a prefix.
const STEP = 1 / 32;
const LETTERS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const ID_LETTERS = 26;
const FIRST = 58 ** 25 / 2 ** 152; // below it an id has fewer letters
const PREFIX_LETTERS = 4;
const RANGE = 2 ** 152 / 58 ** (ID_LETTERS - PREFIX_LETTERS);
let lastPlace = FIRST;
let sessions = 0;

/** A test begins: ids may be low again. */
export function restartIds() {
  lastPlace = FIRST;
}

/** Where the id is among all ids: from 0 to 1, or -1 if it has not the usual length. */
function place(id: string): number {
  const letters = id.slice("co_z".length);
  if (letters.length !== ID_LETTERS) return -1;
  let value = 0;
  for (const letter of letters.slice(0, PREFIX_LETTERS)) {
    value = value * LETTERS.length + LETTERS.indexOf(letter);
  }
  return value / RANGE;
}

const { createCoValue } = LocalNode.prototype;
LocalNode.prototype.createCoValue = function (header) {
  if (header.createdAt && lastPlace + STEP < 1) {
    let at: number;
    do {
      header = { ...header, uniqueness: this.crypto.uniquenessForHeader() };
      at = place(idforHeader(header, this.crypto));
    } while (at <= lastPlace || at > lastPlace + STEP);
    lastPlace = at;
  }
  return createCoValue.call(this, header);
};

WasmCrypto.prototype.newRandomSessionID = function (owner) {
  const bytes = this.randomBytes(8);
  bytes.set([0x40, ++sessions >> 8, sessions & 0xff]);
  return `${owner}_session_z${base58.encode(bytes)}`;
};
