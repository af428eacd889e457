import { defineConfig } from "vitest/config";

// Where cojson's testUtils.ts has made a node and would connect it next.
const NODE_IS_MADE = "if (opts.connected) {";

export default defineConfig({
  plugins: [
    {
      name: "a storage for every node",
      enforce: "pre",
      transform(code, id) {
        if (!id.endsWith("/src/tests/testUtils.ts")) return undefined;
        const [before, between, after] = code.split(NODE_IS_MADE);
        if (after === undefined) throw new Error("testUtils.ts is not what it was");
        const attach = (node: string) => `attachStorage(${node}); ${NODE_IS_MADE}`;
        const utils = [before, attach("node"), between, attach("ctx.node"), after].join("");
        return utils.replace("import { createAsync", "import { attachStorage, createAsync");
      },
    },
  ],
  test: {
    include: ["src/tests/*.test.ts"],
    runner: "./runner.ts",
    setupFiles: ["./src/tests/setup.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    isolate: false,
    pool: "forks",
    poolOptions: { forks: { minForks: 2, maxForks: 2 } },
    alias: { libsql: new URL("./no_libsql.ts", import.meta.url).pathname },
  },
});
