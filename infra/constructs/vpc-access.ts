import { Effect, PolicyStatement, type Role } from 'aws-cdk-lib/aws-iam';

/** What Lambda's guide asks for, so that it can make network interfaces in a VPC in the name of the function's role. */
const actions = [
  'ec2:CreateNetworkInterface',
  'ec2:DescribeNetworkInterfaces',
  'ec2:DescribeSubnets',
  'ec2:DeleteNetworkInterface',
  'ec2:AssignPrivateIpAddresses',
  'ec2:UnassignPrivateIpAddresses',
];

/**
 * Lets Lambda attach a function to a VPC, and its code do nothing with that. Lambda adds the function's ARN to what code calls,
 * and not to what it does itself for the network. That the key is there is enough: the ARN would go in a circle.
 */
export function allowVpc(role: Role): void {
  // EC2 cannot narrow these actions to one function.
  const resources = ['*'];
  role.addToPrincipalPolicy(new PolicyStatement({ actions, resources }));
  role.addToPrincipalPolicy(
    new PolicyStatement({
      effect: Effect.DENY,
      actions,
      resources,
      conditions: {
        Null: { 'lambda:SourceFunctionArn': 'false' },
        // RDS looks at subnets in the name of who makes an instance.
        BoolIfExists: { 'aws:ViaAWSService': 'false' },
      },
    }),
  );
}
