import type { Machine } from '../state-machines/definition.ts';
import { type Execution, Executions } from '../state-machines/executions.ts';
import { serveAws } from './http.ts';
import { invokeByName, type LocalFunctions, lambdaInvoke } from './lambda-invoke.ts';
import { rds } from './rds.ts';
import { RdsInstances, type RdsOptions } from './rds-instances.ts';
import type { RdsState } from './rds-state.ts';
import { type S3Options, s3 } from './s3.ts';
import { accountId, type Secret, SecretStore } from './secret-store.ts';
import { secretsManager } from './secrets-manager.ts';
import { openStateFile } from './state-file.ts';
import { stepFunctions } from './step-functions.ts';

export interface AwsEmulatorOptions {
  /** 0 or absent: any free port. */
  port?: number;
  /** Secrets and instances outlive the process here. Absent: they are in memory alone. */
  stateFile?: string;
  /** Callers have to use it; absent: any is good. */
  accessKeyId?: string;
  /** Absent: RDS is not emulated. */
  rds?: RdsOptions;
  /** Absent: S3 is not emulated. */
  s3?: S3Options;
  /** Absent: Lambda is not emulated. */
  functions?: LocalFunctions;
  /** Absent: Step Functions is not emulated. */
  stateMachines?: {
    machines: ReadonlyMap<string, Machine>;
    region: string;
    /** Waits and retry intervals last this part of their time: above 0, at most 1. */
    clockFactor: number;
  };
  /** Unix time, ms. */
  clock?: () => number;
}

export interface AwsEmulator {
  /** The value of `AWS_ENDPOINT_URL`. */
  readonly url: string;
  readonly secrets: SecretStore;
  readonly instances: RdsInstances | undefined;
  /** Once functions can be called, `resume` it; `close` it before they end. */
  readonly executions: Executions | undefined;
  /** Resolves when every instance of the state file is as far up as it was. */
  readonly resumed: Promise<void>;
  /** Stops every instance in order. With a state file they come back at the next start; without one nothing of them is left. */
  close(): Promise<void>;
}

type State = RdsState & { secrets: Record<string, Secret>; executions: Record<string, Execution> };

const none: LocalFunctions = { rows: [], host: () => undefined };

/** Secrets Manager, RDS, Step Functions, Lambda and S3 on 127.0.0.1, for unchanged AWS SDK clients. What it does not emulate it refuses. */
export async function startAwsEmulator(options: AwsEmulatorOptions = {}): Promise<AwsEmulator> {
  const clock = options.clock ?? Date.now;
  const state = openStateFile<State>(options.stateFile, {
    secrets: {},
    instances: {},
    snapshots: {},
    executions: {},
  });
  const secrets = new SecretStore(state.value.secrets, state.save, clock);
  const instances = options.rds && new RdsInstances(state.value, state.save, clock, secrets, options.rds);
  // A state file from before there were executions has none.
  state.value.executions ??= {};
  const { functions, stateMachines } = options;
  const executions =
    stateMachines &&
    new Executions(state.value.executions, state.save, clock, {
      ...stateMachines,
      accountId,
      invoke: (name, payload) => invokeByName(functions ?? none, name, payload),
    });
  const services = [
    secretsManager(secrets, clock),
    ...(instances ? [rds(instances)] : []),
    ...(executions ? [stepFunctions(executions)] : []),
  ];
  const routes = [...(functions ? [lambdaInvoke(functions)] : []), ...(options.s3 ? [s3(options.s3)] : [])];
  const server = await serveAws(services, options.port ?? 0, options.accessKeyId, routes);
  const resumed = instances?.resume() ?? Promise.resolve();
  return {
    url: server.url,
    secrets,
    instances,
    executions,
    resumed,
    async close() {
      executions?.close();
      await server.close();
      await instances?.close();
      if (options.stateFile === undefined) await instances?.removeData();
    },
  };
}
