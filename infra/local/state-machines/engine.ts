import { setImmediate, setTimeout } from 'node:timers/promises';
import type { StateMachineDefinition } from 'aws-local-stepfunctions';
import { FunctionError } from '../lambda/environment.ts';
import type { Machine } from './definition.ts';
import { allStates, awsEvents, type HistoryEvent, type LibraryEvent } from './history.ts';
import { type Entry, type Preparation, prepare, type TaskInput } from './prepare.ts';

/** Step Functions' quotas for one execution, and for the data that a state takes or gives, in bytes of UTF-8. */
export const maxHistoryEvents = 25_000;
export const maxDataBytes = 262_144;

export interface Run {
  input: unknown;
  execution: { id: string; name: string };
  machineId: string;
  /** By name or ARN. What it throws as FunctionError fails the task under that error's name. */
  invoke: (functionName: string, payload: unknown) => Promise<unknown>;
  /** Waits and retry intervals last this part of their time: above 0, at most 1. Timeouts are real. */
  clockFactor: number;
  record: (event: HistoryEvent) => void;
  /** Ends the run as ABORTED; a function that is being called runs to its end, as on AWS. */
  signal: AbortSignal;
}

export type Outcome =
  | { status: 'SUCCEEDED'; output: unknown }
  | { status: 'FAILED' | 'TIMED_OUT'; error: string; cause: string | undefined }
  | { status: 'ABORTED' };

/** Ends a state with an error that no Retry or Catch matches. */
class Fatal extends Error {
  readonly isRetryable = false;
  readonly isCatchable = false;
}

/** Runs one execution of the machine to its end. */
export async function runMachine({ definition }: Machine, run: Run): Promise<Outcome> {
  // Half a second to load, and nothing else of the local cloud needs it.
  const { StateMachine, ExecutionError } = await import('aws-local-stepfunctions');
  const states = allStates(definition);
  const placed = new Map(states.map((state) => [state.name, state]));
  const entries: Entry[] = [{ over: false }];
  const preparation: Preparation = { clockFactor: run.clockFactor, entries, entriesOf: new Map() };
  const attempts = new Map<string, number>();
  const stop = new AbortController();
  const ended = Promise.withResolvers<Outcome>();
  let events = 0;
  let isOver = false;
  const end = (outcome: Outcome) => {
    if (isOver) return;
    isOver = true;
    ended.resolve(outcome);
    stop.abort();
  };
  const fail = (error: string, cause?: string) => end({ status: 'FAILED', error, cause });

  const record = (event: Omit<HistoryEvent, 'timestamp'>) => {
    if (isOver) return;
    run.record({ ...event, timestamp: Date.now() });
    events++;
    // The last event of all is the one that says so.
    if (events === maxHistoryEvents - 1) {
      fail(
        'States.Runtime',
        `The execution reached the maximum number of history events (${maxHistoryEvents}).`,
      );
    }
  };

  const limit = (state: string, data: unknown) => {
    if (data === undefined || Buffer.byteLength(JSON.stringify(data)) <= maxDataBytes) return;
    const what = 'data with a size exceeding the maximum number of bytes service limit';
    fail('States.DataLimitExceeded', `The state '${state}' took or returned ${what}.`);
  };

  const handler = (state: string) => async (given: TaskInput) => {
    // What the library said of the states before this one is read by then, and the limits have been checked.
    await setImmediate();
    const isSuperseded = () => isOver || entries[given.entry]!.over;
    if (isSuperseded()) throw new Fatal(`${state} belongs to what has ended.`);
    if (placed.get(state)!.state.Type === 'Wait') {
      await wait(given.seconds, run.clockFactor, stop.signal);
      return null;
    }
    limit(state, given.Payload);
    record({ type: 'TaskScheduled', state });
    record({ type: 'TaskStarted', state });
    if (isSuperseded()) throw new Fatal(`${state} belongs to what has ended.`);
    try {
      const Payload = await run.invoke(given.FunctionName!, 'Payload' in given ? given.Payload : {});
      const result = { ExecutedVersion: '$LATEST', Payload, StatusCode: 200 };
      if (!isSuperseded()) {
        limit(state, result);
        record({ type: 'TaskSucceeded', state });
      }
      return result;
    } catch (error) {
      if (isSuperseded()) throw new Fatal(`${state} belongs to what has ended.`);
      const failure = taskFailure(error);
      record({ type: 'TaskFailed', state, error: failure.name, cause: failure.message });
      throw failure;
    }
  };

  const observe = (event: LibraryEvent) => {
    const name = event.state?.name ?? event.parentState?.name;
    if (name === undefined) return;
    const { state, parent } = placed.get(name)!;
    const within = event.state ? parent : name;
    // What the library goes on with after the failure of one iteration: AWS ends it.
    if (within !== undefined && latest(within)?.over) return;
    if (event.type === 'StateEntered') limit(name, event.state!.input);
    if (event.type === 'StateExited') limit(name, event.state!.output);
    const index = event.index === undefined ? {} : { index: event.index };
    for (const type of awsEvents(event, state.Type, latest(name)?.over ?? false)) {
      record({ type, state: name, ...index });
    }
    if (event.type === 'StateEntered' || event.type === 'StateRetried') {
      attempts.set(name, (attempts.get(name) ?? 0) + 1);
    }
    const entry = latest(name);
    if (entry && event.type === 'StateFailed') entry.over = true;
  };

  // Each attempt of a Map or Parallel is one entry, in the same order.
  const latest = (name: string) => preparation.entriesOf.get(name)?.[(attempts.get(name) ?? 0) - 1];

  record({ type: 'ExecutionStarted' });
  const machine = new StateMachine(prepare(definition, preparation) as unknown as StateMachineDefinition, {
    validationOptions: { noValidate: true },
  });
  const handlers = states
    .filter(({ state: { Type } }) => Type === 'Task' || Type === 'Wait')
    .map(({ name }) => [name, handler(name)] as const);
  const execution = machine.run(run.input as string, {
    overrides: { taskResourceLocalHandlers: Object.fromEntries(handlers) as never },
    context: {
      Execution: { Id: run.execution.id, Name: run.execution.name },
      StateMachine: { Id: run.machineId, Name: run.machineId.split(':').at(-1)! },
    },
  });
  stop.signal.addEventListener('abort', execution.abort);
  if (run.signal.aborted) end({ status: 'ABORTED' });
  run.signal.addEventListener('abort', () => end({ status: 'ABORTED' }), { once: true });
  if (definition.TimeoutSeconds !== undefined) {
    void sleep(definition.TimeoutSeconds * 1000, stop.signal).then(() =>
      end({ status: 'TIMED_OUT', error: 'States.Timeout', cause: undefined }),
    );
  }
  const read = (async () => {
    for await (const event of execution.eventLogs) observe(event as LibraryEvent);
  })();
  execution.result
    .then(
      async (output) => {
        await read;
        end({ status: 'SUCCEEDED', output });
      },
      async (error: Error) => {
        await read;
        const cause = error instanceof ExecutionError ? (error.cause as Error) : error;
        fail(cause.name, cause.message);
      },
    )
    .catch((error: Error) => fail('States.Runtime', error.message));
  const outcome = await ended.promise;
  const failure = 'error' in outcome ? { error: outcome.error } : {};
  run.record({ type: lastEvent[outcome.status], timestamp: Date.now(), ...failure });
  return outcome;
}

const lastEvent = {
  SUCCEEDED: 'ExecutionSucceeded',
  FAILED: 'ExecutionFailed',
  TIMED_OUT: 'ExecutionTimedOut',
  ABORTED: 'ExecutionAborted',
} as const;

/** In Step Functions' form: the function's error type is the error's name, its error document the cause. */
function taskFailure(error: unknown): Error {
  const { type, message, stack } =
    error instanceof FunctionError
      ? error
      : { type: 'Lambda.Unknown', message: (error as Error).message, stack: undefined };
  const trace = stack === undefined || type === 'Sandbox.Timedout' ? {} : { trace: stack.split('\n') };
  const failure = new Error(JSON.stringify({ errorType: type, errorMessage: message, ...trace }));
  failure.name = type;
  return failure;
}

async function wait(seconds: unknown, factor: number, signal: AbortSignal): Promise<void> {
  if (!Number.isInteger(seconds) || (seconds as number) < 0) {
    const failure = new Fatal('The SecondsPath does not reference a whole number of seconds.');
    failure.name = 'States.Runtime';
    throw failure;
  }
  await sleep((seconds as number) * 1000 * factor, signal);
}

/** Resolves after the time; never, when the signal comes first. */
async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  // One timer of Node's holds 24.8 days and ends at once beyond that.
  const longest = 2 ** 31 - 1;
  for (let left = ms; left >= 0; left -= longest) {
    await setTimeout(Math.min(left, longest), undefined, { signal }).catch(() => new Promise(() => {}));
  }
}
