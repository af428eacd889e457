// cojson's StorageAPI, carried out by a Python LocalStorage.
//
// What has to be here and not there: callbacks, objects that stay the same, and the timer that
// tells the Python process the time.
import { STORAGE_RECONCILIATION_CONFIG, TRANSACTION_CONFIG } from "../config.js";
import { CoValueCore, RawCoID, SessionID, logger } from "../exports.js";
import { CoValueKnownState, emptyKnownState } from "../knownState.js";
import { getPriorityFromHeader } from "../priority.js";
import { StorageStreamingQueue } from "../queue/StorageStreamingQueue.js";
import type { StorageAPI } from "../storage/types.js";
import type { NewContentMessage, PeerID } from "../sync.js";
import { Failure, Handlers, State, bridge } from "./bridge.js";

type Correct = (known: CoValueKnownState) => NewContentMessage[] | undefined;

let lastStorage = 0;

abstract class BridgedStorage implements StorageAPI {
  private storage = 0;
  private states = new Map<string, CoValueKnownState>();
  private headers = new Map<string, NewContentMessage["header"]>();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private file: string) {
    this.open();
  }

  /** Closed storages are opened again by whoever uses them: cojson's own go on working, too. */
  private open() {
    if (this.storage === 0) {
      this.storage = ++lastStorage;
      bridge.call({ op: "open", storage: this.storage, file: this.file });
    }
  }

  protected abstract transmit(request: Record<string, unknown>, handlers: Handlers): void;

  protected request(op: string, rest: Record<string, unknown> = {}, handlers: Handlers = {}) {
    this.open();
    const always: Handlers["always"] = (answer) => {
      if (answer.state) this.take(answer.state);
      if (answer.due !== undefined) this.wakeAt(answer.due);
    };
    const error = (failure: Failure) => logger.error(failure.text, { err: failure });
    this.transmit({ op, storage: this.storage, ...rest }, { error, ...handlers, always });
  }

  private take(state: State) {
    const known = this.getKnownState(state.id);
    known.header = state.header;
    for (const id of Object.keys(known.sessions)) delete known.sessions[id as SessionID];
    Object.assign(known.sessions, state.sessions);
  }

  private wakeAt(due: number | null) {
    if (this.timer) clearTimeout(this.timer);
    this.timer = undefined;
    if (due !== null) {
      const advance = () => {
        this.timer = undefined;
        this.request("advance", { seconds: due });
      };
      this.timer = setTimeout(advance, due * 1000);
    }
  }

  getKnownState(id: string): CoValueKnownState {
    let known = this.states.get(id);
    if (!known) {
      known = emptyKnownState(id as RawCoID);
      this.states.set(id, known);
    }
    return known;
  }

  loadKnownState(id: string, callback: (known: CoValueKnownState | undefined) => void) {
    const error = (failure: Failure) => {
      logger.warn("Failed to load knownState from storage", { id, err: failure });
      callback(undefined);
    };
    this.request("known", { id }, { end: (known) => callback(known ?? undefined), error });
  }

  /**
   * As the original gives it: with the header in every piece of a value, and announcing with the
   * known state itself how far the value goes, which so includes what is stored only later.
   */
  private asOriginal({ action, id, ...rest }: NewContentMessage): NewContentMessage {
    if (rest.header) this.headers.set(id, rest.header);
    if (rest.expectContentUntil) rest.expectContentUntil = this.getKnownState(id).sessions;
    return { action, id, ...rest, header: this.headers.get(id) };
  }

  abstract load(
    id: string,
    callback: (data: NewContentMessage) => void,
    done?: (found: boolean) => void,
  ): unknown;

  protected requestLoad(
    id: string,
    piece: (data: NewContentMessage) => void,
    done: (found: boolean) => void,
  ) {
    const error = (failure: Failure) => {
      logger.error("Failed to load from storage", { id, err: failure });
      done(false);
    };
    const give: Handlers["piece"] = (content, state) => {
      this.take(state);
      piece(this.asOriginal(content));
    };
    this.request("load", { id }, { piece: give, end: done, error });
  }

  abstract store(data: NewContentMessage, correct: Correct, done?: () => void): unknown;

  /** What an asynchronous storage says besides when it was not corrected. */
  protected noCorrection: object = {};

  protected requestStore(
    data: NewContentMessage,
    correct: Correct,
    settled: (stored: boolean) => void,
  ) {
    const error = (failure: Failure) => {
      settled(false);
      if (failure.type === "ClosedResourceError") return;
      const { known: knownState } = failure;
      if (!knownState) {
        logger.error("Failed to store", { err: failure });
        return;
      }
      if (failure.isSecond) logger.error("Double correction requested", { msg: data, knownState });
      logger.error("Correction callback returned undefined", { knownState, ...this.noCorrection });
    };
    const end = () => settled(true);
    const handlers = { end, error, correct: (known: State) => correct(known as any) };
    const { MAX_RECOMMENDED_TX_SIZE: pieceBytes } = TRANSACTION_CONFIG;
    const request = { id: data.id, content: JSON.stringify(data), pieceBytes };
    this.request("store", request, handlers);
  }

  waitForSync(id: string, coValue: CoValueCore): Promise<void> {
    return new Promise((resolve) => {
      const ticket = bridge.ticket((state) => {
        this.take(state);
        unsubscribe();
        resolve();
      });
      const want = () => this.request("wait", { id, ticket, known: coValue.knownState() });
      const unsubscribe = coValue.subscribe(want, false);
      want();
    });
  }

  trackCoValuesSyncState(
    updates: { id: RawCoID; peerId: PeerID; synced: boolean }[],
    done?: () => void,
  ) {
    this.request("track", { updates }, { end: () => done?.() });
  }

  getUnsyncedCoValueIDs(callback: (ids: RawCoID[]) => void) {
    this.request("unsynced", {}, { end: callback });
  }

  stopTrackingSyncState(id: RawCoID) {
    this.request("stopTracking", { id });
  }

  getCoValueIDs(limit: number, offset: number, callback: (batch: { id: RawCoID }[]) => void) {
    const end = (ids: RawCoID[]) => callback(ids.map((id) => ({ id })));
    this.request("ids", { limit, offset }, { end });
  }

  getCoValueCount(callback: (count: number) => void) {
    this.request("count", {}, { end: callback });
  }

  tryAcquireStorageReconciliationLock(
    session: SessionID,
    peer: PeerID,
    callback: (result: any) => void,
  ) {
    const { LOCK_TTL_MS: ttl, RECONCILIATION_INTERVAL_MS: interval } = STORAGE_RECONCILIATION_CONFIG;
    this.request("acquire", { session, peer, ttl, interval }, { end: callback });
  }

  renewStorageReconciliationLock(session: SessionID, peer: PeerID, offset: number) {
    this.request("renew", { session, peer, offset });
  }

  releaseStorageReconciliationLock(session: SessionID, peer: PeerID) {
    this.request("release", { session, peer });
  }

  markDeleteAsValid(id: RawCoID) {
    this.request("markDeletion", { id });
  }

  enableDeletedCoValuesErasure() {
    this.request("enableErasure");
  }

  eraseAllDeletedCoValues(): Promise<void> {
    return new Promise((resolve, reject) => {
      const error = (failure: Failure) => reject(new Error(failure.text));
      this.request("erase", {}, { end: () => resolve(), error });
    });
  }

  /** Not of the StorageAPI: for a helper of the tests. */
  getAllCoValuesWaitingForDelete(): Promise<RawCoID[]> {
    return new Promise((resolve) => this.request("pending", {}, { end: resolve }));
  }

  onCoValueUnmounted(id: RawCoID) {
    this.request("unmount", { id });
    this.states.delete(id);
  }

  close(): Promise<unknown> | undefined {
    if (this.timer) clearTimeout(this.timer);
    this.timer = undefined;
    if (this.storage === 0) return undefined;
    const closed = new Promise<void>((resolve) =>
      this.transmit({ op: "close", storage: this.storage }, { end: () => resolve() }),
    );
    this.storage = 0;
    this.states.clear();
    return closed;
  }

  /** The test is over. */
  drop() {
    void this.close();
    bridge.call({ op: "drop", file: this.file });
  }
}

export class BridgedStorageAsync extends BridgedStorage {
  private closed = false;
  protected noCorrection = { correction: null };

  protected transmit(request: Record<string, unknown>, handlers: Handlers) {
    bridge.send(request, handlers);
    bridge.planPump();
  }

  load(
    id: string,
    callback: (data: NewContentMessage) => void,
    done?: (found: boolean) => void,
  ): Promise<void> {
    return new Promise((resolve) =>
      this.requestLoad(id, callback, (found) => {
        done?.(found);
        resolve();
      }),
    );
  }

  async store(data: NewContentMessage, correct: Correct, done?: () => void) {
    if (!this.closed) this.requestStore(data, correct, (stored) => stored && done?.());
  }

  close() {
    this.closed = true;
    return super.close();
  }
}

export class BridgedStorageSync extends BridgedStorage {
  readonly streamingQueue = new StorageStreamingQueue();

  protected transmit(request: Record<string, unknown>, handlers: Handlers) {
    bridge.call(request, handlers);
  }

  store(data: NewContentMessage, correct: Correct, done?: () => void): boolean {
    let isStored = false;
    this.requestStore(data, correct, (stored) => (isStored = stored));
    if (isStored) done?.();
    return isStored;
  }

  load(
    id: string,
    callback: (data: NewContentMessage) => void,
    done?: (found: boolean) => void,
  ) {
    const first = new Set<string>();
    let isQueued = false;
    this.requestLoad(
      id,
      (piece) => {
        if (!first.has(piece.id)) {
          first.add(piece.id);
          callback(piece);
          return;
        }
        isQueued = true;
        this.streamingQueue.push(() => callback(piece), getPriorityFromHeader(piece.header));
      },
      (found) => {
        if (isQueued) this.streamingQueue.emit();
        done?.(found);
      },
    );
  }
}
