import { serveAws } from './http.ts';
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
  /** Unix time, ms. */
  now?: () => number;
}

export interface AwsEmulator {
  /** The value of `AWS_ENDPOINT_URL`. */
  readonly url: string;
  readonly secrets: SecretStore;
  close(): Promise<void>;
}

interface State {
  secrets: Record<string, Secret>;
}

/** Secrets Manager and RDS on 127.0.0.1, for unchanged AWS SDK clients. What it does not emulate it refuses. */
export async function startAwsEmulator(options: AwsEmulatorOptions = {}): Promise<AwsEmulator> {
  const now = options.now ?? Date.now;
  const state = openStateFile<State>(options.stateFile, { secrets: {} });
  const secrets = new SecretStore(state.value.secrets, state.save, now);
  const server = await serveAws([secretsManager(secrets, now)], options.port ?? 0, options.accessKeyId);
  return { url: server.url, secrets, close: server.close };
}
