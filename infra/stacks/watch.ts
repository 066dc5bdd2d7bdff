import { CfnMapping, CfnOutput, Duration, RemovalPolicy, Stack, type StackProps } from 'aws-cdk-lib';
import { Rule, Schedule } from 'aws-cdk-lib/aws-events';
import { LambdaFunction } from 'aws-cdk-lib/aws-events-targets';
import { AnyPrincipal, Effect, PolicyStatement, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Key } from 'aws-cdk-lib/aws-kms';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { EmailSubscription } from 'aws-cdk-lib/aws-sns-subscriptions';
import type { Construct } from 'constructs';
import { alarmsOf } from '../alarms.ts';
import { Alarms, type Watched } from '../constructs/alarms.ts';
import { Dashboard } from '../constructs/dashboard.ts';
import { type FunctionRow, functions } from '../functions.ts';
import type { Settings } from '../settings.ts';
import type { ControlStack } from './control.ts';
import type { DataStack } from './data.ts';
import type { EndpointStack } from './endpoint.ts';

export interface WatchStackProps extends StackProps {
  readonly settings: Settings;
  readonly data: DataStack;
  readonly endpoint: EndpointStack;
  readonly control: ControlStack;
}

/** What runs by the clock, what wakes somebody, and what they look at then. */
export class WatchStack extends Stack {
  constructor(scope: Construct, id: string, props: WatchStackProps) {
    super(scope, id, props);
    const { settings, data, endpoint, control } = props;
    const scheduled: readonly FunctionRow[] = functions;
    for (const { name, scheduleMinutes } of scheduled)
      if (scheduleMinutes !== undefined) this.schedule(name, scheduleMinutes, control.lambdas.get(name)!);

    const watched: Watched = {
      proxyName: data.proxy.dbProxyName,
      cluster: data.cluster.dimension,
      api: { name: endpoint.api.name, stage: endpoint.api.stage.stageName },
      lambdas: new Map([...endpoint.lambdas].map(([name, { lambda }]) => [name, lambda])),
      machines: control.machines,
      firewall: endpoint.firewall.name,
    };
    const topic = this.topic(settings.alarmEmail);
    const alarms = new Alarms(this, 'Alarms', alarmsOf(settings), watched, topic, settings.runbookUrl);
    const mcp = endpoint.lambdas.get('mcp')!;
    new Dashboard(this, 'Dashboard', {
      name: this.stackName,
      watched,
      alarms,
      cluster: { dimension: data.cluster.dimension, maxConnections: settings.cluster.maxConnections },
      mcp: mcp.lambda,
      mcpLog: mcp.logGroup.logGroupName,
    });
    const consoles = new CfnMapping(this, 'Consoles', {
      mapping: {
        aws: { host: 'console.aws.amazon.com' },
        'aws-us-gov': { host: 'console.amazonaws-us-gov.com' },
        'aws-cn': { host: 'console.amazonaws.cn' },
      },
    });
    new CfnOutput(this, 'DashboardUrl', {
      description: 'What an operator opens first',
      value: `https://${this.region}.${consoles.findInMap(this.partition, 'host')}/cloudwatch/home?region=${this.region}#dashboards/dashboard/${this.stackName}`,
    });
  }

  private schedule(name: string, minutes: number, lambda: IFunction): void {
    new Rule(this, `${name}-schedule`, {
      description: `tenantry: ${name}, every ${minutes} min`,
      schedule: Schedule.rate(Duration.minutes(minutes)),
      // A run that was missed is not made up for: the next is a minute away.
      targets: [new LambdaFunction(lambda, { retryAttempts: 0, maxEventAge: Duration.minutes(1) })],
    });
  }

  private topic(email: string | undefined): Topic {
    // Of our own: the key that SNS has for everybody lets no alarm through.
    const masterKey = new Key(this, 'AlarmKey', {
      description: 'tenantry: alarms on their way',
      enableKeyRotation: true,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    masterKey.addToResourcePolicy(
      new PolicyStatement({
        principals: [new ServicePrincipal('cloudwatch.amazonaws.com')],
        actions: ['kms:Decrypt', 'kms:GenerateDataKey*'],
        resources: ['*'],
        conditions: { StringEquals: { 'aws:SourceAccount': this.account } },
      }),
    );
    const topic = new Topic(this, 'AlarmTopic', { displayName: 'Tenantry alarms', masterKey });
    topic.addToResourcePolicy(
      new PolicyStatement({
        principals: [new ServicePrincipal('cloudwatch.amazonaws.com')],
        actions: ['sns:Publish'],
        resources: [topic.topicArn],
        conditions: { StringEquals: { 'aws:SourceAccount': this.account } },
      }),
    );
    topic.addToResourcePolicy(
      new PolicyStatement({
        effect: Effect.DENY,
        principals: [new AnyPrincipal()],
        actions: ['sns:Publish'],
        resources: [topic.topicArn],
        conditions: { Bool: { 'aws:SecureTransport': 'false' } },
      }),
    );
    if (email) topic.addSubscription(new EmailSubscription(email));
    return topic;
  }
}
