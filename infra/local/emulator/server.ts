import { serveAws } from './http.ts';
import { rds } from './rds.ts';
import { RdsInstances, type RdsOptions, type RdsState } from './rds-instances.ts';
import { type Secret, SecretStore } from './secret-store.ts';
import { secretsManager } from './secrets-manager.ts';
import { openStateFile } from './state-file.ts';

export interface AwsEmulatorOptions {
  /** 0 or absent: any free port. */
  port?: number;
  /** Secrets and instances outlive the process here. Absent: they are in memory alone. */
  stateFile?: string;
  /** Callers have to use it; absent: any is good. */
  accessKeyId?: string;
  /** Absent: RDS is not emulated. */
  rds?: RdsOptions;
  /** Unix time, ms. */
  now?: () => number;
}

export interface AwsEmulator {
  /** The value of `AWS_ENDPOINT_URL`. */
  readonly url: string;
  readonly secrets: SecretStore;
  readonly instances: RdsInstances | undefined;
  /** Resolves when every instance of the state file is as far up as it was. */
  readonly resumed: Promise<void>;
  /** Stops every instance in order; with a state file they come back at the next start. */
  close(): Promise<void>;
}

/** Secrets Manager and RDS on 127.0.0.1, for unchanged AWS SDK clients. What it does not emulate it refuses. */
export async function startAwsEmulator(options: AwsEmulatorOptions = {}): Promise<AwsEmulator> {
  const now = options.now ?? Date.now;
  const state = openStateFile<RdsState & { secrets: Record<string, Secret> }>(options.stateFile, {
    secrets: {},
    instances: {},
    snapshots: {},
  });
  const secrets = new SecretStore(state.value.secrets, state.save, now);
  const instances = options.rds && new RdsInstances(state.value, state.save, now, secrets, options.rds);
  const services = [secretsManager(secrets, now), ...(instances ? [rds(instances)] : [])];
  const server = await serveAws(services, options.port ?? 0, options.accessKeyId);
  const resumed = instances?.resume() ?? Promise.resolve();
  return {
    url: server.url,
    secrets,
    instances,
    resumed,
    async close() {
      await server.close();
      await instances?.close();
    },
  };
}
