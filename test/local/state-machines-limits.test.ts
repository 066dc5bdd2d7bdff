import { expect, test } from 'vitest';
import { maxDataBytes, maxHistoryEvents } from '../../infra/local/state-machines/engine.ts';
import { run, task } from './run-machine.ts';

test('a task’s timeout is real, is States.Timeout, and States.TaskFailed does not catch it', async () => {
  const { outcome, events } = await run(
    {
      StartAt: 'slow',
      States: {
        slow: task('slow', {
          TimeoutSeconds: 1,
          Catch: [
            { ErrorEquals: ['States.TaskFailed'], Next: 'wrong' },
            { ErrorEquals: ['States.Timeout'], Next: 'late' },
          ],
          End: true,
        }),
        wrong: { Type: 'Pass', Result: 'wrong', End: true },
        late: { Type: 'Pass', Result: 'late', End: true },
      },
    },
    { slow: () => new Promise(() => {}) },
  );
  expect(outcome).toEqual({ status: 'SUCCEEDED', output: 'late' });
  expect(events).toContain('TaskTimedOut');
});

test('the machine’s timeout ends it whatever it is doing', async () => {
  const { outcome, events, calls } = await run(
    {
      TimeoutSeconds: 1,
      StartAt: 'wait',
      States: {
        wait: { Type: 'Wait', Seconds: 3600, Next: 'work' },
        work: task('work', { End: true }),
      },
    },
    { work: () => null },
    { clockFactor: 1 },
  );
  expect(outcome).toMatchObject({ status: 'TIMED_OUT', error: 'States.Timeout' });
  expect(events.at(-1)).toBe('ExecutionTimedOut');
  expect(calls).toEqual([]);
});

const big = 'x'.repeat(maxDataBytes);
const caught = [{ ErrorEquals: ['States.ALL'], Next: 'caught' }];

test.for([
  ['what a function answers', { first: task('first', { Catch: caught, Next: 'second' }) }],
  [
    'what two states together make',
    {
      first: task('first', {
        ResultSelector: { 'half.$': '$.Payload.half' },
        ResultPath: '$.a',
        OutputPath: '$',
        Next: 'again',
      }),
      again: { Type: 'Pass', ResultPath: '$.b', Next: 'second' },
    },
  ],
] as [string, object][])(
  'no state takes or gives more than 256 KiB, and States.ALL does not catch it: %s',
  async ([what, states]) => {
    const { outcome, calls, events } = await run(
      {
        StartAt: 'first',
        States: { ...states, second: task('second', { End: true }), caught: { Type: 'Pass', End: true } },
      },
      {
        first: () => (what.startsWith('what two') ? { half: big.slice(0, maxDataBytes / 2 + 1) } : { big }),
        second: () => 1,
      },
    );
    expect(outcome).toMatchObject({ status: 'FAILED', error: 'States.DataLimitExceeded' });
    expect(calls).toEqual(['first']);
    expect(events.at(-1)).toBe('ExecutionFailed');
  },
);

test('an execution has 25,000 events, of which the last says that it has failed of them', async () => {
  let count = 0;
  const { outcome, history } = await run(
    { StartAt: 'count', States: { count: task('count', { Next: 'count' }) } },
    { count: () => ({ count: ++count }) },
  );
  expect(outcome).toMatchObject({ status: 'FAILED', error: 'States.Runtime' });
  expect(history).toHaveLength(maxHistoryEvents);
  expect(history.at(-1)!.type).toBe('ExecutionFailed');
  // Five events for each call, as Step Functions counts.
  expect(count).toBeGreaterThan(maxHistoryEvents / 5 - 3);
  expect(count).toBeLessThanOrEqual(maxHistoryEvents / 5);
});

test('a loop without tasks ends at the same limit', async () => {
  const { outcome, history } = await run(
    { StartAt: 'a', States: { a: { Type: 'Pass', Next: 'b' }, b: { Type: 'Pass', Next: 'a' } } },
    {},
  );
  expect(outcome).toMatchObject({ error: 'States.Runtime' });
  expect(history).toHaveLength(maxHistoryEvents);
});
