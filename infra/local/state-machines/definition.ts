import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { faultsOf } from './refusals.ts';

type Json = Record<string, unknown>;

/** One state as its file has it, after the refusals have looked at it. */
export interface State extends Json {
  Type: 'Task' | 'Pass' | 'Choice' | 'Wait' | 'Map' | 'Parallel' | 'Succeed' | 'Fail';
}

export interface States extends Json {
  StartAt: string;
  States: Record<string, State>;
}

export interface Machine {
  /** The file's name without `.asl.json`. */
  readonly name: string;
  readonly definition: States & { TimeoutSeconds?: number };
}

/** The file holds what Step Functions or the local engine would not run as it reads. */
export class RefusedMachine extends Error {}

/**
 * Reads one machine. `substitutions` fill the file's `${…}`, as CDK's `definitionSubstitutions` do on AWS: functions'
 * names or ARNs. @throws RefusedMachine with every fault, each naming file, state and reason
 */
export function loadMachine(
  file: string,
  text: string,
  substitutions: Readonly<Record<string, string>>,
): Machine {
  const faults: string[] = [];
  const filled = text.replaceAll(/\$\{([^}]*)\}/g, (_, name: string) => {
    if (substitutions[name] === undefined) faults.push(`\${${name}} has no substitution`);
    return JSON.stringify(substitutions[name] ?? '').slice(1, -1);
  });
  let definition: unknown;
  try {
    definition = JSON.parse(filled);
  } catch (error) {
    throw new RefusedMachine(`${file}: ${(error as Error).message}`);
  }
  faults.push(...faultsOf(definition));
  if (faults.length > 0) throw new RefusedMachine(faults.map((fault) => `${file}: ${fault}.`).join('\n'));
  return { name: file.replace(/^.*\//, '').replace(/\.asl\.json$/, ''), definition: definition as States };
}

/** Every `*.asl.json` of the folder, by its name. */
export async function loadMachines(
  folder: string,
  substitutions: Readonly<Record<string, string>>,
): Promise<ReadonlyMap<string, Machine>> {
  const files = (await readdir(folder)).filter((file) => file.endsWith('.asl.json')).sort();
  const machines = await Promise.all(
    files.map(async (file) => loadMachine(file, await readFile(join(folder, file), 'utf8'), substitutions)),
  );
  return new Map(machines.map((machine) => [machine.name, machine]));
}
