import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import validate from 'asl-validator';
import { describe, expect, test } from 'vitest';
import { functions } from '../../infra/functions.ts';
import { loadMachine } from '../../infra/local/state-machines/definition.ts';
import { substitutionName } from '../../infra/machines.ts';

const folder = fileURLToPath(new URL('../../stepfunctions', import.meta.url));
const files = readdirSync(folder).filter((file) => file.endsWith('.asl.json'));

/** Every fault of a machine: those of the language, and those that would keep the local cloud from running it. */
function faultsOf(file: string, text: string): string[] {
  const names = [...text.matchAll(/\$\{([^}]*)\}/g)].map(([, name]) => name!);
  const substitutions: Record<string, string> = {
    ...Object.fromEntries(
      names.map((name) => [name, `arn:aws:lambda:eu-west-1:111122223333:function:${name}`]),
    ),
    Partition: 'aws',
  };
  const filled = text.replaceAll(/\$\{([^}]*)\}/g, (_, name: string) => substitutions[name]!);
  const { isValid, errorsText } = validate(JSON.parse(filled), { checkPaths: true, checkArn: true });
  const faults = isValid ? [] : [errorsText('\n')];
  try {
    loadMachine(file, text, substitutions);
  } catch (error) {
    faults.push((error as Error).message);
  }
  return faults;
}

describe('every machine of stepfunctions/ is valid and runs here as on AWS', () => {
  test('each file holds to the language and to what the engine executes', () => {
    const faults = files.flatMap((file) => faultsOf(file, readFileSync(`${folder}/${file}`, 'utf8')));
    expect(faults).toEqual([]);
  });

  test('no file is bound to one of AWS’s partitions', () => {
    for (const file of files)
      expect(readFileSync(`${folder}/${file}`, 'utf8'), file).not.toContain('arn:aws');
  });

  test('each task of them has time enough for the function it calls', () => {
    expect(files.flatMap((file) => shortTasks(readFileSync(`${folder}/${file}`, 'utf8')))).toEqual([]);
  });

  test('each task of them outlasts the failover of a database', () => {
    expect(files.flatMap((file) => impatientTasks(readFileSync(`${folder}/${file}`, 'utf8')))).toEqual([]);
  });

  // After fourteen days without a call Lambda takes a function's network away: the next one fails, and so do others until it is
  // there again, which takes minutes. Most steps are rarer than that.
  test.each([
    'Lambda.ResourceNotReadyException',
    'Lambda.ResourceConflictException',
    'Lambda.ENINotReadyException',
  ])('each task of them outlasts the return of its function’s network: %s', (error) => {
    expect(files.flatMap((file) => impatientTasks(readFileSync(`${folder}/${file}`, 'utf8'), error))).toEqual(
      [],
    );
  });
});

describe('each task that needs an instance waits while RDS works on it', () => {
  test.each([
    ['provision-tenant', 'awaitInstance'],
    ['provision-tenant', 'createHome'],
    ['move-tenant', 'prepareTargetInstance'],
  ])('%s, %s', (machine, state) => {
    const { States } = JSON.parse(readFileSync(`${folder}/${machine}.asl.json`, 'utf8'));
    const retriers: Retrier[] = States[state].Retry;
    const waits = retriers.find(({ ErrorEquals }) => ErrorEquals.includes('InstancePending'));
    expect(triedFor(waits)).toBeGreaterThan(failoverSeconds);
  });
});

/** A Multi-AZ failover takes one to two minutes: five are enough, s. */
const failoverSeconds = 300;

interface Retrier {
  readonly ErrorEquals: readonly string[];
  readonly IntervalSeconds?: number;
  readonly MaxAttempts?: number;
  readonly BackoffRate?: number;
  readonly MaxDelaySeconds?: number;
  readonly JitterStrategy?: string;
}

/** For how long it is tried again on average, s. */
function triedFor(retrier: Retrier | undefined): number {
  if (retrier === undefined) return 0;
  const { IntervalSeconds = 1, MaxAttempts = 3, BackoffRate = 2, MaxDelaySeconds = Infinity } = retrier;
  const delays = Array.from({ length: MaxAttempts }, (_, n) =>
    Math.min(MaxDelaySeconds, IntervalSeconds * BackoffRate ** n),
  );
  const sum = delays.reduce((total, delay) => total + delay, 0);
  return retrier.JitterStrategy === 'FULL' ? sum / 2 : sum;
}

/** Tasks that give up earlier at this error: by default when a database is away. */
function impatientTasks(text: string, error = 'Unavailable'): string[] {
  const found: string[] = [];
  JSON.stringify(JSON.parse(text), (key, value) => {
    if (value?.Type !== 'Task') return value;
    const retriers: Retrier[] = value.Retry ?? [];
    const first = retriers.find(({ ErrorEquals }) =>
      ErrorEquals.some((name) => name === error || name === 'States.ALL'),
    );
    const seconds = triedFor(first);
    if (seconds < failoverSeconds) found.push(`${key}: ${seconds} s`);
    return value;
  });
  return found;
}

/** A task that gives up before its function's own timeout would start a retry beside it. */
function shortTasks(text: string): string[] {
  const found: string[] = [];
  JSON.stringify(JSON.parse(text), (key, value) => {
    const name = String(value?.Parameters?.FunctionName ?? '').replace(/^\$\{(.*)\}$/, '$1');
    const row = functions.find((row) => substitutionName(row.name) === name);
    if (row && value.TimeoutSeconds < row.timeoutSeconds) found.push(`${key}: ${value.TimeoutSeconds} s`);
    return value;
  });
  return found;
}

describe('planted faults are found', () => {
  const task = {
    Type: 'Task',
    Resource: 'arn:aws:states:::lambda:invoke',
    Parameters: { FunctionName: `$${'{Mcp}'}`, Payload: {} },
    TimeoutSeconds: 60,
    End: true,
  };
  const machine = (state: object) =>
    JSON.stringify({ StartAt: 'one', States: { one: { ...task, ...state } } });

  test('none in a sound machine', () => {
    expect(faultsOf('a.asl.json', machine({}))).toEqual([]);
    expect(shortTasks(machine({}))).toEqual([]);
  });

  test.for([
    ['a state without an end', { End: undefined }],
    ['a path that is none', { InputPath: 'no path' }],
    ['a next state that is not there', { End: undefined, Next: 'two' }],
    ['JSONata', { QueryLanguage: 'JSONata', Parameters: undefined, Arguments: {} }],
    ['a heartbeat', { HeartbeatSeconds: 10 }],
    ['no timeout', { TimeoutSeconds: undefined }],
  ] as [string, object][])('%s', ([, state]) => {
    expect(faultsOf('a.asl.json', machine(state))).not.toEqual([]);
  });

  test('a task that is shorter than its function', () => {
    expect(shortTasks(machine({ TimeoutSeconds: 3 }))).toEqual(['one: 3 s']);
  });

  test('a task that gives up before a failover has ended', () => {
    const retrier = { ErrorEquals: ['Unavailable'], IntervalSeconds: 2, MaxDelaySeconds: 30 };
    const retried = (more: object) => impatientTasks(machine({ Retry: [{ ...retrier, ...more }] }));
    expect(impatientTasks(machine({}))).toEqual(['one: 0 s']);
    expect(retried({ MaxAttempts: 5, JitterStrategy: 'FULL' })).toEqual(['one: 30 s']);
    expect(retried({ MaxAttempts: 30, JitterStrategy: 'FULL' })).toEqual([]);
  });
});
