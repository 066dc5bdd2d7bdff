import { join } from 'node:path';
import { Duration, RemovalPolicy, Stack, Validations } from 'aws-cdk-lib';
import type { ISecurityGroup, IVpc, SubnetSelection } from 'aws-cdk-lib/aws-ec2';
import { Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import {
  Architecture,
  Function as LambdaFunction,
  LoggingFormat,
  Runtime,
  Tracing,
} from 'aws-cdk-lib/aws-lambda';
import { LogGroup, type RetentionDays } from 'aws-cdk-lib/aws-logs';
import { Construct } from 'constructs';
import type { FunctionRow } from '../functions.ts';
import type { Settings } from '../settings.ts';
import { bundle, bundleHandler } from './bundle.ts';
import { checkEnvironmentSize } from './environment-size.ts';
import { grant, type Places } from './grant.ts';
import { allowVpc } from './vpc-access.ts';

/** The project's; a row's entry is relative to it. */
const root = join(import.meta.dirname, '../..');

export interface TenancyFunctionProps {
  readonly row: FunctionRow;
  readonly environment: Record<string, string>;
  readonly retention: RetentionDays;
  readonly reservedConcurrency?: number | undefined;
  readonly network: Network;
  readonly places: Places;
}

/** What a function that reaches the databases runs in. */
export interface Network {
  readonly vpc: IVpc;
  readonly subnets: SubnetSelection;
  /** By function, and `proxy`, `cluster`, `dedicated`, `endpoints`. */
  readonly group: (name: string) => ISecurityGroup;
  /** The same, for a construct that would add rules: there are no others than the network's own. */
  readonly fixedGroup: (scope: Construct, name: string) => ISecurityGroup;
}

/** What the settings keep for a function alone, if anything. */
export const reservedFor = (name: string, { reserved, reservedFor }: Settings['concurrency']) =>
  name === 'mcp' ? reserved : reservedFor[name as keyof typeof reservedFor];

/** A Lambda with the house's defaults. Its role may write its own log, trace itself, and what the row says: nothing else. */
export class TenancyFunction extends Construct {
  readonly lambda: LambdaFunction;
  readonly role: Role;
  readonly logGroup: LogGroup;
  /** Changes with its code. */
  readonly digest: string;

  constructor(scope: Construct, id: string, props: TenancyFunctionProps) {
    super(scope, id);
    const { row } = props;
    this.logGroup = new LogGroup(this, 'Log', {
      retention: props.retention,
      removalPolicy: RemovalPolicy.RETAIN,
    });
    // Lambda's usual managed policy would allow writing to every log group of the account.
    this.role = new Role(this, 'Role', { assumedBy: new ServicePrincipal('lambda.amazonaws.com') });
    this.logGroup.grantWrite(this.role);
    if (row.inVpc) allowVpc(this.role);
    const environment = {
      ...props.environment,
      // Lambda's Node trusts the public authorities only; this file of the runtime also holds those of RDS.
      ...(row.inVpc && { NODE_EXTRA_CA_CERTS: '/var/runtime/ca-cert.pem' }),
    };
    checkEnvironmentSize(Stack.of(this), row.name, environment);
    const { code, digest } = bundle(this, row.entry, root);
    this.digest = digest;
    this.lambda = new LambdaFunction(this, 'Function', {
      code,
      handler: bundleHandler,
      runtime: Runtime.NODEJS_24_X,
      architecture: Architecture.ARM_64,
      timeout: Duration.seconds(row.timeoutSeconds),
      memorySize: row.memoryMb,
      role: this.role,
      logGroup: this.logGroup,
      loggingFormat: LoggingFormat.JSON,
      tracing: Tracing.ACTIVE,
      environment,
      ...(props.reservedConcurrency !== undefined && {
        reservedConcurrentExecutions: props.reservedConcurrency,
      }),
      ...(row.inVpc && {
        vpc: props.network.vpc,
        vpcSubnets: props.network.subnets,
        securityGroups: [props.network.group(row.name)],
      }),
    });
    grant(this.role, row.may, props.places);
    Validations.of(this.role).acknowledge({
      id: 'AwsSolutions-IAM5[Resource::*]',
      reason:
        'X-Ray has no resources to name, nor have the network interfaces that Lambda makes: its code may not touch those.',
    });
  }
}
