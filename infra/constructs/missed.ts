import { Duration, Validations } from 'aws-cdk-lib';
import type { Function as LambdaFunction } from 'aws-cdk-lib/aws-lambda';
import { SqsDestination } from 'aws-cdk-lib/aws-lambda-destinations';
import { Queue, QueueEncryption } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';

/** Keeps for two weeks what a function was called for and failed at, with the reason. Nobody tries again: the next run is a minute away. */
export function keepMissed(scope: Construct, lambda: LambdaFunction): Queue {
  const queue = new Queue(scope, `${lambda.node.scope!.node.id}-missed`, {
    encryption: QueueEncryption.SQS_MANAGED,
    enforceSSL: true,
    retentionPeriod: Duration.days(14),
  });
  Validations.of(queue).acknowledge({
    id: 'AwsSolutions-SQS3',
    reason: 'It is where others’ failures go: nothing reads it but a person.',
  });
  lambda.configureAsyncInvoke({
    onFailure: new SqsDestination(queue),
    retryAttempts: 0,
    maxEventAge: Duration.minutes(1),
  });
  return queue;
}
