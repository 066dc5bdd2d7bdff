import { expect, it } from 'vitest';
import { whileWanted } from '../../../functions/lib/transfer/manifest.ts';

it('asks once a second, by the clock that it is given, whether bytes are still wanted', async () => {
  let now = 0;
  let asked = 0;
  const wanted = async () => {
    asked += 1;
    if (asked === 3) throw new Error('nobody wants them');
  };
  async function* bytes() {
    // Two pieces a second.
    for (let piece = 1; ; piece += 1, now += 500) yield piece;
  }
  const passed: unknown[] = [];
  const reading = async () => {
    for await (const piece of whileWanted(bytes(), wanted, () => now)) passed.push(piece);
  };
  await expect(reading()).rejects.toThrow('nobody wants them');
  expect(passed).toEqual([1, 2, 3, 4, 5, 6]);
});

it('goes on asking when the clock is put back', async () => {
  let now = 7_200_000;
  let asked = 0;
  async function* bytes() {
    for (let piece = 0; piece < 6; piece += 1, now = piece * 500) yield piece;
  }
  const wanted = async () => {
    asked += 1;
  };
  for await (const _ of whileWanted(bytes(), wanted, () => now));
  expect(asked).toBe(3);
});
