import { existsSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type PostgresServer, preparePostgres, startPostgres } from '../postgres.ts';

export interface ServerOptions {
  /** Where PostgreSQL keeps binaries and clusters; see `postgresBase`. */
  postgresBase: string;
  /** Server parameters of every instance, as its parameter group would set them. */
  parameters?: Record<string, string>;
}

/** The PostgreSQL servers behind DB instances, by the instances' names, and the folders of their data. */
export class RdsServers {
  readonly #options: ServerOptions;
  readonly #running = new Map<string, PostgresServer>();
  #prepared: Promise<void> | undefined;

  constructor(options: ServerOptions) {
    this.#options = options;
  }

  /** Process ids of those that run now. */
  pids(): number[] {
    return [...this.#running.values()].map(({ pid }) => pid);
  }

  /** One that runs. */
  get(name: string): PostgresServer {
    return this.#running.get(name)!;
  }

  /** @param onCrash when it has ended, and nobody has stopped it */
  async start(name: string, port: number, onCrash: () => void): Promise<PostgresServer> {
    const { postgresBase: base, parameters } = this.#options;
    this.#prepared ??= preparePostgres(base);
    await this.#prepared;
    const server = await startPostgres({ base, name, port, ...(parameters && { parameters }) });
    this.#running.set(name, server);
    void server.exited.then(() => {
      if (this.#running.get(name) !== server) return;
      this.#running.delete(name);
      onCrash();
    });
    return server;
  }

  async stop(name: string): Promise<void> {
    const server = this.#running.get(name);
    // First: an exit that is not asked for is a crash.
    this.#running.delete(name);
    await server?.stop();
  }

  /** Of one that is stopped. @param snapshot the name that its data is kept under */
  async removeData(name: string, snapshot?: string): Promise<void> {
    const folder = this.#folder(name);
    if (snapshot !== undefined && existsSync(folder)) await rename(folder, this.#snapshotFolder(snapshot));
    await rm(folder, { recursive: true, force: true });
  }

  async removeSnapshot(snapshot: string): Promise<void> {
    await rm(this.#snapshotFolder(snapshot), { recursive: true, force: true });
  }

  #folder(name: string): string {
    return join(this.#options.postgresBase, 'clusters', name);
  }

  /** A dot is not possible in an instance's name, so a snapshot's folder is nobody's cluster. */
  #snapshotFolder(snapshot: string): string {
    return this.#folder(`snapshot.${snapshot}`);
  }
}
