import { setTimeout as sleep } from 'node:timers/promises';
import { runMachineOf } from './move.support.ts';
import type { MoverProcess } from './mover-process.ts';

/**
 * A move by the state machine's own file, with every step in the mover's process, and what befalls it: each of `strikes` once,
 * so long after a step of that name has begun. @returns how it ended, and how many came to pass
 */
export async function runStruck<T extends { readonly step: string; readonly afterMs: number }>(
  mover: MoverProcess,
  operation: string,
  strikes: readonly T[],
  befall: (strike: T) => Promise<void>,
  beforeStep: (step: string) => Promise<unknown>,
): Promise<{ status: string; struck: number }> {
  const left = [...strikes];
  // One after the other: a server that is being started can't be started again.
  let striking = Promise.resolve();
  let struck = 0;
  const { status } = await runMachineOf({ operation }, 0.02, async ({ step, input }) => {
    await beforeStep(step);
    const index = left.findIndex((strike) => strike.step === step);
    const [strike] = index < 0 ? [] : left.splice(index, 1);
    const work = mover.step(operation, step, input);
    if (strike !== undefined) {
      const [time, others] = [sleep(strike.afterMs), striking];
      striking = Promise.all([time, others]).then(() => {
        struck += 1;
        return befall(strike);
      });
      // Thrown below, when the move has ended.
      striking.catch(() => {});
    }
    return work;
  });
  await striking;
  return { status, struck };
}
