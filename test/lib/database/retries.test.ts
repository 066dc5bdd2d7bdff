import pg from 'pg';
import { expect, test } from 'vitest';
import { type Step, StepFailure } from '../../../functions/lib/database/failure.ts';
import { Retries } from '../../../functions/lib/database/retries.ts';
import { limits } from '../../support/world.ts';

const timedOut = (step: Step) =>
  new StepFailure(
    step,
    Object.assign(new pg.DatabaseError('canceling statement due to statement timeout', 0, 'error'), {
      code: '57014',
    }),
    false,
  );

// A pooler's session keeps the statement_timeout that a hostile call has left, and its timer may run out just behind `enter`.
test.each([
  ['enter', 10_000, true],
  ['statement', 10_000, true],
  ['statement', 300, false],
  ['commit', 10_000, false],
] as const)('a timeout at %s with %i ms left is another call’s: %s', async (step, left, isTriedAgain) => {
  const retries = new Retries(limits('w', { deadline: Date.now() + left }));
  expect(await retries.worthwhile(timedOut(step), new AbortController().signal)).toBe(isTriedAgain);
});

test('a call that is ended early again and again comes back for a while, and no longer', async () => {
  const retries = new Retries(limits('w', { deadline: Date.now() + 60_000 }));
  let times = 0;
  while (await retries.worthwhile(timedOut('statement'), new AbortController().signal)) times += 1;
  expect(times).toBeGreaterThan(3);
});
