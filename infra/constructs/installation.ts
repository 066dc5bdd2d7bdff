import {
  CrossStackReferences,
  CustomResource,
  Duration,
  ReferenceStrength,
  RemovalPolicy,
  Stack,
  Validations,
} from 'aws-cdk-lib';
import { PolicyStatement, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Architecture, CfnFunction, type IFunction, Runtime } from 'aws-cdk-lib/aws-lambda';
import { LogGroup, type RetentionDays } from 'aws-cdk-lib/aws-logs';
import { Provider } from 'aws-cdk-lib/custom-resources';
import { Construct } from 'constructs';
import { nagName } from './grant.ts';

export interface InstallationProps {
  readonly install: IFunction;
  readonly retention: RetentionDays;
  /** Runs again when one of these changes. */
  readonly versions: Readonly<Record<string, string>>;
}

/**
 * Runs the function `install` within the deployment, whenever one of its versions has changed. Whoever
 * takes a value from here waits for it: a deployment whose installation fails is rolled back before new code serves.
 */
export class Installation extends Construct {
  /** Public keys of the product's own API keys, as JSON. */
  readonly apiKeyJwks: string;
  readonly resource: CustomResource;

  constructor(scope: Construct, id: string, props: InstallationProps) {
    super(scope, id);
    const logGroup = new LogGroup(this, 'Log', {
      retention: props.retention,
      removalPolicy: RemovalPolicy.RETAIN,
    });
    // CDK's own function between CloudFormation and ours: outside the VPC, since it answers to an address of S3.
    const role = new Role(this, 'Role', { assumedBy: new ServicePrincipal('lambda.amazonaws.com') });
    logGroup.grantWrite(role);
    const provider = new Provider(this, 'Provider', {
      onEventHandler: props.install,
      frameworkOnEventRole: role,
      logGroup,
    });
    this.resource = new CustomResource(this, 'Run', {
      serviceToken: provider.serviceToken,
      resourceType: 'Custom::TenantryInstallation',
      serviceTimeout: Duration.minutes(20),
      properties: { ...props.versions },
    });
    // Another pair changes it, and CloudFormation changes no export that is in use.
    CrossStackReferences.of(this.resource).produce(ReferenceStrength.WEAK);
    this.apiKeyJwks = this.resource.getAttString('ApiKeyJwks');
    // The house's defaults, where the library's construct has no setting for them.
    for (const child of provider.node.findAll())
      if (child instanceof CfnFunction) {
        child.runtime = Runtime.NODEJS_24_X.name;
        child.architectures = [Architecture.ARM_64.name];
        child.tracingConfig = { mode: 'Active' };
      }
    role.addToPrincipalPolicy(
      new PolicyStatement({
        actions: ['xray:PutTraceSegments', 'xray:PutTelemetryRecords'],
        resources: ['*'],
      }),
    );
    Validations.of(role).acknowledge(
      {
        id: 'AwsSolutions-IAM5[Resource::*]',
        reason: 'X-Ray has no resources to name: xray:PutTraceSegments and xray:PutTelemetryRecords only.',
      },
      {
        id: `AwsSolutions-IAM5[Resource::${nagName(props.install.functionArn, Stack.of(this))}:*]`,
        reason: 'The versions of one function, which the library asks for beside the function itself.',
      },
    );
  }
}
