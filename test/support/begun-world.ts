import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { World } from './world.ts';

/** What worlds of one run begin as: a world that was stopped. All of a run's processes share it. */
export interface BegunWorld {
  /** The data of its server. */
  readonly data: string;
  readonly clusterId: string;
  readonly secrets: readonly (readonly [name: string, value: string])[];
}

/**
 * Made by whoever comes first, of the run's folder. Who comes meanwhile waits for nobody and makes a world from nothing, as
 * everybody does where there is no such folder.
 */
export async function begunWorld(
  folder: string | undefined,
  make: () => Promise<World>,
): Promise<BegunWorld | undefined> {
  if (folder === undefined) return undefined;
  const file = join(folder, 'world.json');
  if (!existsSync(file)) {
    try {
      mkdirSync(join(folder, 'world'));
    } catch {
      return undefined;
    }
    await keep(await make(), join(folder, 'world', 'data'), file);
  }
  return JSON.parse(readFileSync(file, 'utf8'));
}

async function keep(world: World, data: string, file: string): Promise<void> {
  try {
    await world.cluster.server.stop();
    await promisify(execFile)('cp', ['-a', world.cluster.data, data]);
    const secrets = world.emulator.secrets
      .all()
      .map((secret) => [secret.name, world.emulator.secrets.value(secret).string!] as const);
    const begun: BegunWorld = { data, clusterId: world.shared.clusterId, secrets };
    writeFileSync(`${file}.unfinished`, JSON.stringify(begun));
    renameSync(`${file}.unfinished`, file);
  } finally {
    await world.close();
  }
}
