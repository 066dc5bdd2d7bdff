import { describe, expect, it } from 'vitest';
import { nextOf, progressOf, whileSuspended } from '../../functions/admin/cli/move.ts';
import type { MoveView } from '../../functions/lib/admin/move.ts';

describe('a move’s next command', () => {
  const windowEndsAt = '2026-11-27T07:00:00.000Z';
  const now = Date.parse('2026-11-27T06:30:00.000Z');
  const next = (state: Partial<MoveView>, at = now) =>
    nextOf(
      {
        ...{ tenant: 'acme', phase: 'switched', wanted: null, pausedAt: null, windowEndsAt },
        ...{ operation: { state: 'running' } },
        ...state,
      } as MoveView,
      at,
    );

  it.each([
    ['while the way back is open', {}, now, 'move reverse acme'],
    ['when that is over', {}, now + 3_600_000, 'The home that it has left goes next'],
    ['when it is being switched back', { wanted: 'reverse' }, now, 'reverse, is on its way'],
    ['when it is being completed', { wanted: 'complete' }, now, 'complete, is on its way'],
    ['when it is being cancelled', { phase: 'moving', wanted: 'cancel' }, now, 'cancel, is on its way'],
    ['when it is paused', { phase: 'moving', pausedAt: windowEndsAt }, now, 'move resume acme'],
    ['before its switch', { phase: 'moving' }, now, 'move status acme'],
    [
      'when it is being taken back',
      { phase: 'cancelled', windowEndsAt: null },
      now,
      'the tenant stays where it is',
    ],
    ['when it has been switched back', { phase: 'reversed', windowEndsAt: null }, now, 'goes next'],
  ] as const)('%s', (_, state, at, text) => {
    expect(next(state as Partial<MoveView>, at)).toContain(text);
    if (!text.includes('reverse acme'))
      expect(next(state as Partial<MoveView>, at)).not.toContain('move reverse');
  });

  it('of one that has ended is none', () => {
    expect(next({ operation: { state: 'done' } as MoveView['operation'] })).toBeUndefined();
  });
});

it.each([
  ['moving', 'running', true],
  ['cancelled', 'running', true],
  ['cancelled', 'failed', false],
  ['switched', 'running', false],
] as const)('who waits for one that is %s and %s goes on waiting: %s', (phase, state, waits) => {
  const startedAt = '2026-11-27T06:00:00.000Z';
  const seen = progressOf({
    phase,
    pausedAt: null,
    operation: { state, step: 'cancel', startedAt },
  } as MoveView);
  expect(seen !== undefined).toBe(waits);
});

it.each([
  ['moving', true, /fails should it come to the switch.*npm run tenants -- resume acme$/],
  ['switched', true, /moved back only once.*npm run tenants -- resume acme$/],
  ['completed', true, undefined],
  ['moving', false, undefined],
] as const)('of a move that is %s, its tenant suspended: %s', (phase, isSuspended, text) => {
  const move = { tenant: 'acme', phase, isSuspended, operation: { state: 'running' } } as MoveView;
  if (text === undefined) expect(whileSuspended(move)).toBeUndefined();
  else expect(whileSuspended(move)).toMatch(text);
});
