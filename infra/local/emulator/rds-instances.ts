import { randomBytes, randomUUID } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import {
  DBInstanceAlreadyExistsFault$,
  DBInstanceNotFoundFault$,
  DBSnapshotAlreadyExistsFault$,
  InstanceQuotaExceededFault$,
  InvalidDBInstanceStateFault$,
} from '@aws-sdk/client-rds';
import { stablePort } from '../ports.ts';
import type { PostgresServer } from '../postgres.ts';
import { makeMaster } from './rds-master.ts';
import { RdsServers, type ServerOptions } from './rds-servers.ts';
import type { Instance, InstanceStatus, RdsState } from './rds-state.ts';
import { accountId, type SecretStore } from './secret-store.ts';
import { fault } from './service.ts';

export interface RdsOptions extends ServerOptions {
  /** AWS's default quota of DB instances is 40. */
  instanceQuota?: number;
  /** Awaited before an instance moves on from a status it has just reached: tests hold it there. */
  onStatus?: (identifier: string, status: InstanceStatus) => Promise<void> | void;
}

/** The life of DB instances, each of them a real PostgreSQL on a port of 127.0.0.1. */
export class RdsInstances {
  readonly #state: RdsState;
  readonly #save: () => Promise<void>;
  readonly #clock: () => number;
  readonly #secrets: SecretStore;
  readonly #options: RdsOptions;
  readonly #servers: RdsServers;
  readonly #work = new Map<string, Promise<void>>();
  #closing = false;

  constructor(
    state: RdsState,
    save: () => Promise<void>,
    clock: () => number,
    secrets: SecretStore,
    options: RdsOptions,
  ) {
    this.#state = state;
    this.#save = save;
    this.#clock = clock;
    this.#secrets = secrets;
    this.#options = options;
    this.#servers = new RdsServers(options);
  }

  all(): Instance[] {
    return Object.values(this.#state.instances);
  }

  get(identifier: string): Instance {
    const instance = this.#state.instances[identifier.toLowerCase()];
    if (!instance) throw fault(DBInstanceNotFoundFault$, `DBInstance ${identifier} not found.`);
    return instance;
  }

  /** Resolves when nothing that was asked of the instance is under way any more. */
  async settled(identifier: string): Promise<Instance> {
    await this.#work.get(identifier);
    return this.get(identifier);
  }

  /** Process ids of the servers that run now. */
  pids(): number[] {
    return this.#servers.pids();
  }

  async create(
    wanted: Omit<Instance, 'arn' | 'resourceId' | 'status' | 'port' | 'createdAt' | 'secretArn'>,
  ): Promise<Instance> {
    const { identifier, region } = wanted;
    if (Object.hasOwn(this.#state.instances, identifier)) {
      throw fault(DBInstanceAlreadyExistsFault$, 'DB instance already exists');
    }
    if (this.all().length >= (this.#options.instanceQuota ?? 40)) {
      throw fault(InstanceQuotaExceededFault$, 'Cannot create more than the allowed number of DB instances.');
    }
    const instance: Instance = {
      ...wanted,
      arn: `arn:aws:rds:${region}:${accountId}:db:${identifier}`,
      resourceId: `db-${randomBytes(13).toString('hex').toUpperCase()}`,
      status: 'creating',
      port: await stablePort(this.all().map(({ port }) => port)),
      createdAt: this.#clock(),
    };
    this.#state.instances[identifier] = instance;
    if (instance.pendingPassword === undefined) {
      instance.pendingPassword = randomBytes(21).toString('base64url');
      const { secret } = await this.#secrets.create({
        name: `rds!db-${randomUUID()}`,
        region,
        owner: 'rds',
        SecretString: masterSecret(instance.masterUsername, instance.pendingPassword),
      });
      instance.secretArn = secret.arn;
    }
    await this.#save();
    this.#run(instance, () => this.#bring(instance));
    return instance;
  }

  async modify(
    identifier: string,
    change: {
      shown?: Record<string, unknown>;
      deletionProtection?: boolean | undefined;
      password?: string | undefined;
      rotate?: boolean | undefined;
    },
  ): Promise<Instance> {
    const instance = this.get(identifier);
    this.#demand(instance, ['available'], 'modified');
    Object.assign(instance.shown, change.shown);
    instance.deletionProtection = change.deletionProtection ?? instance.deletionProtection;
    const password = change.rotate ? randomBytes(21).toString('base64url') : change.password;
    if (password !== undefined) {
      instance.pendingPassword = password;
      instance.status = 'modifying';
    }
    await this.#save();
    if (password !== undefined) {
      this.#run(instance, async () => {
        await this.#reached(instance, 'modifying');
        await this.#settleMaster(instance, this.#servers.get(instance.identifier));
        if (change.rotate) {
          const value = { SecretString: masterSecret(instance.masterUsername, password) };
          await this.#secrets.put(this.#secrets.live(instance.secretArn!), value);
        }
        await this.#reached(instance, 'available');
      });
    }
    return instance;
  }

  async stop(identifier: string): Promise<Instance> {
    const instance = this.get(identifier);
    this.#demand(instance, ['available'], 'stopped');
    instance.status = 'stopping';
    await this.#save();
    this.#run(instance, () => this.#halt(instance));
    return instance;
  }

  async start(identifier: string): Promise<Instance> {
    const instance = this.get(identifier);
    this.#demand(instance, ['stopped'], 'started');
    instance.status = 'starting';
    await this.#save();
    this.#run(instance, () => this.#bring(instance));
    return instance;
  }

  /** @param snapshot the final snapshot's name; its data is kept beside the clusters */
  async delete(identifier: string, snapshot: string | undefined): Promise<Instance> {
    const instance = this.get(identifier);
    // AWS may allow more; who waits for these works there, too.
    this.#demand(instance, ['available', 'stopped', 'failed'], 'deleted');
    if (snapshot !== undefined) {
      this.#demand(instance, ['available', 'stopped'], 'snapshotted');
      if (Object.hasOwn(this.#state.snapshots, snapshot)) {
        throw fault(
          DBSnapshotAlreadyExistsFault$,
          `Cannot create the snapshot because one named ${snapshot} exists.`,
        );
      }
      this.#state.snapshots[snapshot] = { instance: identifier, createdAt: this.#clock() };
    }
    instance.finalSnapshot = snapshot;
    instance.status = 'deleting';
    await this.#save();
    this.#run(instance, () => this.#remove(instance));
    return instance;
  }

  async edit(identifier: string, edit: (instance: Instance) => void): Promise<void> {
    edit(this.get(identifier));
    await this.#save();
  }

  /** Takes up, after a restart of the emulator, what the last one left. */
  async resume(): Promise<void> {
    for (const instance of this.all()) {
      if (instance.status === 'deleting') this.#run(instance, () => this.#remove(instance));
      else if (instance.status === 'stopping') this.#run(instance, () => this.#halt(instance));
      else if (instance.status !== 'stopped') this.#run(instance, () => this.#bring(instance));
    }
    await Promise.all(this.#work.values());
  }

  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all(this.#work.values());
    await Promise.all(this.all().map(({ identifier }) => this.#servers.stop(identifier)));
  }

  /** After `close`: the data of all instances, and of their final snapshots. */
  async removeData(): Promise<void> {
    for (const name of Object.keys(this.#state.instances)) await this.#servers.removeData(name);
    for (const name of Object.keys(this.#state.snapshots)) await this.#servers.removeSnapshot(name);
  }

  async #bring(instance: Instance): Promise<void> {
    const server = await this.#servers.start(instance.identifier, instance.port, () => {
      if (this.#closing) return;
      // RDS starts an engine that died again.
      instance.status = 'starting';
      this.#run(instance, () => this.#bringAgain(instance));
    });
    if (instance.status === 'creating') {
      await this.#reached(instance, 'creating');
      await this.#settleMaster(instance, server);
      await this.#reached(instance, 'backing-up');
    } else if (instance.pendingPassword !== undefined) {
      await this.#settleMaster(instance, server);
    }
    await this.#reached(instance, 'available');
  }

  async #settleMaster(instance: Instance, server: PostgresServer): Promise<void> {
    await makeMaster(server, instance.masterUsername, instance.pendingPassword!, instance.dbName);
    instance.pendingPassword = undefined;
  }

  async #halt(instance: Instance): Promise<void> {
    await this.#reached(instance, 'stopping');
    await this.#servers.stop(instance.identifier);
    await this.#reached(instance, 'stopped');
  }

  async #remove(instance: Instance): Promise<void> {
    await this.#reached(instance, 'deleting');
    await this.#servers.stop(instance.identifier);
    await this.#servers.removeData(instance.identifier, instance.finalSnapshot);
    const secret = instance.secretArn === undefined ? undefined : this.#secrets.find(instance.secretArn);
    if (secret) await this.#secrets.remove(secret);
    delete this.#state.instances[instance.identifier];
    await this.#save();
  }

  /** It may die once more while it starts; and processes of the dead server hold its data until their statements have ended. */
  async #bringAgain(instance: Instance): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#bring(instance);
      } catch (error) {
        if (this.#closing || tries === 60) throw error;
        await setTimeout(1_000);
      }
    }
  }

  async #reached(instance: Instance, status: InstanceStatus): Promise<void> {
    instance.status = status;
    await this.#save();
    await this.#options.onStatus?.(instance.identifier, status);
  }

  #run(instance: Instance, work: () => Promise<void>): void {
    const done = work().catch(async (error: unknown) => {
      console.error(
        `RDS emulator: ${instance.identifier} failed: ${error instanceof Error ? error.message : error}`,
      );
      instance.status = 'failed';
      await this.#save();
    });
    this.#work.set(instance.identifier, done);
  }

  #demand(instance: Instance, allowed: InstanceStatus[], what: string): void {
    if (this.#closing || !allowed.includes(instance.status)) {
      throw fault(
        InvalidDBInstanceStateFault$,
        `Instance ${instance.identifier} can't be ${what} while it is ${instance.status}.`,
      );
    }
  }
}

const masterSecret = (username: string, password: string) => JSON.stringify({ username, password });
