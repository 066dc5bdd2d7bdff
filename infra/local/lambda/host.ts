import type { FunctionRow } from '../../functions.ts';
import { Environment, FunctionError, type OnChunk } from './environment.ts';

/** Lambda's limit for a synchronous invocation, in and out. */
const maxPayloadBytes = 6 * 1024 * 1024;

export interface HostOptions {
  /** The project's folder. */
  root: string;
  functions: readonly FunctionRow[];
  /** Each function's environment variables: all that its processes get. */
  variables: (name: string) => Readonly<Record<string, string>>;
  /** Lambda adds environments as calls come in; on one machine calls wait for one of these. */
  maxEnvironments?: number;
  log: (name: string, text: string) => void;
  /** A function could not be loaded. */
  onInitError: (name: string, error: FunctionError) => void;
}

/** Serves the manifest's functions, each in processes of its own, one invocation at a time in each, as Lambda does. */
export class LambdaHost {
  readonly #pools: Map<string, Pool>;

  constructor(options: HostOptions) {
    this.#pools = new Map(options.functions.map((row) => [row.name, new Pool(row, options)]));
  }

  /** For a function that returns its answer. @throws FunctionError */
  async invoke(name: string, event: unknown): Promise<unknown> {
    const answer = await this.#pool(name).run(payload(event), () => {});
    if (answer !== undefined && Buffer.byteLength(answer) > maxPayloadBytes) {
      throw new FunctionError('Function.ResponseSizeTooLarge', 'The answer is larger than 6 MB.');
    }
    return answer === undefined ? null : JSON.parse(answer);
  }

  /** For a function that streams its answer; resolves when it is through. @throws FunctionError */
  async stream(name: string, event: unknown, onChunk: OnChunk): Promise<void> {
    await this.#pool(name).run(payload(event), onChunk);
  }

  /** Starts one environment of every function; faults are told by `onInitError`. */
  async warm(): Promise<void> {
    await Promise.all([...this.#pools.values()].map((pool) => pool.warm()));
  }

  /** The functions' files have changed: no further invocation sees the old ones. */
  async reload(): Promise<void> {
    for (const pool of this.#pools.values()) pool.retire();
    await this.warm();
  }

  pids(): number[] {
    return [...this.#pools.values()].flatMap((pool) => pool.pids());
  }

  async close(): Promise<void> {
    await Promise.all([...this.#pools.values()].map((pool) => pool.close()));
  }

  #pool(name: string): Pool {
    const pool = this.#pools.get(name);
    if (!pool) throw new Error(`infra/functions.ts has no function ${name}.`);
    return pool;
  }
}

/** The event is larger than Lambda takes. */
export class PayloadTooLarge extends Error {}

function payload(event: unknown): string {
  const text = JSON.stringify(event);
  if (Buffer.byteLength(text) > maxPayloadBytes) throw new PayloadTooLarge('The event is larger than 6 MB.');
  return text;
}

/** The environments of one function. */
class Pool {
  readonly #row: FunctionRow;
  readonly #options: HostOptions;
  /** With the generation of the files each has loaded. */
  readonly #all = new Map<Environment, number>();
  readonly #idle: Environment[] = [];
  readonly #waiting: { resolve(environment: Environment): void; reject(error: unknown): void }[] = [];
  #starting: Promise<void> | undefined;
  #generation = 0;
  #closed = false;

  constructor(row: FunctionRow, options: HostOptions) {
    this.#row = row;
    this.#options = options;
  }

  async run(event: string, onChunk: OnChunk): Promise<string | undefined> {
    const environment = await this.#take();
    try {
      return await environment.invoke(event, onChunk);
    } finally {
      this.#giveBack(environment);
    }
  }

  async warm(): Promise<void> {
    this.#grow();
    await this.#starting;
  }

  retire(): void {
    this.#generation++;
    for (const environment of this.#idle.splice(0)) environment.kill();
    // Those at work end when they come back: they are not of this generation.
    this.#starting = undefined;
  }

  pids(): number[] {
    return [...this.#all.keys()].flatMap(({ pid }) => pid ?? []);
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const environment of this.#all.keys()) environment.kill();
    await Promise.all([...this.#all.keys()].map(({ exited }) => exited));
    for (const { reject } of this.#waiting.splice(0))
      reject(new FunctionError('Closed', 'The local cloud is stopping.'));
  }

  #take(): Promise<Environment> {
    const environment = this.#idle.pop();
    if (environment) return Promise.resolve(environment);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#grow();
    });
  }

  /** One at a time: by the time it is up, a call that waited may have found another that has come free. */
  #grow(): void {
    if (this.#starting || this.#closed || this.#all.size >= (this.#options.maxEnvironments ?? 4)) return;
    const generation = this.#generation;
    const starting = this.#start(generation).finally(() => {
      if (this.#starting !== starting) return;
      this.#starting = undefined;
      if (this.#waiting.length > 0) this.#grow();
    });
    this.#starting = starting;
  }

  async #start(generation: number): Promise<void> {
    const { root, variables, log, onInitError } = this.#options;
    const { name } = this.#row;
    const environment = new Environment(this.#row, variables(name), root, (text) => log(name, text));
    this.#all.set(environment, generation);
    void environment.exited.then(() => {
      this.#all.delete(environment);
      const index = this.#idle.indexOf(environment);
      if (index >= 0) this.#idle.splice(index, 1);
      if (this.#waiting.length > 0) this.#grow();
    });
    try {
      await environment.ready;
      this.#giveBack(environment);
    } catch (error) {
      environment.kill();
      if (this.#closed || generation !== this.#generation) return;
      onInitError(name, error as FunctionError);
      for (const { reject } of this.#waiting.splice(0)) reject(error);
    }
  }

  #giveBack(environment: Environment): void {
    if (environment.spent) return;
    if (this.#all.get(environment) !== this.#generation) {
      environment.kill();
      return;
    }
    const next = this.#waiting.shift();
    if (next) next.resolve(environment);
    else this.#idle.push(environment);
  }
}
