// Stands in for cojson's file of the same name: the same helpers, with storages in Python.
import { randomUUID } from "node:crypto";
import { expect, onTestFinished } from "vitest";
import { LocalNode, RawCoID, SessionID, StorageAPI } from "../exports.js";
import { knownStateFromContent } from "../coValueContentMessage.js";
import { BridgedStorageAsync, BridgedStorageSync } from "./bridgedStorage.js";
import { plan } from "./plan.js";
import { SyncMessagesLog } from "./testUtils.js";

const storages: { drop(): void }[] = [];

/** In a beforeEach hook: so it is registered first and runs last, after nodes were shut down. */
export function registerStorageCleanupRunner(): void {
  storages.length = 0;
  onTestFinished(({ task }) => {
    task.meta.storages = storages.length;
    storages.forEach((storage) => storage.drop());
  });
}

/** Names a store; where it is does not matter here. */
export function getDbPath(name?: string) {
  return name ?? randomUUID();
}

declare module "vitest" {
  interface TaskMeta {
    /** How many storages of ours the test used. */
    storages?: number;
  }
}

type Options = { filename?: string; nodeName?: string; storageName?: string };

export async function createAsyncStorage(options: Options) {
  return track(new BridgedStorageAsync(getDbPath(options.filename)), options);
}

export function createSyncStorage(options: Options) {
  return track(new BridgedStorageSync(getDbPath(options.filename)), options);
}

/** A storage for a node whose test does not care for one. */
export function attachStorage(node: LocalNode) {
  const file = expect.getState().testPath!.split("/").at(-1)!;
  if (plan[file]?.attach) {
    const storage = new BridgedStorageSync(getDbPath());
    storages.push(storage);
    node.setStorage(storage);
  }
}

export function getAllCoValuesWaitingForDelete(
  storage: BridgedStorageAsync | BridgedStorageSync,
): Promise<RawCoID[]> {
  return storage.getAllCoValuesWaitingForDelete();
}

export function getCoValueStoredSessions(storage: StorageAPI, id: RawCoID): Promise<SessionID[]> {
  return new Promise((resolve) => {
    const take = (content: any) => {
      if (content.id === id) {
        resolve(Object.keys(knownStateFromContent(content).sessions) as SessionID[]);
      }
    };
    storage.load(id, take, () => {});
  });
}

/** Log what goes to and fro, for the tests that look at it. */
function track<S extends BridgedStorageAsync | BridgedStorageSync>(storage: S, options: Options): S {
  storages.push(storage);
  const { nodeName = "client", storageName = "storage" } = options;
  const asked = (msg: any) => SyncMessagesLog.add({ from: nodeName, to: storageName, msg });
  const said = (msg: any) => SyncMessagesLog.add({ from: storageName, to: nodeName, msg });
  const absent = (id: string) => ({ id: id as RawCoID, header: false, sessions: {} });

  const loadKnownState = storage.loadKnownState.bind(storage);
  storage.loadKnownState = (id, callback) => {
    asked({ action: "lazyLoad", id });
    loadKnownState(id, (known) => {
      said({ action: "lazyLoadResult", ...(known ?? absent(id)) });
      callback(known);
    });
  };

  const store = storage.store.bind(storage);
  storage.store = (data, correct, done) => {
    asked(data);
    const logged: typeof correct = (known) => {
      said({ action: "known", isCorrection: true, ...known });
      const messages = correct(known);
      messages?.forEach(asked);
      return messages;
    };
    return store(data, logged, done) as any;
  };

  const load = storage.load.bind(storage);
  storage.load = (id, callback, done) => {
    asked({ action: "load", ...absent(id) });
    const pieces: typeof callback = (msg) => {
      said(msg);
      callback(msg);
    };
    const end: typeof done = (found) => {
      if (!found) said({ action: "known", ...absent(id) });
      done?.(found);
    };
    return load(id, pieces, end) as any;
  };
  return storage;
}
