// What is to be run: written by test_cojson_suites.py, which says why.
import { readFileSync } from "node:fs";

export type FilePlan = {
  /** Tests that use a storage; null for all. */
  only: string[] | null;
  /** Tests that cannot hold for a storage of ours. */
  leftOut: string[];
  /** Whether nodes get a storage of ours although the tests do not give them any. */
  attach: boolean;
};

export const plan: Record<string, FilePlan> = JSON.parse(readFileSync("plan.json", "utf8"));
