import { expect, it } from 'vitest';
import { renewed } from '../../functions/lib/renewed.ts';

/** What is made says which one it is; `fails`: the ones that don't come to be. */
function counted(fails: readonly number[] = []) {
  const clock = { now: 0, made: 0 };
  const get = renewed(
    async () => {
      clock.made += 1;
      if (fails.includes(clock.made)) throw new Error(`number ${clock.made} failed`);
      return clock.made;
    },
    () => clock.now,
  );
  return { clock, get };
}

it('is made once, for all who ask at the same time too, and anew after five minutes', async () => {
  const { clock, get } = counted();
  expect(await Promise.all([get(), get()])).toEqual([1, 1]);
  clock.now = 299_999;
  expect(await get()).toBe(1);
  clock.now = 300_000;
  expect(await Promise.all([get(), get()])).toEqual([2, 2]);
});

it('remembers no failure', async () => {
  const { get } = counted([1]);
  await expect(get()).rejects.toThrow('number 1 failed');
  expect(await get()).toBe(2);
});

it('goes on with what it has while another one can’t be made', async () => {
  const { clock, get } = counted([2]);
  await get();
  clock.now = 300_000;
  expect(await get()).toBe(1);
  clock.now = 600_000;
  expect(await get()).toBe(3);
});
