import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { readSettings } from '../settings.ts';
import { Refused } from './refused.ts';

/** What whoever runs `npm start` decides. */
export interface LocalSettings {
  readonly port: number;
  /** Everything that survives a restart. */
  readonly folder: string;
  /** Throw that away first. */
  readonly fresh: boolean;
  /** Waits of state machines last this part of their time: above 0, at most 1. */
  readonly clockFactor: number;
  /** As a deployment has them: from `cdk.json`. */
  readonly extensions: readonly string[];
  readonly allowedOrigins: readonly string[];
}

const usage =
  'Usage: npm start [-- --fresh], with PORT, TENANTRY_STATE (a folder) and CLOCK_FACTOR (0.02) as environment variables.';

/** @throws Refused that names every fault */
export function readLocalSettings(
  environment: Readonly<Record<string, string | undefined>>,
  args: readonly string[],
  root: string,
): LocalSettings {
  const faults: string[] = [];
  const port = z.coerce
    .number()
    .int()
    .min(1)
    .max(65_535)
    .safeParse(environment.PORT || '8080');
  if (!port.success) faults.push(`PORT is ${environment.PORT}: it must be a whole number from 1 to 65535.`);
  const clockFactor = z.coerce
    .number()
    .gt(0)
    .max(1)
    .safeParse(environment.CLOCK_FACTOR || '0.02');
  if (!clockFactor.success)
    faults.push(`CLOCK_FACTOR is ${environment.CLOCK_FACTOR}: it must be above 0 and at most 1.`);
  let fresh = false;
  try {
    ({ fresh } = parseArgs({
      args: [...args],
      options: { fresh: { type: 'boolean', default: false } },
    }).values);
  } catch (error) {
    faults.push(`${(error as Error).message.split('. ')[0]}.`);
  }
  let deployment = readSettings({});
  try {
    const { context } = JSON.parse(readFileSync(join(root, 'cdk.json'), 'utf8'));
    deployment = readSettings(context?.tenantry);
  } catch (error) {
    faults.push((error as Error).message);
  }
  if (faults.length > 0) throw new Refused([...faults, usage].join('\n'));
  const folder = environment.TENANTRY_STATE ? resolve(environment.TENANTRY_STATE) : join(root, '.tenantry');
  const { extensions, allowedOrigins } = deployment;
  return { port: port.data!, folder, fresh, clockFactor: clockFactor.data!, extensions, allowedOrigins };
}
