import { Aws, CfnOutput, Duration, RemovalPolicy, Stack, Validations } from 'aws-cdk-lib';
import {
  AccessLogFormat,
  DomainName,
  EndpointType,
  AccessLogField as Field,
  type IAuthorizer,
  IdentitySource,
  LambdaIntegration,
  LogGroupLogDestination,
  MethodLoggingLevel,
  MockIntegration,
  PassthroughBehavior,
  RequestAuthorizer,
  ResponseTransferMode,
  ResponseType,
  RestApi,
  SecurityPolicy,
  type Stage,
} from 'aws-cdk-lib/aws-apigateway';
import { Certificate } from 'aws-cdk-lib/aws-certificatemanager';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import { LogGroup } from 'aws-cdk-lib/aws-logs';
import { Construct } from 'constructs';
import { sendableHeaders } from '../../functions/lib/mcp/cross-origin.ts';
import {
  type EndpointFacts,
  gatewayResponses,
  metadataHeaders,
  preflightMaxAgeSeconds,
  preflightPath,
  protectedResourceMetadata,
  type Route,
  routes,
} from '../endpoint.ts';
import { type FunctionName, functionNamed } from '../functions.ts';
import type { Settings } from '../settings.ts';
import { addExecutionLog } from './execution-log.ts';

const stageName = 'live';

/**
 * The public REST API. REST and regional, because only there are all of these together: streamed answers, gateway
 * responses with a header of ours, answers without a function (MOCK), a web application firewall and usage plans.
 */
export class McpApi extends Construct {
  /** The resource identifier: what clients are given, and the audience of every token. */
  readonly publicUrl: string;
  readonly stage: Stage;
  /** The dimension of its metrics. */
  readonly name = 'tenantry';
  private readonly api: RestApi;

  constructor(scope: Construct, id: string, settings: Settings) {
    super(scope, id);
    const accessLog = new LogGroup(this, 'AccessLog', {
      retention: settings.logRetentionDays,
      removalPolicy: RemovalPolicy.RETAIN,
    });
    this.api = new RestApi(this, 'Api', {
      restApiName: this.name,
      endpointTypes: [EndpointType.REGIONAL],
      // With a name of its own the endpoint has one address only: the firewall and the audience know that one.
      disableExecuteApiEndpoint: settings.domain !== undefined,
      cloudWatchRole: true,
      deployOptions: {
        stageName,
        throttlingRateLimit: 500,
        throttlingBurstLimit: 1_000,
        tracingEnabled: true,
        metricsEnabled: true,
        loggingLevel: MethodLoggingLevel.ERROR,
        // Would write tokens, arguments and results to the log.
        dataTraceEnabled: false,
        accessLogDestination: new LogGroupLogDestination(accessLog),
        accessLogFormat: accessLogFormat(),
        // Asked by everybody: a flood of questions takes nothing from the data path.
        methodOptions: {
          '/health/GET': {
            throttlingRateLimit: 10,
            throttlingBurstLimit: 20,
            loggingLevel: MethodLoggingLevel.ERROR,
            metricsEnabled: true,
            dataTraceEnabled: false,
          },
        },
      },
    });
    // Also with a domain: setting one later takes it from the stacks that import it, and these are deployed after this one.
    Stack.of(this).exportValue(this.api.restApiId);
    this.stage = this.api.deploymentStage;
    addExecutionLog(this, this.api, stageName, settings.logRetentionDays);
    // CDK's own output names an address without /mcp, and one that is closed when there is a domain.
    this.api.node.tryRemoveChild('Endpoint');
    if (settings.domain) this.nameAt(settings.domain);
    const origin = settings.domain
      ? `https://${settings.domain.name}`
      : `https://${this.api.restApiId}.execute-api.${Aws.REGION}.${Aws.URL_SUFFIX}/${stageName}`;
    this.publicUrl = `${origin}/mcp`;
    new CfnOutput(this, 'Url', {
      description: 'What agents are given',
      value: this.publicUrl,
    }).overrideLogicalId('EndpointUrl');
    Validations.of(this.api).acknowledge(
      {
        id: 'AwsSolutions-APIG2',
        reason:
          'The MCP function checks every body (size, depth, JSON-RPC, schema) and answers in the protocol.',
      },
      {
        id: 'AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs]',
        reason:
          "API Gateway's own role for its logs, one per account; AWS offers it only as this managed policy.",
      },
    );
  }

  /** Adds every route and answer of `infra/endpoint.ts`. */
  serve(lambda: (name: FunctionName) => IFunction, facts: EndpointFacts): void {
    const authorizer = new RequestAuthorizer(this, 'Authorizer', {
      handler: lambda('authorizer'),
      identitySources: [IdentitySource.header('Authorization')],
      // A cached answer would outlive a token, and would not know which tool the next call names.
      resultsCacheTtl: Duration.seconds(0),
    });
    const metadata = metadataIntegration(facts);
    for (const route of routes as readonly Route[]) {
      if (route.target === 'metadata') this.publish(route, metadata);
      else if (route.authorized) this.protect(route, lambda(route.target), authorizer);
      else this.open(route, lambda(route.target));
    }
    if (facts.allowedOrigins.length > 0) this.answerPreflight(facts.allowedOrigins);
    for (const [type, response] of Object.entries(gatewayResponses(facts))) {
      this.api.addGatewayResponse(type, {
        type: ResponseType.of(type),
        ...(response.status !== undefined && { statusCode: String(response.status) }),
        responseHeaders: response.headers,
        templates: { 'application/json': response.body },
      });
    }
  }

  private protect(route: Route, handler: IFunction, authorizer: IAuthorizer): void {
    const { streaming, timeoutSeconds } = functionNamed(route.target as FunctionName);
    const integration = new LambdaIntegration(handler, {
      responseTransferMode: streaming ? ResponseTransferMode.STREAM : ResponseTransferMode.BUFFERED,
      timeout: Duration.seconds(timeoutSeconds),
      allowTestInvoke: false,
    });
    const method = this.resource(route).addMethod(route.method, integration, { authorizer });
    Validations.of(method).acknowledge({
      id: 'AwsSolutions-COG4',
      reason:
        'The authorizer accepts any OIDC issuer and the product’s own keys; Cognito is one such issuer.',
    });
  }

  /** Answered by a function, to everybody. */
  private open(route: Route, handler: IFunction): void {
    const integration = new LambdaIntegration(handler, { allowTestInvoke: false });
    const method = this.resource(route).addMethod(route.method, integration);
    const reason = 'One word about the state of the whole: whoever watches the endpoint has no token.';
    Validations.of(method).acknowledge(
      { id: 'AwsSolutions-APIG4', reason },
      { id: 'AwsSolutions-COG4', reason },
    );
  }

  private publish(route: Route, integration: MockIntegration): void {
    const responseParameters = Object.keys(metadataHeaders).map((name) => [
      `method.response.header.${name}`,
      true,
    ]);
    const method = this.resource(route).addMethod(route.method, integration, {
      methodResponses: [{ statusCode: '200', responseParameters: Object.fromEntries(responseParameters) }],
    });
    const reason = 'RFC 9728 metadata is public: a client reads it to find out where to log in.';
    Validations.of(method).acknowledge(
      { id: 'AwsSolutions-APIG4', reason },
      { id: 'AwsSolutions-COG4', reason },
    );
  }

  /** Without a function and before any token: a browser asks whether its page may send one. */
  private answerPreflight(allowedOrigins: readonly string[]): void {
    const method = this.api.root.resourceForPath(preflightPath).addCorsPreflight({
      allowOrigins: [...allowedOrigins],
      allowMethods: (routes as readonly Route[])
        .filter(({ path }) => path === preflightPath)
        .map(({ method }) => method),
      allowHeaders: [...sendableHeaders],
      maxAge: Duration.seconds(preflightMaxAgeSeconds),
    });
    const reason = 'A browser asks without a token, and is told which origins may send one.';
    Validations.of(method).acknowledge(
      { id: 'AwsSolutions-APIG4', reason },
      { id: 'AwsSolutions-COG4', reason },
    );
  }

  private resource(route: Route) {
    return this.api.root.resourceForPath(route.path);
  }

  private nameAt(domain: NonNullable<Settings['domain']>): void {
    const name = new DomainName(this, 'Domain', {
      domainName: domain.name,
      certificate: Certificate.fromCertificateArn(this, 'Certificate', domain.certificateArn),
      endpointType: EndpointType.REGIONAL,
      securityPolicy: SecurityPolicy.TLS_1_2,
    });
    // At the root, so that /.well-known is where RFC 9728 looks for it.
    name.addBasePathMapping(this.api);
    const value = name.domainNameAliasDomainName;
    new CfnOutput(this, 'DomainTarget', { description: `DNS: where ${domain.name} must point`, value });
  }
}

function metadataIntegration(facts: EndpointFacts): MockIntegration {
  const headers = Object.entries(metadataHeaders).map(([name, value]) => [
    `method.response.header.${name}`,
    `'${value}'`,
  ]);
  return new MockIntegration({
    passthroughBehavior: PassthroughBehavior.NEVER,
    requestTemplates: { 'application/json': '{"statusCode": 200}' },
    integrationResponses: [
      {
        statusCode: '200',
        responseParameters: Object.fromEntries(headers),
        responseTemplates: { 'application/json': JSON.stringify(protectedResourceMetadata(facts)) },
      },
    ],
  });
}

/** Who called what and what became of it; no header and no query string, where tokens would be. */
function accessLogFormat(): AccessLogFormat {
  return AccessLogFormat.custom(
    JSON.stringify({
      requestId: Field.contextRequestId(),
      time: Field.contextRequestTime(),
      ip: Field.contextIdentitySourceIp(),
      method: Field.contextHttpMethod(),
      path: Field.contextResourcePath(),
      status: Field.contextStatus(),
      refusal: Field.contextErrorResponseType(),
      tenant: Field.contextAuthorizer('tenant'),
      principal: Field.contextAuthorizer('principal'),
      ms: Field.contextResponseLatency(),
      bytes: Field.contextResponseLength(),
    }),
  );
}
