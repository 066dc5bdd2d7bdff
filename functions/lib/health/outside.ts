import type { ControlConnection } from '../database/connect.ts';
import type { Pair } from './canaries.ts';
import { keepCanaryKeys } from './canary-keys.ts';
import { finding, type HealthFinding } from './findings.ts';
import { reasonOf, type Watch, within } from './watch.ts';

/** The function outside has less. */
const publicMs = 18_000;

/** The endpoint as agents reach it, from outside, as the first canary of each strategy. */
export async function auditPublicUrl(
  watch: Watch,
  catalog: ControlConnection,
  pairs: readonly Pair[],
  now: number,
): Promise<HealthFinding[]> {
  const { url } = watch.publicKeys;
  const remedy = 'RUNBOOK.md, public URL failing';
  const red = (text: string) => [
    finding(
      'public_url',
      pairs.map(({ strategy }) => strategy),
      url,
      text,
      remedy,
    ),
  ];
  try {
    const canaries = pairs.map(({ a }) => a);
    const ready = await keepCanaryKeys(watch, catalog, canaries, now);
    const { asked, faults } = await within(() => watch.askPublicUrl(), publicMs);
    const unasked = ready.filter((slug) => !asked.includes(slug));
    return [
      ...(unasked.length > 0 ? red(`was not called as ${unasked.join(', ')}: no key`) : []),
      ...faults.map(({ check, strategies, object, text }) =>
        finding(check, strategies, object, text, remedy),
      ),
    ];
  } catch (error) {
    return red(`could not be asked: ${reasonOf(error)}`);
  }
}
