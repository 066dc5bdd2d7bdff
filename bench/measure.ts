import { RetryableError } from '../functions/lib/errors.ts';
import type { TestTenant } from '../test/support/world.ts';
import type { Path } from './ground.ts';

export const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

export async function timed(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

/**
 * Medians, ms, of one call after the other. The paths take turns, and the one that begins changes, so that
 * whatever else the machine does hits all of them alike.
 */
export async function latencies(
  paths: readonly Path[],
  tenants: readonly TestTenant[],
  calls: number,
): Promise<number[]> {
  const times = paths.map(() => [] as number[]);
  for (let round = -Math.ceil(calls / 10); round < calls; round += 1) {
    const tenant = tenants[Math.abs(round) % tenants.length]!;
    for (let turn = 0; turn < paths.length; turn += 1) {
      const index = (turn + Math.abs(round)) % paths.length;
      const time = await timed(() => paths[index]!.run(tenant));
      // Rounds below zero connect and let the code be compiled.
      if (round >= 0) times[index]!.push(time);
    }
  }
  return times.map(median);
}

/** Answered calls per second of `clients` at once, median over slices in which the paths take turns. */
export async function throughputs(
  paths: readonly Path[],
  tenants: readonly TestTenant[],
  { clients, sliceMs, slices }: { clients: number; sliceMs: number; slices: number },
): Promise<number[]> {
  const rates = paths.map(() => [] as number[]);
  for (let slice = -1; slice < slices; slice += 1) {
    for (const [index, path] of paths.entries()) {
      const rate = await throughput(path, tenants, clients, sliceMs);
      if (slice >= 0) rates[index]!.push(rate);
    }
  }
  return rates.map(median);
}

async function throughput(
  path: Path,
  tenants: readonly TestTenant[],
  clients: number,
  sliceMs: number,
): Promise<number> {
  let done = 0;
  const begun = performance.now();
  const until = begun + sliceMs;
  await Promise.all(
    Array.from({ length: clients }, async (_, client) => {
      for (let call = client; performance.now() < until; call += clients) {
        // Refused for want of a connection: an answer that a caller gets, and no work done.
        await path.run(tenants[call % tenants.length]!).then(
          () => (done += 1),
          (error) => {
            if (!(error instanceof RetryableError)) throw error;
          },
        );
      }
    }),
  );
  return (done / (performance.now() - begun)) * 1000;
}
