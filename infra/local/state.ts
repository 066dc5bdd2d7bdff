import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { openStateFile, type StateFile } from './emulator/state-file.ts';
import { stablePort } from './ports.ts';
import { postgresBase } from './postgres.ts';

/** What the local cloud itself remembers; secrets and instances are the emulator's to keep. */
export interface CloudState {
  /** Cluster ids by RDS instance. */
  clusters: Record<string, string>;
  /** Part of the issuer's name, so that clients which registered with it still can use it. */
  issuerPort: number;
  /** Of the demo tenants, by slug. */
  apiKeys: Record<string, { keyId: string; expires: string }>;
  seeded: string[];
}

export async function openCloudState(folder: string): Promise<StateFile<CloudState>> {
  const state = openStateFile<CloudState>(join(folder, 'cloud.json'), {
    clusters: {},
    issuerPort: 0,
    apiKeys: {},
    seeded: [],
  });
  state.value.issuerPort ||= await stablePort([]);
  return state;
}

/** The same id for the instance at every start. */
export function clusterIdOf(state: StateFile<CloudState>, instance: string): string {
  state.value.clusters[instance] ??= randomUUID();
  return state.value.clusters[instance];
}

/** Only what is ours: the folder may be any that TENANTRY_STATE names. */
export async function forget(folder: string): Promise<void> {
  const files = [
    'admin.json',
    'aws.json',
    'cloud.json',
    'issuer.json',
    'issuer-keys.json',
    'mcp.json',
    'logs',
    'exports',
    's3',
  ];
  const paths = [...files.map((name) => join(folder, name)), join(postgresFolder(folder), 'clusters')];
  await Promise.all(paths.map((path) => rm(path, { recursive: true, force: true })));
}

export const postgresFolder = (folder: string) => postgresBase(join(folder, 'postgres'));
