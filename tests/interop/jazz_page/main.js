// A list in the browser as Jazz developers write it: kept in IndexedDB, edited with or without a
// server. The test drives `window.app`; `?node=` is the server, the hash the id of the list.
import { Group, co, z } from "jazz-tools";
import { JazzBrowserContextManager } from "jazz-tools/browser";

const List = co.map({ title: z.string(), items: co.list(z.string()) });

const manager = new JazzBrowserContextManager();
await manager.createContext({
  sync: { peer: new URL(location.href).searchParams.get("node"), when: "always" },
  storage: "indexedDB",
});
const { me } = manager.getCurrentValue();

async function open() {
  const id = location.hash.slice(1);
  if (id) return List.load(id, { loadAs: me, resolve: { items: true } });
  const owner = Group.create({ owner: me });
  owner.addMember("everyone", "writer");
  const list = List.create({ title: "Shopping", items: [] }, owner);
  location.hash = list.$jazz.id;
  return list;
}

const list = await open();
window.app = {
  me: me.$jazz.id,
  add: (text) => void list.items.$jazz.push(text),
  items: () => (list.$isLoaded ? [...list.items].sort().join() : list.$jazz.loadingState),
  stored: async () => {
    await me.$jazz.localNode.syncManager.waitForStorageSync(list.items.$jazz.id);
    return true;
  },
  synced: async () => {
    await me.$jazz.waitForAllCoValuesSync({ timeout: 20_000 });
    return true;
  },
};
