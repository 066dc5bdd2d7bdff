import type { SFNClient } from '@aws-sdk/client-sfn';
import { TenantryError } from '../errors.ts';
import { awsFailure, failsAs } from './failure.ts';

const service = 'Step Functions';

export interface WorkflowState {
  status: 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'TIMED_OUT' | 'ABORTED';
  /** Of a succeeded one: what its last state gave. */
  output?: unknown;
  error?: string;
  cause?: string;
}

export interface Workflows {
  /**
   * Starts the state machine once for each name, however often it is called with it: an execution of this name that
   * runs or has ended is the answer. @throws TenantryError `internal` when that one has another input
   */
  start(machineArn: string, name: string, input: unknown): Promise<string>;
  /** Undefined when there is no such execution, or none any more. */
  describe(executionArn: string): Promise<WorkflowState | undefined>;
}

/** Step Functions. The client is loaded at its first use: it is a good part of a function's load time. */
export function createWorkflows(): Workflows {
  let client: Promise<{ sdk: typeof import('@aws-sdk/client-sfn'); client: SFNClient }> | undefined;
  const load = () => {
    client ??= import('@aws-sdk/client-sfn').then((sdk) => ({
      sdk,
      client: new sdk.SFNClient({ maxAttempts: 3 }),
    }));
    return client;
  };

  return {
    async start(machineArn, name, input) {
      const { sdk, client } = await load();
      const text = JSON.stringify(input);
      try {
        const started = await client.send(
          new sdk.StartExecutionCommand({ stateMachineArn: machineArn, name, input: text }),
        );
        return started.executionArn!;
      } catch (error) {
        if (!(error instanceof sdk.ExecutionAlreadyExists)) throw awsFailure(service, error);
      }
      const executionArn = `${machineArn.replace(':stateMachine:', ':execution:')}:${name}`;
      const known = await client
        .send(new sdk.DescribeExecutionCommand({ executionArn }))
        .catch(failsAs(service));
      if (known.input === text) return executionArn;
      throw new TenantryError('internal', `The execution ${name} exists and has another input.`);
    },

    async describe(executionArn) {
      const { sdk, client } = await load();
      const found = await client
        .send(new sdk.DescribeExecutionCommand({ executionArn }))
        .catch((error) => (error instanceof sdk.ExecutionDoesNotExist ? undefined : failsAs(service)(error)));
      if (found === undefined) return undefined;
      const { status, output, error, cause } = found;
      return {
        status: status as WorkflowState['status'],
        ...(output === undefined ? {} : { output: JSON.parse(output) }),
        ...(error === undefined ? {} : { error }),
        ...(cause === undefined ? {} : { cause }),
      };
    },
  };
}
