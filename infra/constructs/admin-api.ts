import { Aws, CfnOutput, RemovalPolicy, Validations } from 'aws-cdk-lib';
import {
  AccessLogFormat,
  AuthorizationType,
  EndpointType,
  AccessLogField as Field,
  LambdaIntegration,
  LogGroupLogDestination,
  MethodLoggingLevel,
  RestApi,
} from 'aws-cdk-lib/aws-apigateway';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import { LogGroup, type RetentionDays } from 'aws-cdk-lib/aws-logs';
import { Construct } from 'constructs';
import { addExecutionLog } from './execution-log.ts';

const stageName = 'admin';

/** The admin API: an address of its own, where every request is signed with the caller's AWS credentials. */
export class AdminApi extends Construct {
  readonly api: RestApi;

  constructor(scope: Construct, id: string, props: { admin: IFunction; retention: RetentionDays }) {
    super(scope, id);
    const accessLog = new LogGroup(this, 'AccessLog', {
      retention: props.retention,
      removalPolicy: RemovalPolicy.RETAIN,
    });
    this.api = new RestApi(this, 'Api', {
      restApiName: 'tenantry-admin',
      endpointTypes: [EndpointType.REGIONAL],
      // One role an account: the endpoint's stack has set it.
      cloudWatchRole: false,
      deployOptions: {
        stageName,
        // What the connection budget counts for the function.
        throttlingRateLimit: 10,
        throttlingBurstLimit: 10,
        tracingEnabled: true,
        metricsEnabled: true,
        loggingLevel: MethodLoggingLevel.ERROR,
        // Would write API keys to the log.
        dataTraceEnabled: false,
        accessLogDestination: new LogGroupLogDestination(accessLog),
        accessLogFormat: AccessLogFormat.custom(
          JSON.stringify({
            requestId: Field.contextRequestId(),
            time: Field.contextRequestTime(),
            caller: Field.contextIdentityUserArn(),
            ip: Field.contextIdentitySourceIp(),
            method: Field.contextHttpMethod(),
            path: Field.contextPath(),
            status: Field.contextStatus(),
            ms: Field.contextResponseLatency(),
          }),
        ),
      },
      defaultMethodOptions: { authorizationType: AuthorizationType.IAM },
    });
    addExecutionLog(this, this.api, stageName, props.retention);
    this.api.node.tryRemoveChild('Endpoint');
    const everything = this.api.root.addResource('{proxy+}');
    const method = everything.addMethod(
      'ANY',
      new LambdaIntegration(props.admin, { allowTestInvoke: false }),
    );
    Validations.of(method).acknowledge({
      id: 'AwsSolutions-COG4',
      reason: 'Operators are AWS principals: IAM decides, and CloudTrail and the access log name them.',
    });
    Validations.of(this.api).acknowledge(
      {
        id: 'AwsSolutions-APIG2',
        reason: 'The admin function checks every request and answers with what is wrong with it.',
      },
      {
        id: 'AwsSolutions-APIG3',
        reason:
          'An unsigned request gets no further than API Gateway; there is no browser and no public caller.',
      },
    );
    new CfnOutput(this, 'Url', {
      description: 'TENANTRY_ADMIN_URL of the tenants command line',
      // Without the slash that CDK ends it with.
      value: `https://${this.api.restApiId}.execute-api.${this.api.env.region}.${Aws.URL_SUFFIX}/${stageName}`,
    }).overrideLogicalId('AdminUrl');
  }
}
