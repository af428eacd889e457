// Stands in for cojson's file of the same name: what every test file starts with.
import { afterAll, beforeEach, vi } from "vitest";
import { cojsonInternals } from "../exports.js";
import { registerStorageCleanupRunner } from "./testStorage.js";
import { TEST_NODE_CONFIG } from "./testUtils.js";
import { restartIds } from "./world.js";

// As in the original: slow tests must not fail because a budget of time is exceeded.
cojsonInternals.setIncomingMessagesTimeBudget(10_000);

// Node 20 does not have it yet.
(Promise as any).withResolvers ??= () => {
  let resolve: unknown, reject: unknown;
  const promise = new Promise((yes, no) => ([resolve, reject] = [yes, no]));
  return { promise, resolve, reject };
};

// The files of a worker share their modules, so that these are loaded once: what a file has set
// must not be found by the next.
TEST_NODE_CONFIG.withAsyncPeers = false;
afterAll(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

beforeEach(() => {
  registerStorageCleanupRunner();
  restartIds();
});
