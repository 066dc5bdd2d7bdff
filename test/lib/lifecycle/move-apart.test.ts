import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Apart, roundOf, startApart, strike, type Victim, victims } from './move-apart.ts';

/** A handful of seeds, the same in every run; `npm run bench -- --only moves-many --faults 200` tries as many as one likes. */
let apart: Apart;
beforeAll(async () => {
  apart = await startApart();
});
afterAll(() => apart?.close());

const rounds: [string, readonly Victim[], number][] = [
  ...victims.map((victim): [string, readonly Victim[], number] => [victim, [victim], 1]),
  ['any of them', victims, 2],
  ['any of them', victims, 3],
];

it.each(rounds)(
  '%s killed: one home is open, which is the catalog’s, agents lose nothing, and nothing is left behind',
  async (_, of, seed) => {
    const ended = await strike(apart, roundOf(seed, of));
    expect(ended.wrong, JSON.stringify(ended)).toEqual([]);
    expect(ended.struck).toBeGreaterThan(0);
    expect(ended.acknowledged).toBeGreaterThan(0);
  },
);
