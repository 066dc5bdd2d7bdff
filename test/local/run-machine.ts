import { loadMachine } from '../../infra/local/state-machines/definition.ts';
import { type Outcome, runMachine } from '../../infra/local/state-machines/engine.ts';
import type { HistoryEvent } from '../../infra/local/state-machines/history.ts';

type Functions = Record<string, (payload: never) => unknown>;

/** A task that calls the function of its name. */
export const task = (functionName: string, more: object = {}) => ({
  Type: 'Task',
  Resource: 'arn:aws:states:::lambda:invoke',
  Parameters: { FunctionName: functionName, 'Payload.$': '$' },
  OutputPath: '$.Payload',
  TimeoutSeconds: 60,
  ...more,
});

/** Runs the machine with functions that are given here, and keeps what they and the history saw. */
export async function run(
  machine: object,
  functions: Functions,
  options: { input?: unknown; clockFactor?: number; signal?: AbortSignal } = {},
) {
  const calls: string[] = [];
  const history: HistoryEvent[] = [];
  const outcome: Outcome = await runMachine(loadMachine('test.asl.json', JSON.stringify(machine), {}), {
    input: options.input ?? {},
    execution: { id: 'arn:aws:states:eu-west-1:111122223333:execution:test:one', name: 'one' },
    machineId: 'arn:aws:states:eu-west-1:111122223333:stateMachine:test',
    clockFactor: options.clockFactor ?? 0.001,
    signal: options.signal ?? new AbortController().signal,
    record: (event) => history.push(event),
    async invoke(name, payload) {
      calls.push(name);
      return functions[name]!(payload as never);
    },
  });
  return { outcome, calls, history, events: history.map(({ type }) => type) };
}
