import { type CfnResource, CustomResourceProviderBase, Stack } from 'aws-cdk-lib';
import type { Vpc } from 'aws-cdk-lib/aws-ec2';
import { Architecture, Runtime } from 'aws-cdk-lib/aws-lambda';
import type { LogGroup } from 'aws-cdk-lib/aws-logs';

/** The library's own name for it, one a stack. */
const provider = 'Custom::VpcRestrictDefaultSGCustomResourceProvider';

/**
 * CloudFormation can't take the rules out of a VPC's default group; the library's function does it once, when the VPC is
 * made (`restrictDefaultSecurityGroup`). It gets the house's defaults here, and no more rights than it needs.
 */
export function tameDefaultGroupFunction(vpc: Vpc, log: LogGroup): void {
  const stack = Stack.of(vpc);
  const made = stack.node.tryFindChild(provider);
  if (!(made instanceof CustomResourceProviderBase))
    throw new Error('The library no longer restricts the default security group this way.');
  const lambda = made.node.findChild('Handler') as CfnResource;
  lambda.addPropertyOverride('Runtime', Runtime.NODEJS_24_X.name);
  lambda.addPropertyOverride('Architectures', [Architecture.ARM_64.name]);
  lambda.addPropertyOverride('TracingConfig', { Mode: 'Active' });
  lambda.addPropertyOverride('LoggingConfig', { LogFormat: 'JSON', LogGroup: log.logGroupName });
  const role = made.node.findChild('Role') as CfnResource;
  // In place of a policy of AWS's that lets it write to every log group of the account.
  role.addPropertyOverride('ManagedPolicyArns', []);
  made.addToRolePolicy({
    Effect: 'Allow',
    Action: ['logs:CreateLogStream', 'logs:PutLogEvents'],
    Resource: log.logGroupArn,
  });
  made.addToRolePolicy({
    Effect: 'Allow',
    Action: ['xray:PutTraceSegments', 'xray:PutTelemetryRecords'],
    Resource: '*',
  });
}
