import { setTimeout } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { FunctionError } from '../../infra/local/lambda/environment.ts';
import { run, task } from './run-machine.ts';

const workers = (more: object = {}, inner: object = {}) => ({
  StartAt: 'workers',
  States: {
    workers: {
      Type: 'Map',
      ItemsPath: '$.slots',
      ItemSelector: { 'slot.$': '$$.Map.Item.Value', 'index.$': '$$.Map.Item.Index', 'run.$': '$.run' },
      MaxConcurrency: 2,
      ItemProcessor: {
        ProcessorConfig: { Mode: 'INLINE' },
        StartAt: 'work',
        States: {
          work: task('work', { ResultPath: '$.done', OutputPath: '$', Next: 'more?', ...inner }),
          'more?': {
            Type: 'Choice',
            Choices: [{ Variable: '$.done.Payload.more', BooleanEquals: true, Next: 'work' }],
            Default: 'finished',
          },
          finished: { Type: 'Succeed', OutputPath: '$.done.Payload.total' },
        },
      },
      End: true,
      ...more,
    },
  },
});

test('a Map runs its worker slots beside each other, each in its loop, never more than MaxConcurrency', async () => {
  let active = 0;
  let most = 0;
  const seen: Record<string, number> = {};
  const { outcome, history } = await run(
    workers(),
    {
      async work({ slot, index, run }: { slot: string; index: number; run: string }) {
        most = Math.max(most, ++active);
        await setTimeout(5);
        active--;
        seen[slot] = (seen[slot] ?? 0) + 1;
        return { more: seen[slot] < 3, total: `${run}/${index}:${seen[slot]}` };
      },
    },
    { input: { run: 'r', slots: ['a', 'b', 'c', 'd', 'e'] } },
  );
  expect(outcome).toEqual({ status: 'SUCCEEDED', output: ['r/0:3', 'r/1:3', 'r/2:3', 'r/3:3', 'r/4:3'] });
  expect(most).toBe(2);
  expect(history.filter(({ type }) => type === 'MapIterationStarted').map(({ index }) => index)).toEqual([
    0, 1, 2, 3, 4,
  ]);
  expect(history.filter(({ type }) => type === 'TaskSucceeded')).toHaveLength(15);
});

test('after one iteration has failed, none that waited for its turn calls a function, nor does a sibling retry', async () => {
  const sibling = Promise.withResolvers<void>();
  const { outcome, calls, history } = await run(
    {
      StartAt: 'workers',
      States: {
        workers: {
          ...workers({ Catch: [{ ErrorEquals: ['States.ALL'], Next: 'compensate' }] }).States.workers,
          ItemProcessor: {
            StartAt: 'start',
            States: {
              start: { Type: 'Pass', Next: 'work' },
              work: task('work', { Retry: [{ ErrorEquals: ['Busy'] }], End: true }),
            },
          },
        },
        compensate: task('compensate', { End: true }),
      },
    },
    {
      async work({ slot }: { slot: string }) {
        if (slot === 'b') throw new FunctionError('Broken', slot);
        await sibling.promise;
        throw new FunctionError('Busy', slot);
      },
      async compensate(failure: { Error: string }) {
        sibling.resolve();
        await setTimeout(50);
        return failure.Error;
      },
    },
    { input: { run: 'r', slots: ['a', 'b', 'c', 'd', 'e'] } },
  );
  expect(outcome).toEqual({ status: 'SUCCEEDED', output: 'Broken' });
  expect(calls).toEqual(['work', 'work', 'compensate']);
  const ofMap = history.filter(({ type }) => /^Map(State|IterationF)/.test(type)).map(({ type }) => type);
  expect(ofMap).toEqual([
    ...['MapStateEntered', 'MapStateStarted', 'MapIterationFailed', 'MapStateFailed', 'MapStateExited'],
  ]);
});

test('a Map that is retried runs all of its iterations again', async () => {
  let broken = true;
  const { outcome, calls } = await run(
    workers({ Retry: [{ ErrorEquals: ['Broken'] }] }),
    {
      work({ slot }: { slot: string }) {
        if (slot === 'a' && broken) {
          broken = false;
          throw new FunctionError('Broken', 'once');
        }
        return { more: false, total: slot };
      },
    },
    { input: { run: 'r', slots: ['a', 'b'] } },
  );
  expect(outcome).toEqual({ status: 'SUCCEEDED', output: ['a', 'b'] });
  expect(calls.length).toBeGreaterThanOrEqual(3);
});

test('branches of a Parallel see the same input; the first failure is the state’s', async () => {
  const branch = (name: string) => ({ StartAt: name, States: { [name]: task(name, { End: true }) } });
  const machine = {
    StartAt: 'both',
    States: { both: { Type: 'Parallel', Branches: [branch('one'), branch('two')], End: true } },
  };
  const one = ({ n }: { n: number }) => n + 1;
  const two = ({ n }: { n: number }) => {
    if (n > 5) throw new FunctionError('TooMany', String(n));
    return n + 2;
  };
  expect(await run(machine, { one, two }, { input: { n: 1 } })).toMatchObject({
    outcome: { output: [2, 3] },
  });
  const failed = await run(machine, { one, two }, { input: { n: 6 } });
  expect(failed.outcome).toMatchObject({ status: 'FAILED', error: 'TooMany' });
});
