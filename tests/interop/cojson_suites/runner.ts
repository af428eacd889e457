// Runs the tests that are planned, and skips the others before any of their hooks.
import type { Test } from "vitest";
import { VitestTestRunner } from "vitest/runners";
import { plan } from "./src/tests/plan.js";

export default class PlannedRunner extends VitestTestRunner {
  async onBeforeRunTask(test: Test) {
    const names = [test.name];
    for (let suite = test.suite; suite; suite = suite.suite) names.unshift(suite.name);
    const name = names.filter(Boolean).join(" > ");
    const { only, leftOut } = plan[test.file.name.split("/").at(-1)!]!;
    if (leftOut.includes(name) || (only && !only.includes(name))) test.mode = "skip";
    await super.onBeforeRunTask(test);
  }
}
