import { fileURLToPath } from 'node:url';
import type { createControlPlane } from '../../../functions/lib/lifecycle/control-plane.ts';
import type { StepEvent } from '../../../functions/lib/lifecycle/step.ts';
import type { MigrationFile } from '../../../functions/lib/migrations/migration-file.ts';
import type { McpSettings } from '../../../functions/lib/settings.ts';
import { Environment, FunctionError } from '../../../infra/local/lambda/environment.ts';
import type { World } from '../../support/world.ts';

export type MoverSettings = Parameters<typeof createControlPlane>[0] & {
  readonly files: readonly MigrationFile[];
  /** Of the data path, for the probe. */
  readonly mcp: McpSettings;
};

const root = fileURLToPath(new URL('../../..', import.meta.url)).replace(/\/$/, '');
const row = {
  name: 'move-tenant',
  entry: 'test/lib/lifecycle/move-function.ts',
  timeoutSeconds: 900,
  memoryMb: 1024,
  streaming: false,
  inVpc: true,
  plane: 'control',
  may: [],
  connections: 12,
} as const;

/** The mover as it is deployed: a process of its own, one step at a time, which may be killed at any moment. */
export class MoverProcess {
  readonly #variables: Readonly<Record<string, string>>;
  readonly #late: Environment[] = [];
  #environment: Environment | undefined;
  #giveUp: (error: Error) => void = () => {};

  constructor({ plane, release, emulator, settings: mcp }: World) {
    const settings: MoverSettings = {
      catalog: plane.catalog,
      credentials: plane.loginsUse,
      region: 'eu-west-1',
      tls: plane.tls,
      contextKeySecret: 'tenancy/context-key',
      extensions: [...plane.extensions],
      files: release.home,
      mcp,
    };
    this.#variables = {
      MOVER: JSON.stringify(settings),
      AWS_ENDPOINT_URL: emulator.url,
      AWS_REGION: 'eu-west-1',
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: 'test',
    };
  }

  /** @throws FunctionError under the error's name; `Runtime.ExitError` when it was killed meanwhile */
  async step(operation: string, step: string, input: StepEvent['input'] = {}): Promise<unknown> {
    const event: StepEvent = { operation, step, input };
    if (this.#environment === undefined || this.#environment.spent)
      this.#environment = new Environment(row, this.#variables, root, () => {});
    const environment = this.#environment;
    const givenUp = new Promise<never>((_, reject) => {
      this.#giveUp = reject;
    });
    // Nobody may be waiting any more.
    givenUp.catch(() => {});
    await Promise.race([environment.ready, givenUp]);
    const answer = await Promise.race([environment.invoke(JSON.stringify(event), () => {}), givenUp]);
    return answer === undefined ? undefined : JSON.parse(answer);
  }

  /** SIGKILL: whatever it was at, it ends there. */
  async kill(): Promise<void> {
    this.#environment?.kill();
    await this.#environment?.exited;
  }

  /** It stops where it is, and the next step has another process. @returns lets it go on, long after it was given up */
  stall(): () => void {
    const stalled = this.#environment;
    if (stalled?.pid === undefined || stalled.spent) return () => {};
    process.kill(stalled.pid, 'SIGSTOP');
    this.#late.push(stalled);
    this.#environment = undefined;
    this.#giveUp(new FunctionError('Unavailable', 'The mover does not answer.'));
    return () => process.kill(stalled.pid!, 'SIGCONT');
  }

  async close(): Promise<void> {
    await this.kill();
    for (const late of this.#late) late.kill();
    await Promise.all(this.#late.map(({ exited }) => exited));
  }
}
