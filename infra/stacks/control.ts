import { Stack, type StackProps } from 'aws-cdk-lib';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import type { Construct } from 'constructs';
import { AdminApi } from '../constructs/admin-api.ts';
import { ExportBucket } from '../constructs/export-bucket.ts';
import type { Places } from '../constructs/grant.ts';
import { Machine } from '../constructs/machine.ts';
import { keepMissed } from '../constructs/missed.ts';
import { reservedFor, TenancyFunction } from '../constructs/tenancy-function.ts';
import { type DeploymentFacts, environmentOf } from '../environment.ts';
import { type FunctionRow, functions } from '../functions.ts';
import { type MachineFile, machineFiles } from '../machines.ts';
import type { Settings } from '../settings.ts';
import type { DataStack } from './data.ts';
import type { EndpointStack } from './endpoint.ts';
import type { NetworkStack } from './network.ts';

export interface ControlStackProps extends StackProps {
  readonly settings: Settings;
  readonly network: NetworkStack;
  readonly data: DataStack;
  readonly endpoint: EndpointStack;
}

const startsOperations = ({ may }: FunctionRow) =>
  may.includes('start-operations') || may.includes('start-provisioning');
const startsMoves = ({ may }: FunctionRow) => may.includes('start-moves');

/** The control plane: what operates tenants. Its functions are the manifest's rows, its machines the files of `stepfunctions/`. */
export class ControlStack extends Stack {
  readonly lambdas = new Map<string, IFunction>();
  readonly machines = new Map<string, Machine>();
  private readonly exports: ExportBucket;

  constructor(scope: Construct, id: string, props: ControlStackProps) {
    super(scope, id, props);
    const { settings, endpoint, data } = props;
    this.exports = new ExportBucket(this, 'Exports');
    const rows = functions.filter(({ plane }) => plane === 'control');
    // Steps first, then the machines that call them, then who starts the machines: first one that is itself called by one.
    for (const row of rows.filter((row) => !startsOperations(row) && !startsMoves(row))) this.add(row, props);
    const batches = rows.filter(startsMoves);
    const isBatch = ({ name }: MachineFile) => batches.some((row) => row.name === name);
    for (const file of machineFiles.filter((file) => !isBatch(file))) this.addMachine(file, props);
    for (const row of batches) this.add(row, props);
    for (const file of machineFiles.filter(isBatch)) this.addMachine(file, props);
    for (const row of rows.filter(startsOperations)) this.add(row, props);
    new AdminApi(this, 'AdminApi', {
      admin: this.lambdas.get('admin')!,
      retention: settings.logRetentionDays,
    });
    // Its stage writes to the account's log role, which that stack makes.
    this.addStackDependency(endpoint);
    this.addStackDependency(data);
  }

  private addMachine(file: MachineFile, { settings }: ControlStackProps): void {
    this.machines.set(
      file.name,
      new Machine(this, `${file.name}-machine`, {
        file,
        retention: settings.logRetentionDays,
        lambdas: this.lambdas,
      }),
    );
  }

  private add(row: FunctionRow, { settings, network, data, endpoint }: ControlStackProps): void {
    const machines = Object.fromEntries(
      [...this.machines].map(([name, { machine }]) => [name, machine.stateMachineArn]),
    );
    const mcp = endpoint.lambda('mcp');
    const facts: DeploymentFacts = {
      ...data.facts,
      publicUrl: endpoint.api.publicUrl,
      mcpFunction: mcp.functionName,
      ...this.endpointCanary((lambda) => lambda.functionName),
      exportBucket: this.exports.bucket.bucketName,
      machines,
      json: (value) => this.toJsonString(value),
    };
    const places: Places = {
      ...data.places,
      mcpFunction: mcp.functionArn,
      ...this.endpointCanary((lambda) => lambda.functionArn),
      exportBucket: this.exports.bucket.bucketArn,
      machines,
    };
    const made = new TenancyFunction(this, row.name, {
      row,
      retention: settings.logRetentionDays,
      network,
      places,
      environment: environmentOf(row, facts),
      reservedConcurrency: reservedFor(row.name, settings.concurrency),
    });
    // Called by the clock, which does not wait for an answer: what is lost would be lost in silence.
    if (row.scheduleMinutes !== undefined) keepMissed(this, made.lambda);
    this.lambdas.set(row.name, made.lambda);
  }

  /** Once it is there: before whoever starts operations, as the canary does. */
  private endpointCanary(of: (lambda: IFunction) => string): { endpointCanary?: string } {
    const lambda = this.lambdas.get('endpoint-canary');
    return lambda === undefined ? {} : { endpointCanary: of(lambda) };
  }
}
