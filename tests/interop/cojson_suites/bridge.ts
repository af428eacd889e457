// The Python process behind the storages of one test worker: JSON lines over two FIFOs.
//
// Reading blocks, so that an answer comes within the same turn of the event loop, as it does with
// the storages that cojson's tests were written for: synchronous ones answer at once, the "async"
// ones in a microtask, before any timer. What happens side by side is up to the Python process.
import { openSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";

export type State = { id: string; header: boolean; sessions: Record<string, number> };
export type Failure = { type: string; text: string; known?: State; isSecond?: boolean };
type Answer = {
  n: number;
  end?: unknown;
  error?: Failure;
  piece?: any;
  correct?: State;
  state?: State;
  due?: number | null;
  stored?: number;
};
export type Handlers = {
  end?: (result: any, answer: Answer) => void;
  error?: (failure: Failure) => void;
  piece?: (content: any, state: State) => void;
  correct?: (known: State) => any[] | undefined;
  always?: (answer: Answer) => void;
};

const TURNS = 3;

class Bridge {
  private requests: number;
  private answers: number;
  private rest = "";
  private lastNumber = 1000 * Date.now(); // no worker repeats a number of another one
  private open = new Map<number, Handlers>();
  private tickets = new Map<number, (state: State) => void>();
  private isPumpPlanned = false;
  private chunk = Buffer.alloc(1 << 16);

  /** How long this process could do nothing because it waited for Python. */
  blockedMs = 0;

  constructor(directory: string) {
    this.requests = openSync(join(directory, "requests"), "w");
    this.answers = openSync(join(directory, "answers"), "r");
    // What comes before the answer was meant for the worker before this one.
    const n = ++this.lastNumber;
    this.write({ n, now: Date.now(), op: "reset" });
    while (this.line().n !== n);
  }

  /** A number for what will be told of with {"stored": ticket}. */
  ticket(resolve: (state: State) => void): number {
    this.tickets.set(++this.lastNumber, resolve);
    return this.lastNumber;
  }

  /** Send a request without waiting for its answer. */
  send(request: Record<string, unknown>, handlers: Handlers = {}): number {
    const n = ++this.lastNumber;
    this.open.set(n, handlers);
    // For Python time stands still, too, while it is waited for: a lock does not expire of that.
    this.write({ n, now: Date.now() - Math.round(this.blockedMs), ...request });
    return n;
  }

  /** Send a request; it is answered when this returns. */
  call(request: Record<string, unknown>, handlers: Handlers = {}): void {
    const n = this.send(request, handlers);
    while (this.open.has(n)) this.receive();
  }

  /** Receive, a few microtasks from now, all answers that are due. */
  planPump(): void {
    if (this.isPumpPlanned) return;
    this.isPumpPlanned = true;
    void this.pump();
  }

  private async pump() {
    // What is asked for in one go is sent before the first answer comes, as with the original: a
    // node stores a few values in a row and is asked for corrections after that.
    for (let turn = 0; turn < TURNS; turn++) await undefined;
    this.isPumpPlanned = false;
    while (this.open.size > 0) {
      this.receive();
      await undefined;
    }
  }

  private write(line: object) {
    const bytes = Buffer.from(JSON.stringify(line) + "\n");
    for (let sent = 0; sent < bytes.length; ) sent += writeSync(this.requests, bytes, sent);
  }

  private receive() {
    this.handle(this.line());
  }

  private line(): Answer {
    const begun = performance.now();
    let end: number;
    while ((end = this.rest.indexOf("\n")) < 0) {
      const size = readSync(this.answers, this.chunk);
      if (size === 0) throw new Error("the Python process is gone");
      this.rest += this.chunk.toString("latin1", 0, size);
    }
    const line = Buffer.from(this.rest.slice(0, end), "latin1").toString("utf8");
    this.rest = this.rest.slice(end + 1);
    this.blockedMs += performance.now() - begun;
    return JSON.parse(line);
  }

  private handle(answer: Answer) {
    if (answer.stored !== undefined) {
      this.tickets.get(answer.stored)?.(answer.state!);
      this.tickets.delete(answer.stored);
      return;
    }
    const handlers = this.open.get(answer.n);
    if (!handlers) throw new Error(`an answer to no request: ${JSON.stringify(answer)}`);
    if ("correct" in answer) {
      const messages = handlers.correct?.(answer.correct!);
      const lines = messages?.map((message) => JSON.stringify(message)) ?? null;
      this.write({ op: "corrected", n: answer.n, messages: lines });
      return;
    }
    handlers.always?.(answer);
    if ("piece" in answer) {
      handlers.piece?.(answer.piece, answer.state!);
      return;
    }
    this.open.delete(answer.n);
    if (answer.error) handlers.error?.(answer.error);
    else handlers.end?.(answer.end, answer);
  }
}

/** There are as many Python processes as workers that run at a time. */
export const bridge = new Bridge(join(process.env.STORAGE_RPC!, process.env.VITEST_POOL_ID!));
