import { RemovalPolicy } from 'aws-cdk-lib';
import type { RestApi } from 'aws-cdk-lib/aws-apigateway';
import { LogGroup, type RetentionDays } from 'aws-cdk-lib/aws-logs';
import type { Construct } from 'constructs';

/**
 * What API Gateway itself says of failures goes to a group of this name and of no other. Where it is not there API Gateway makes
 * it, under no key of ours and to be kept for ever: so it is made before the stage is.
 */
export function addExecutionLog(
  scope: Construct,
  api: RestApi,
  // As text: the stage's own would wait for the stage.
  stageName: string,
  retention: RetentionDays,
): void {
  const log = new LogGroup(scope, 'ExecutionLog', {
    logGroupName: `API-Gateway-Execution-Logs_${api.restApiId}/${stageName}`,
    retention,
    removalPolicy: RemovalPolicy.RETAIN,
  });
  api.deploymentStage.node.addDependency(log);
}
