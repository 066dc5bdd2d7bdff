import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import {
  DescribeExecutionCommand,
  ExecutionAlreadyExists,
  ExecutionDoesNotExist,
  InvalidExecutionInput,
  InvalidName,
  ListExecutionsCommand,
  ListStateMachinesCommand,
  paginateGetExecutionHistory,
  SFNClient,
  StartExecutionCommand,
  StateMachineDoesNotExist,
  StopExecutionCommand,
} from '@aws-sdk/client-sfn';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { FunctionFailed, invokeFunction } from '../../functions/lib/aws/lambda.ts';
import { createWorkflows } from '../../functions/lib/aws/step-functions.ts';
import { machineSubstitutions } from '../../infra/local/emulator/lambda-invoke.ts';
import { type AwsEmulator, startAwsEmulator } from '../../infra/local/emulator/server.ts';
import { LambdaHost } from '../../infra/local/lambda/host.ts';
import { loadMachine } from '../../infra/local/state-machines/definition.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const region = 'eu-west-1';
const row = {
  timeoutSeconds: 3,
  memoryMb: 128,
  streaming: false,
  inVpc: false,
  plane: 'data' as const,
  may: [],
};
const rows = [
  { ...row, name: 'echo-it', entry: 'test/local/functions/echo.ts' },
  { ...row, name: 'mcp', entry: 'test/local/functions/mcp.ts', streaming: true },
];

const echo = {
  Type: 'Task',
  Resource: 'arn:aws:states:::lambda:invoke',
  Parameters: { FunctionName: `$${'{EchoIt}'}`, 'Payload.$': '$' },
  OutputPath: '$.Payload',
  TimeoutSeconds: 60,
  End: true,
};
const sources = {
  echo: { StartAt: 'echo', States: { echo } },
  slow: {
    StartAt: 'sleep',
    States: { sleep: { Type: 'Wait', Seconds: 99_999, Next: 'echo' }, echo },
  },
  // Stays as long as its input says so.
  held: {
    StartAt: 'mark',
    States: {
      mark: { ...echo, ResultPath: null, OutputPath: '$', End: undefined, Next: 'held?' },
      'held?': {
        Type: 'Choice',
        Choices: [{ Variable: '$.hold', BooleanEquals: true, Next: 'sleep' }],
        Default: 'echo',
      },
      sleep: { Type: 'Wait', Seconds: 99_999, End: true },
      echo,
    },
  },
};
const machines = (names: (keyof typeof sources)[] = ['echo', 'slow', 'held']) =>
  new Map(
    names.map((name) => [
      name as string,
      loadMachine(`${name}.asl.json`, JSON.stringify(sources[name]), machineSubstitutions(rows, region)),
    ]),
  );
const arnOf = (name: string) => `arn:aws:states:${region}:111122223333:stateMachine:${name}`;

let folder: string;
let host: LambdaHost;
let emulator: AwsEmulator;
let sfn: SFNClient;

async function start(names?: (keyof typeof sources)[]): Promise<void> {
  host = new LambdaHost({
    root,
    functions: rows,
    variables: () => ({ AWS_REGION: region }),
    log: () => {},
    onInitError: () => {},
  });
  emulator = await startAwsEmulator({
    stateFile: join(folder, 'aws.json'),
    functions: { rows, host: () => host },
    stateMachines: { machines: machines(names), region, clockFactor: 1 },
  });
  await emulator.executions!.resume();
  sfn = new SFNClient({ endpoint: emulator.url, region, credentials });
  vi.stubEnv('AWS_ENDPOINT_URL', emulator.url);
}

async function stop(): Promise<void> {
  sfn.destroy();
  await emulator.close();
  await host.close();
}

const credentials = { accessKeyId: 'any', secretAccessKey: 'any' };

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tenantry-sfn-'));
  vi.stubEnv('AWS_REGION', region);
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'any');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'any');
  await start();
});
afterEach(async () => {
  await stop();
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

const begin = (machine: string, name?: string, input?: string) =>
  sfn.send(new StartExecutionCommand({ stateMachineArn: arnOf(machine), name, input }));
const describe = (executionArn: string) => sfn.send(new DescribeExecutionCommand({ executionArn }));
const ended = (executionArn: string) =>
  vi.waitFor(
    async () => {
      const found = await describe(executionArn);
      expect(found.status).not.toBe('RUNNING');
      return found;
    },
    { timeout: 60_000 },
  );

test('an execution runs its function and tells its outcome and history', async () => {
  const { executionArn, startDate } = await begin('echo', 'one', '{"a":1}');
  expect(startDate).toBeInstanceOf(Date);
  expect(await ended(executionArn!)).toMatchObject({
    status: 'SUCCEEDED',
    name: 'one',
    stateMachineArn: arnOf('echo'),
    input: '{"a":1}',
    output: '{"echo":{"a":1}}',
  });
  const events = [];
  const pages = paginateGetExecutionHistory(
    { client: sfn, pageSize: 3 },
    { executionArn, includeExecutionData: false },
  );
  for await (const page of pages) events.push(...page.events!);
  expect(events.map(({ type }) => type)).toEqual([
    ...['ExecutionStarted', 'TaskStateEntered', 'TaskScheduled', 'TaskStarted', 'TaskSucceeded'],
    ...['TaskStateExited', 'ExecutionSucceeded'],
  ]);
  expect(events.map(({ id }) => id)).toEqual([1, 2, 3, 4, 5, 6, 7]);
  expect(events[1]!.stateEnteredEventDetails).toEqual({ name: 'echo' });
});

test('a function’s error and its time running out are the execution’s error, by AWS’s names', async () => {
  const thrown = await ended((await begin('echo', 'thrown', '{"fails":true}')).executionArn!);
  expect(thrown).toMatchObject({ status: 'FAILED', error: 'NotThere' });
  expect(JSON.parse(thrown.cause!)).toMatchObject({ errorType: 'NotThere', errorMessage: 'it is not there' });
  const late = await ended((await begin('echo', 'late', '{"delayMs":60000}')).executionArn!);
  expect(late).toMatchObject({ status: 'FAILED', error: 'Sandbox.Timedout' });
});

test('twenty starts under one name are one execution; another input or an ended one is refused', async () => {
  const starts = await Promise.all(Array.from({ length: 20 }, () => begin('held', 'once', '{"hold":true}')));
  expect(new Set(starts.map(({ executionArn }) => executionArn))).toHaveProperty('size', 1);
  expect(new Set(starts.map(({ startDate }) => startDate!.getTime()))).toHaveProperty('size', 1);
  await expect(begin('held', 'once', '{"hold":false}')).rejects.toBeInstanceOf(ExecutionAlreadyExists);
  await sfn.send(new StopExecutionCommand({ executionArn: starts[0]!.executionArn }));
  await expect(begin('held', 'once', '{"hold":true}')).rejects.toBeInstanceOf(ExecutionAlreadyExists);
  const { executions } = await sfn.send(new ListExecutionsCommand({ stateMachineArn: arnOf('held') }));
  expect(executions).toHaveLength(1);
});

test('stopping ends an execution at once, with the reason, and once', async () => {
  const { executionArn } = await begin('slow', 'stopped');
  const { stopDate } = await sfn.send(
    new StopExecutionCommand({ executionArn, error: 'Operator', cause: 'not wanted' }),
  );
  const found = await describe(executionArn!);
  expect(found).toMatchObject({ status: 'ABORTED', error: 'Operator', cause: 'not wanted', stopDate });
  // Once more changes nothing.
  await sfn.send(new StopExecutionCommand({ executionArn, error: 'Other' }));
  expect(await describe(executionArn!)).toMatchObject({ error: 'Operator', stopDate });
});

test('executions are listed newest first, by status, in pages', async () => {
  for (const name of ['a', 'b', 'c']) await ended((await begin('echo', name)).executionArn!);
  const list = (more: object) =>
    sfn.send(new ListExecutionsCommand({ stateMachineArn: arnOf('echo'), ...more }));
  const first = await list({ maxResults: 2, statusFilter: 'SUCCEEDED' });
  expect(first.executions!.map(({ name }) => name)).toEqual(['c', 'b']);
  const second = await list({ nextToken: first.nextToken });
  expect(second.executions!.map(({ name }) => name)).toEqual(['a']);
  expect(second.nextToken).toBeUndefined();
  expect((await list({ statusFilter: 'RUNNING' })).executions).toEqual([]);
});

test('what ran when the process ended starts again from its beginning; what had ended stays', async () => {
  const done = (await begin('echo', 'done')).executionArn!;
  await ended(done);
  const mark = join(folder, 'mark');
  const marks = () => readFile(mark, 'utf8').catch(() => '');
  const input = JSON.stringify({ hold: true, mark });
  const running = (await begin('held', 'running', input)).executionArn!;
  await vi.waitFor(async () => expect(await marks()).toBe('.'), { timeout: 60_000 });
  const orphan = (await begin('slow', 'orphan')).executionArn!;
  const { startDate } = await describe(running);
  await stop();
  await start(['echo', 'held']);
  expect(await describe(done)).toMatchObject({ status: 'SUCCEEDED', output: '{"echo":{}}' });
  expect(await describe(running)).toMatchObject({ status: 'RUNNING', startDate });
  expect(await describe(orphan)).toMatchObject({
    status: 'ABORTED',
    cause: 'Its state machine is no longer there.',
  });
  await vi.waitFor(async () => expect(await marks()).toBe('..'), { timeout: 60_000 });
  // It can still be joined by its name.
  expect(await begin('held', 'running', input)).toMatchObject({ executionArn: running });
});

test('what AWS refuses is refused with its errors, and what is not emulated says so', async () => {
  await expect(begin('nowhere')).rejects.toBeInstanceOf(StateMachineDoesNotExist);
  await expect(begin('echo', 'no spaces')).rejects.toBeInstanceOf(InvalidName);
  await expect(begin('echo', 'x', 'not JSON')).rejects.toBeInstanceOf(InvalidExecutionInput);
  await expect(begin('echo', 'x', JSON.stringify('x'.repeat(262_143)))).rejects.toMatchObject({
    name: 'ValidationException',
  });
  await expect(describe(`${arnOf('echo')}:none`)).rejects.toBeInstanceOf(ExecutionDoesNotExist);
  await expect(sfn.send(new ListStateMachinesCommand({}))).rejects.toMatchObject({ name: 'NotEmulated' });
  const traced = new StartExecutionCommand({ stateMachineArn: arnOf('echo'), traceHeader: 'x' });
  await expect(sfn.send(traced)).rejects.toMatchObject({ name: 'NotEmulated' });
});

test('the product’s workflows start once for each name and describe what became of it', async () => {
  const workflows = createWorkflows();
  const arns = await Promise.all(
    Array.from({ length: 20 }, () => workflows.start(arnOf('echo'), 'op-1', { a: 1 })),
  );
  expect(new Set(arns)).toHaveProperty('size', 1);
  await ended(arns[0]!);
  expect(await workflows.start(arnOf('echo'), 'op-1', { a: 1 })).toBe(arns[0]);
  expect(await workflows.describe(arns[0]!)).toEqual({ status: 'SUCCEEDED', output: { echo: { a: 1 } } });
  await expect(workflows.start(arnOf('echo'), 'op-1', { a: 2 })).rejects.toMatchObject({ code: 'internal' });
  await expect(workflows.start(arnOf('nowhere'), 'op-2', {})).rejects.toMatchObject({ code: 'internal' });
});

test('the product calls a function by name or ARN, and gets its answer, its failure, or what it streamed', async () => {
  expect(await invokeFunction('tenantry-echo-it', { a: 1 })).toEqual({ echo: { a: 1 } });
  const arn = machineSubstitutions(rows, region).EchoIt!;
  expect(await invokeFunction(arn, [])).toEqual({ echo: [] });
  const failure = await invokeFunction('echo-it', { fails: true }).catch((error) => error);
  expect(failure).toBeInstanceOf(FunctionFailed);
  expect(failure).toMatchObject({ errorType: 'NotThere', errorMessage: 'it is not there' });
  await expect(invokeFunction('echo-it', { delayMs: 60_000 })).rejects.toMatchObject({
    errorType: 'Sandbox.Timedout',
  });
  expect(await invokeFunction('mcp', { httpMethod: 'GET' })).toEqual({
    statusCode: 405,
    headers: { allow: 'POST' },
    body: 'no',
  });
  await expect(invokeFunction('nowhere', {})).rejects.toMatchObject({ code: 'internal' });
});

test('Lambda’s own wire: the function’s error is a header and a document, other ways to invoke are refused', async () => {
  const lambda = new LambdaClient({ endpoint: emulator.url, region, credentials });
  const failed = await lambda.send(
    new InvokeCommand({ FunctionName: 'echo-it', Payload: JSON.stringify({ fails: true }) }),
  );
  expect(failed).toMatchObject({ StatusCode: 200, FunctionError: 'Unhandled', ExecutedVersion: '$LATEST' });
  const document = JSON.parse(Buffer.from(failed.Payload!).toString());
  expect(document).toMatchObject({ errorType: 'NotThere', errorMessage: 'it is not there' });
  expect(document.trace[0]).toContain('NotThere');
  const asynchronous = new InvokeCommand({ FunctionName: 'echo-it', InvocationType: 'Event' });
  await expect(lambda.send(asynchronous)).rejects.toMatchObject({ name: 'NotEmulated' });
  lambda.destroy();
});
