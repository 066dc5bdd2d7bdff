import { type Check, checks, LeftOut, type Target } from './checks.ts';

export interface Verdict {
  readonly check: Check;
  readonly outcome: 'holds' | 'does not hold' | 'left out';
  readonly saw: string;
}

/** Asks a deployment one question after the other. */
export async function verify(target: Target): Promise<Verdict[]> {
  const verdicts: Verdict[] = [];
  for (const check of checks) {
    try {
      verdicts.push({ check, outcome: 'holds', saw: await check.run(target) });
    } catch (error) {
      const { message, cause } = error as Error;
      const saw = cause instanceof Error ? `${message}: ${cause.message}` : message;
      verdicts.push({ check, outcome: error instanceof LeftOut ? 'left out' : 'does not hold', saw });
    }
  }
  return verdicts;
}
