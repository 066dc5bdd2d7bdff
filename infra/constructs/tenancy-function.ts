import { Duration, RemovalPolicy, Validations } from 'aws-cdk-lib';
import type { ISecurityGroup, IVpc } from 'aws-cdk-lib/aws-ec2';
import { ManagedPolicy, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
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
import { bundle } from './bundle.ts';

export interface TenancyFunctionProps {
  readonly row: FunctionRow;
  /** The project's root; `row.entry` is relative to it. */
  readonly root: string;
  readonly environment: Record<string, string>;
  readonly retention: RetentionDays;
  readonly reservedConcurrency?: number | undefined;
  /** Needed by a function whose row says `inVpc`. */
  readonly network?: { readonly vpc: IVpc; readonly securityGroups: ISecurityGroup[] };
}

/** A Lambda with the house's defaults and a role that may write its own log and trace itself: nothing else. */
export class TenancyFunction extends Construct {
  readonly lambda: LambdaFunction;
  readonly role: Role;

  constructor(scope: Construct, id: string, props: TenancyFunctionProps) {
    super(scope, id);
    const { row } = props;
    const logGroup = new LogGroup(this, 'Log', {
      retention: props.retention,
      removalPolicy: RemovalPolicy.RETAIN,
    });
    // Lambda's usual managed policy would allow writing to every log group of the account.
    this.role = new Role(this, 'Role', { assumedBy: new ServicePrincipal('lambda.amazonaws.com') });
    logGroup.grantWrite(this.role);
    if (row.inVpc) {
      if (!props.network) throw new Error(`Function ${row.name} runs in the VPC: give it a network.`);
      this.role.addManagedPolicy(
        ManagedPolicy.fromAwsManagedPolicyName('service-role/AWSLambdaENIManagementAccess'),
      );
      Validations.of(this.role).acknowledge({
        id: 'AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AWSLambdaENIManagementAccess]',
        reason: "Lambda's own network interfaces; EC2 cannot narrow these actions to one function.",
      });
    }
    this.lambda = new LambdaFunction(this, 'Function', {
      code: bundle(this, row.entry, props.root),
      handler: 'handler.handler',
      runtime: Runtime.NODEJS_24_X,
      architecture: Architecture.ARM_64,
      timeout: Duration.seconds(row.timeoutSeconds),
      memorySize: row.memoryMb,
      role: this.role,
      logGroup,
      loggingFormat: LoggingFormat.JSON,
      tracing: Tracing.ACTIVE,
      environment: props.environment,
      ...(props.reservedConcurrency !== undefined && {
        reservedConcurrentExecutions: props.reservedConcurrency,
      }),
      ...(row.inVpc && props.network),
    });
    Validations.of(this.role).acknowledge({
      id: 'AwsSolutions-IAM5[Resource::*]',
      reason: 'X-Ray has no resources to name: xray:PutTraceSegments and xray:PutTelemetryRecords only.',
    });
  }
}
