import { randomUUID } from 'node:crypto';
import type { Machine } from './definition.ts';
import { type Run, runMachine } from './engine.ts';
import type { HistoryEvent } from './history.ts';

export type ExecutionStatus = 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'TIMED_OUT' | 'ABORTED';

export interface Execution {
  arn: string;
  machineArn: string;
  name: string;
  /** JSON, as it was sent. */
  input: string;
  status: ExecutionStatus;
  /** JSON. */
  output?: string;
  error?: string | undefined;
  cause?: string | undefined;
  /** Unix time, ms. */
  startedAt: number;
  stoppedAt?: number;
  history: HistoryEvent[];
}

export interface ExecutionOptions {
  machines: ReadonlyMap<string, Machine>;
  invoke: Run['invoke'];
  clockFactor: number;
  region: string;
  accountId: string;
}

/** The name is another execution's, which has ended or has another input. */
export class ExecutionExists extends Error {}

/** As long as AWS keeps ended executions, and their names taken. */
const keptMs = 90 * 86_400_000;
/** Of older ones only the result is kept: the state file is written whole. */
const histories = 100;

/** The executions of all machines of the folder, kept in the emulator's state. */
export class Executions {
  readonly #stored: Record<string, Execution>;
  readonly #save: () => Promise<void>;
  readonly #clock: () => number;
  readonly #options: ExecutionOptions;
  readonly #running = new Map<string, AbortController>();
  #closing = false;

  constructor(
    stored: Record<string, Execution>,
    save: () => Promise<void>,
    clock: () => number,
    options: ExecutionOptions,
  ) {
    if (!(options.clockFactor > 0 && options.clockFactor <= 1)) {
      throw new Error('The clock factor has to be above 0 and at most 1.');
    }
    this.#stored = stored;
    this.#save = save;
    this.#clock = clock;
    this.#options = options;
  }

  machineArn(name: string): string {
    const { region, accountId } = this.#options;
    return `arn:aws:states:${region}:${accountId}:stateMachine:${name}`;
  }

  machine(arn: string): Machine | undefined {
    const machine = this.#options.machines.get(arn.split(':').at(-1)!);
    return machine && this.machineArn(machine.name) === arn ? machine : undefined;
  }

  find(arn: string): Execution | undefined {
    return this.#stored[arn];
  }

  /** Of one machine, the newest first. */
  list(machineArn: string): Execution[] {
    return Object.values(this.#stored)
      .filter((execution) => execution.machineArn === machineArn)
      .reverse();
  }

  /** The name makes it idempotent while the execution runs. @throws ExecutionExists */
  async start(machine: Machine, input: string, name: string = randomUUID()): Promise<Execution> {
    const machineArn = this.machineArn(machine.name);
    const arn = `${machineArn.replace(':stateMachine:', ':execution:')}:${name}`;
    const known = this.#stored[arn];
    if (known && (known.status !== 'RUNNING' || known.input !== input)) throw new ExecutionExists(arn);
    if (!known) {
      this.#forget();
      const startedAt = this.#clock();
      const execution: Execution = {
        arn,
        machineArn,
        name,
        input,
        status: 'RUNNING',
        startedAt,
        history: [],
      };
      this.#stored[arn] = execution;
      this.#run(machine, execution);
    }
    await this.#save();
    return this.#stored[arn]!;
  }

  /** Ends it as ABORTED; one that has ended stays as it is. */
  async stop(execution: Execution, error?: string, cause?: string): Promise<void> {
    if (execution.status !== 'RUNNING') return;
    execution.error = error;
    execution.cause = cause;
    this.#running.get(execution.arn)?.abort();
    this.#end(execution, 'ABORTED');
    await this.#save();
  }

  /**
   * Starts again, from their beginning, those that ran when the last process ended. On AWS they would have gone on from
   * their state; here that place is lost, and every step is made to be run twice. Their machine's time starts anew.
   */
  async resume(): Promise<void> {
    for (const execution of Object.values(this.#stored)) {
      if (execution.status !== 'RUNNING' || this.#running.has(execution.arn)) continue;
      const machine = this.machine(execution.machineArn);
      execution.history = [];
      if (machine) {
        this.#run(machine, execution);
      } else {
        execution.cause = 'Its state machine is no longer there.';
        this.#end(execution, 'ABORTED');
      }
    }
    await this.#save();
  }

  /** Lets go of what runs without ending it: `resume` starts it again. Before the functions' host closes. */
  close(): void {
    this.#closing = true;
    for (const running of this.#running.values()) running.abort();
  }

  #run(machine: Machine, execution: Execution): void {
    if (this.#closing) return;
    const controller = new AbortController();
    this.#running.set(execution.arn, controller);
    const { invoke, clockFactor } = this.#options;
    runMachine(machine, {
      input: JSON.parse(execution.input),
      execution: { id: execution.arn, name: execution.name },
      machineId: execution.machineArn,
      invoke,
      clockFactor,
      record: (event) => execution.history.push(event),
      signal: controller.signal,
    })
      .then(async (outcome) => {
        this.#running.delete(execution.arn);
        // Stopped, which is recorded already, or let go of.
        if (outcome.status === 'ABORTED') return;
        if (outcome.status === 'SUCCEEDED') execution.output = JSON.stringify(outcome.output);
        else Object.assign(execution, { error: outcome.error, cause: outcome.cause });
        this.#end(execution, outcome.status);
        await this.#save();
      })
      .catch((error) => console.error(`State machine ${machine.name}:`, error));
  }

  #end(execution: Execution, status: ExecutionStatus): void {
    execution.status = status;
    execution.stoppedAt = this.#clock();
    const ended = Object.values(this.#stored).filter(({ history }) => history.length > 0);
    for (const old of ended.slice(0, -histories)) if (old.status !== 'RUNNING') old.history = [];
  }

  #forget(): void {
    for (const { arn, stoppedAt } of Object.values(this.#stored)) {
      if (stoppedAt !== undefined && stoppedAt + keptMs < this.#clock()) delete this.#stored[arn];
    }
  }
}
