import { readdirSync } from 'node:fs';
import { join } from 'node:path';

const folder = join(import.meta.dirname, '../stepfunctions');

export interface MachineFile {
  /** `provision-tenant` */
  readonly name: string;
  readonly path: string;
}

/** Every state machine that there is a file of. */
export const machineFiles: readonly MachineFile[] = readdirSync(folder)
  .filter((file) => file.endsWith('.asl.json'))
  .sort()
  .map((file) => ({ name: file.replace(/\.asl\.json$/, ''), path: join(folder, file) }));

/** `provision-tenant` → `ProvisionTenant`, as the machines' files name their functions. */
export const substitutionName = (functionName: string) =>
  functionName.replaceAll(/(^|-)([a-z])/g, (_, _dash, letter: string) => letter.toUpperCase());
