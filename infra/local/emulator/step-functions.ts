import {
  DescribeExecution$,
  type DescribeExecutionCommandInput,
  type DescribeExecutionCommandOutput,
  ExecutionAlreadyExists$,
  ExecutionDoesNotExist$,
  GetExecutionHistory$,
  type GetExecutionHistoryCommandInput,
  type GetExecutionHistoryCommandOutput,
  type HistoryEvent as HistoryAnswer,
  InvalidExecutionInput$,
  InvalidName$,
  InvalidToken$,
  ListExecutions$,
  type ListExecutionsCommandInput,
  type ListExecutionsCommandOutput,
  StartExecution$,
  type StartExecutionCommandInput,
  type StartExecutionCommandOutput,
  StateMachineDoesNotExist$,
  StopExecution$,
  type StopExecutionCommandInput,
  type StopExecutionCommandOutput,
  ValidationException$,
} from '@aws-sdk/client-sfn';
import { maxDataBytes } from '../state-machines/engine.ts';
import { type Execution, ExecutionExists, type Executions } from '../state-machines/executions.ts';
import type { HistoryEvent } from '../state-machines/history.ts';
import { fault, notEmulated, operation, type Service } from './service.ts';

type Answer<Output> = Omit<Output, '$metadata'>;

export const stepFunctions = (executions: Executions): Service => ({
  protocol: 'awsJson',
  name: 'AWSStepFunctions',
  xmlNamespace: '',
  operations: [
    operation<StartExecutionCommandInput, Answer<StartExecutionCommandOutput>>(
      StartExecution$,
      ['stateMachineArn', 'name', 'input'],
      async ({ stateMachineArn, name, input = '{}' }) => {
        const machine = machineOf(executions, stateMachineArn);
        if (name !== undefined && !/^[\w-]{1,80}$/.test(name)) {
          throw fault(InvalidName$, `Invalid Name: '${name}'`);
        }
        checkInput(input);
        try {
          const execution = await executions.start(machine, input, name);
          return { executionArn: execution.arn, startDate: new Date(execution.startedAt) };
        } catch (error) {
          if (!(error instanceof ExecutionExists)) throw error;
          throw fault(ExecutionAlreadyExists$, `Execution Already Exists: '${error.message}'`);
        }
      },
    ),
    operation<DescribeExecutionCommandInput, Answer<DescribeExecutionCommandOutput>>(
      DescribeExecution$,
      ['executionArn'],
      ({ executionArn }) => {
        const execution = executionOf(executions, executionArn);
        const { input, output, error, cause } = execution;
        return { ...summary(execution), input, output, error, cause };
      },
    ),
    operation<ListExecutionsCommandInput, Answer<ListExecutionsCommandOutput>>(
      ListExecutions$,
      ['stateMachineArn', 'statusFilter', 'maxResults', 'nextToken'],
      ({ stateMachineArn, statusFilter, maxResults, nextToken }) => {
        machineOf(executions, stateMachineArn);
        const all = executions
          .list(stateMachineArn!)
          .filter(({ status }) => statusFilter === undefined || status === statusFilter);
        // The token names the last execution that was shown: new ones come before it.
        const after = nextToken === undefined ? -1 : all.findIndex(({ arn }) => arn === nextToken);
        if (nextToken !== undefined && after < 0) throw fault(InvalidToken$, 'Invalid Token');
        const shown = all.slice(after + 1, after + 1 + pageSize(maxResults));
        const isMore = after + 1 + shown.length < all.length;
        return { executions: shown.map(summary), nextToken: isMore ? shown.at(-1)!.arn : undefined };
      },
    ),
    operation<GetExecutionHistoryCommandInput, Answer<GetExecutionHistoryCommandOutput>>(
      GetExecutionHistory$,
      ['executionArn', 'maxResults', 'reverseOrder', 'nextToken', 'includeExecutionData'],
      ({ executionArn, maxResults, reverseOrder, nextToken, includeExecutionData }) => {
        // The SDK's default is true; what states took and gave is not kept here.
        if (includeExecutionData !== false) throw notEmulated('GetExecutionHistory with execution data');
        const { history } = executionOf(executions, executionArn);
        const all = answers(history);
        if (reverseOrder) all.reverse();
        // The token is the id of the last event that was shown: a running execution's history grows.
        const after = nextToken === undefined ? -1 : all.findIndex(({ id }) => String(id) === nextToken);
        if (nextToken !== undefined && after < 0) throw fault(InvalidToken$, 'Invalid Token');
        const events = all.slice(after + 1, after + 1 + pageSize(maxResults));
        const isMore = after + 1 + events.length < all.length;
        return { events, nextToken: isMore ? String(events.at(-1)!.id) : undefined };
      },
    ),
    operation<StopExecutionCommandInput, Answer<StopExecutionCommandOutput>>(
      StopExecution$,
      ['executionArn', 'error', 'cause'],
      async ({ executionArn, error, cause }) => {
        const execution = executionOf(executions, executionArn);
        await executions.stop(execution, error, cause);
        return { stopDate: new Date(execution.stoppedAt!) };
      },
    ),
  ],
});

function machineOf(executions: Executions, arn = '') {
  const machine = executions.machine(arn);
  if (!machine) throw fault(StateMachineDoesNotExist$, `State Machine Does Not Exist: '${arn}'`);
  return machine;
}

function executionOf(executions: Executions, arn = ''): Execution {
  const execution = executions.find(arn);
  if (!execution) throw fault(ExecutionDoesNotExist$, `Execution Does Not Exist: '${arn}'`);
  return execution;
}

function checkInput(input: string): void {
  if (Buffer.byteLength(input) > maxDataBytes) {
    throw fault(ValidationException$, `The input is larger than ${maxDataBytes} bytes.`);
  }
  try {
    JSON.parse(input);
  } catch {
    throw fault(InvalidExecutionInput$, 'Invalid State Machine Execution Input: it is not JSON.');
  }
}

/** 0 is the default, as on AWS. */
function pageSize(asked: number | undefined): number {
  if (asked !== undefined && (asked < 0 || asked > 1000)) {
    throw fault(ValidationException$, 'maxResults must be between 0 and 1000.');
  }
  return asked || 100;
}

const summary = ({ arn, machineArn, name, status, startedAt, stoppedAt }: Execution) => ({
  executionArn: arn,
  stateMachineArn: machineArn,
  name,
  status,
  startDate: new Date(startedAt),
  stopDate: stoppedAt === undefined ? undefined : new Date(stoppedAt),
});

function answers(history: readonly HistoryEvent[]): HistoryAnswer[] {
  const lastOf = new Map<string, number>();
  return history.map((event, index) => {
    const { state = '', index: iteration = 0, error, cause } = event;
    const id = index + 1;
    // Of iterations that run beside each other: the event before in the same state.
    const isWithin = /^Task|StateExited$/.test(event.type);
    const previousEventId = (isWithin && lastOf.get(state)) || index;
    lastOf.set(state, id);
    const answer = { id, previousEventId, type: event.type, timestamp: new Date(event.timestamp) };
    const detail = event.type.endsWith('StateEntered')
      ? { stateEnteredEventDetails: { name: state } }
      : event.type.endsWith('StateExited')
        ? { stateExitedEventDetails: { name: state } }
        : undefined;
    if (detail) return { ...answer, ...detail };
    const member = `${event.type[0]!.toLowerCase()}${event.type.slice(1)}EventDetails`;
    if (event.type.startsWith('MapIteration')) {
      return { ...answer, [member]: { name: state, index: iteration } };
    }
    const resource = event.type.startsWith('Task') ? { resourceType: 'lambda', resource: 'invoke' } : {};
    return error === undefined ? answer : { ...answer, [member]: { ...resource, error, cause } };
  });
}
