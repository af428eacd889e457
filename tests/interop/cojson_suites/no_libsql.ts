// The tests that open the SQLite file themselves are left out; their imports must still resolve.
export default class Database {
  constructor() {
    throw new Error("there is no SQLite file here");
  }
}
