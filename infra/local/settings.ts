import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { Refused } from './refused.ts';

/** What whoever runs `npm start` decides. */
export interface LocalSettings {
  readonly port: number;
  /** Everything that survives a restart. */
  readonly folder: string;
  /** Throw that away first. */
  readonly fresh: boolean;
}

const usage =
  'Usage: npm start [-- --fresh], with PORT and TENANTRY_STATE (a folder) as environment variables.';

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
  let fresh = false;
  try {
    ({ fresh } = parseArgs({
      args: [...args],
      options: { fresh: { type: 'boolean', default: false } },
    }).values);
  } catch (error) {
    faults.push(`${(error as Error).message.split('. ')[0]}.`);
  }
  if (faults.length > 0) throw new Refused([...faults, usage].join('\n'));
  const folder = environment.TENANTRY_STATE ? resolve(environment.TENANTRY_STATE) : join(root, '.tenantry');
  return { port: port.data!, folder, fresh };
}
