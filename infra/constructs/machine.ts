import { readFileSync } from 'node:fs';
import { Aws, Fn, RemovalPolicy, Stack, Validations } from 'aws-cdk-lib';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import { LogGroup, type RetentionDays } from 'aws-cdk-lib/aws-logs';
import { DefinitionBody, LogLevel, StateMachine, StateMachineType } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { type MachineFile, substitutionName } from '../machines.ts';
import { nagName } from './grant.ts';

export interface MachineProps {
  readonly file: MachineFile;
  readonly retention: RetentionDays;
  /** By the functions' names. */
  readonly lambdas: ReadonlyMap<string, IFunction>;
}

/** One state machine as its file has it, which may call the functions that the file names and no other. */
export class Machine extends Construct {
  readonly machine: StateMachine;

  constructor(scope: Construct, id: string, { file, retention, lambdas }: MachineProps) {
    super(scope, id);
    const text = readFileSync(file.path, 'utf8');
    const named = [...lambdas].filter(([name]) => text.includes(`\${${substitutionName(name)}}`));
    this.machine = new StateMachine(this, 'Machine', {
      definitionBody: DefinitionBody.fromFile(file.path),
      definitionSubstitutions: {
        Partition: Aws.PARTITION,
        ...Object.fromEntries(named.map(([name, lambda]) => [substitutionName(name), lambda.functionArn])),
      },
      // It runs for hours, and its history is what an operator looks at.
      stateMachineType: StateMachineType.STANDARD,
      tracingEnabled: true,
      logs: {
        destination: new LogGroup(this, 'Log', {
          // Those who write logs for others need each group's name in one policy of the account, which has an end; all below
          // this prefix are one. It outlives the stack, so the name is this stack's alone.
          logGroupName: `/aws/vendedlogs/states/tenantry-${file.name}-${Fn.select(2, Fn.split('/', Stack.of(this).stackId))}`,
          retention,
          removalPolicy: RemovalPolicy.RETAIN,
        }),
        level: LogLevel.ALL,
        // Inputs are ids; what is secret never travels through a machine.
        includeExecutionData: false,
      },
    });
    for (const [, lambda] of named) {
      lambda.grantInvoke(this.machine);
      Validations.of(this.machine.role).acknowledge({
        id: `AwsSolutions-IAM5[Resource::${nagName(lambda.functionArn, Stack.of(this))}:*]`,
        reason: 'The versions of one function, which the library grants beside the function itself.',
      });
    }
    Validations.of(this.machine.role).acknowledge({
      id: 'AwsSolutions-IAM5[Resource::*]',
      reason: 'Log deliveries and X-Ray have no resources to name; AWS documents these actions with *.',
    });
  }
}
