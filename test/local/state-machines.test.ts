import { expect, test } from 'vitest';
import { FunctionError } from '../../infra/local/lambda/environment.ts';
import { loadMachine } from '../../infra/local/state-machines/definition.ts';
import { prepare } from '../../infra/local/state-machines/prepare.ts';
import { run, task } from './run-machine.ts';

test('tasks run one after the other, with the context, the file’s paths and AWS’s result and history', async () => {
  const { outcome, events } = await run(
    {
      StartAt: 'reserve',
      States: {
        reserve: task('reserve', {
          Parameters: {
            FunctionName: 'reserve',
            Payload: { 'operation.$': '$$.Execution.Name', step: 'reserve', 'input.$': '$' },
          },
          ResultSelector: { 'status.$': '$.StatusCode', 'answer.$': '$.Payload' },
          ResultPath: '$.reserved',
          OutputPath: '$',
          Next: 'end',
        }),
        end: { Type: 'Succeed' },
      },
    },
    { reserve: (payload) => ({ got: payload }) },
    { input: { slug: 'acme' } },
  );
  expect(outcome).toEqual({
    status: 'SUCCEEDED',
    output: {
      slug: 'acme',
      reserved: {
        status: 200,
        answer: { got: { operation: 'one', step: 'reserve', input: { slug: 'acme' } } },
      },
    },
  });
  expect(events).toEqual([
    'ExecutionStarted',
    ...['TaskStateEntered', 'TaskScheduled', 'TaskStarted', 'TaskSucceeded', 'TaskStateExited'],
    ...['SucceedStateEntered', 'SucceedStateExited', 'ExecutionSucceeded'],
  ]);
});

test('a loop of Choice and Wait polls until it is done, its waits scaled whether constant or from a path', async () => {
  let polls = 0;
  const { outcome, events } = await run(
    {
      StartAt: 'poll',
      States: {
        poll: task('poll', { Next: 'done?' }),
        'done?': {
          Type: 'Choice',
          Choices: [
            { Variable: '$.left', NumericLessThan: 1, Next: 'end' },
            { Variable: '$.left', NumericLessThan: 3, Next: 'wait as told' },
          ],
          Default: 'wait an hour',
        },
        'wait an hour': { Type: 'Wait', Seconds: 3600, Next: 'poll' },
        'wait as told': { Type: 'Wait', SecondsPath: '$.seconds', Next: 'poll' },
        end: { Type: 'Succeed' },
      },
    },
    { poll: () => ({ left: 4 - polls++, seconds: 1800 }) },
    { clockFactor: 1e-6 },
  );
  expect(outcome).toEqual({ status: 'SUCCEEDED', output: { left: 0, seconds: 1800 } });
  expect(events.filter((type) => type === 'WaitStateExited')).toHaveLength(4);
});

test('a number is compared with numbers only, as on AWS', async () => {
  const machine = {
    StartAt: 'choose',
    States: {
      choose: {
        Type: 'Choice',
        Choices: [
          { Not: { Variable: '$.n', NumericGreaterThanEquals: 5 }, Next: 'less' },
          { Variable: '$.n', NumericEquals: 5, Next: 'equal' },
        ],
      },
      less: { Type: 'Pass', Result: 'less', End: true },
      equal: { Type: 'Pass', Result: 'equal', End: true },
    },
  };
  const end = async (n: unknown) => (await run(machine, {}, { input: { n } })).outcome;
  expect(await end('7')).toMatchObject({ output: 'less' });
  expect(await end(5)).toMatchObject({ output: 'equal' });
  expect(await end(7)).toMatchObject({ status: 'FAILED', error: 'States.NoChoiceMatched' });
  expect(await run(machine, {}, { input: {} })).toMatchObject({ outcome: { error: 'States.Runtime' } });
});

test('a task is retried on the error that is named, and no other', async () => {
  const machine = {
    StartAt: 'create',
    States: {
      create: task('create', {
        Retry: [{ ErrorEquals: ['Busy'], IntervalSeconds: 5, BackoffRate: 3, MaxAttempts: 3 }],
        End: true,
      }),
    },
  };
  let tries = 0;
  const { outcome, events } = await run(machine, {
    create() {
      if (++tries < 4) throw new FunctionError('Busy', 'later');
      return 'created';
    },
  });
  expect(outcome).toEqual({ status: 'SUCCEEDED', output: 'created' });
  expect(events.filter((type) => type === 'TaskFailed')).toHaveLength(3);

  const other = await run(machine, {
    create() {
      throw new FunctionError('Broken', 'for good');
    },
  });
  expect(other.calls).toEqual(['create']);
  const cause = JSON.parse((other.outcome as { cause: string }).cause);
  expect(other.outcome).toMatchObject({ status: 'FAILED', error: 'Broken' });
  expect(cause).toMatchObject({ errorType: 'Broken', errorMessage: 'for good' });
  expect(cause.trace[0]).toBe('Error: for good');
});

test('the clock scales the intervals of retries and their cap, and leaves backoff, timeouts and the file alone', () => {
  const Retry = [
    { ErrorEquals: ['Busy'], IntervalSeconds: 100, BackoffRate: 3, MaxDelaySeconds: 400 },
    { ErrorEquals: ['Other'] },
  ];
  const { definition } = loadMachine(
    'test.asl.json',
    JSON.stringify({ StartAt: 'create', States: { create: task('create', { Retry, End: true }) } }),
    {},
  );
  const before = structuredClone(definition);
  const prepared = prepare(definition, { clockFactor: 0.01, entries: [], entriesOf: new Map() });
  expect(prepared.States.create).toMatchObject({
    TimeoutSeconds: 60,
    Retry: [{ IntervalSeconds: 1, BackoffRate: 3, MaxDelaySeconds: 4 }, { IntervalSeconds: 0.01 }],
  });
  expect(definition).toEqual(before);
});

test('a failure is caught, compensated, recorded, and fails the execution under its own name', async () => {
  let recorded: unknown;
  const { outcome, calls } = await run(
    {
      StartAt: 'createHome',
      States: {
        createHome: task('createHome', {
          Catch: [{ ErrorEquals: ['States.ALL'], ResultPath: '$.failure', Next: 'compensate' }],
          End: true,
        }),
        compensate: task('compensate', { ResultPath: null, OutputPath: '$', Next: 'failed' }),
        failed: { Type: 'Fail', ErrorPath: '$.failure.Error', CausePath: '$.failure.Cause' },
      },
    },
    {
      createHome() {
        throw new FunctionError('SchemaExists', 'there is one');
      },
      compensate(payload) {
        recorded = payload;
      },
    },
    { input: { tenant: 't' } },
  );
  expect(calls).toEqual(['createHome', 'compensate']);
  expect(recorded).toMatchObject({ tenant: 't', failure: { Error: 'SchemaExists' } });
  expect(outcome).toMatchObject({ status: 'FAILED', error: 'SchemaExists' });
});
