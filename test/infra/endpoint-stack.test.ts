import { Match, type Template } from 'aws-cdk-lib/assertions';
import { beforeAll, describe, expect, it } from 'vitest';
import { protectedResourceMetadata, routes } from '../../infra/endpoint.ts';
import { functionNamed, functions } from '../../infra/functions.ts';
import { type Synthesized, synthesize } from './synthesize.ts';

const publicUrl = 'https://mcp.example.com/mcp';
const domain = {
  name: 'mcp.example.com',
  certificateArn: 'arn:aws:acm:eu-west-1:111122223333:certificate/abc',
};

const dataPlane = functions.filter(({ plane }) => plane === 'data');

let built: Synthesized;
let template: Template;
beforeAll(() => {
  built = synthesize({ domain });
  template = built.template;
});

interface Resource {
  Type: string;
  // biome-ignore lint/suspicious/noExplicitAny: a template's properties are whatever their type has
  Properties: any;
}
const resources = (type: string): [string, Resource][] =>
  Object.entries(template.findResources(type)) as never;
const only = (type: string, id: RegExp) => resources(type).find(([name]) => id.test(name))![1].Properties;

/** Every Allow statement with the function it belongs to. */
function allowed(role: RegExp): { Action: string[]; Resource: string[] }[] {
  return resources('AWS::IAM::Policy')
    .filter(([name]) => role.test(name))
    .flatMap(([, { Properties }]) => Properties.PolicyDocument.Statement)
    .filter(({ Effect }) => Effect === 'Allow')
    .map(({ Action, Resource }) => ({ Action: [Action].flat(), Resource: [Resource].flat().map(text) }));
}

/** `Fn::Join` and `Ref` as one readable text. */
function text(value: unknown): string {
  if (typeof value === 'string') return value;
  const node = value as { Ref?: string; 'Fn::Join'?: [string, unknown[]]; 'Fn::GetAtt'?: string[] };
  if (node['Fn::Join']) return node['Fn::Join'][1].map(text).join('');
  return `<${node.Ref ?? node['Fn::GetAtt']?.join('.')}>`;
}

describe('every function', () => {
  it('is one row of the manifest', () => {
    expect(resources('AWS::Lambda::Function')).toHaveLength(dataPlane.length);
  });

  it('has the house’s defaults', () => {
    template.allResourcesProperties('AWS::Lambda::Function', {
      Runtime: 'nodejs24.x',
      Architectures: ['arm64'],
      Handler: 'handler.handler',
      TracingConfig: { Mode: 'Active' },
      LoggingConfig: { LogFormat: 'JSON', LogGroup: Match.anyValue() },
    });
  });

  it.each(dataPlane)('$name has the limits of its row', ({ name, timeoutSeconds, memoryMb, inVpc }) => {
    const lambda = only('AWS::Lambda::Function', new RegExp(`^${name}Function`, 'i'));
    expect(lambda).toMatchObject({ Timeout: timeoutSeconds, MemorySize: memoryMb });
    expect('VpcConfig' in lambda).toBe(inVpc);
  });

  it('writes to a log that is kept for the time the settings say', () => {
    template.allResourcesProperties('AWS::Logs::LogGroup', { RetentionInDays: 30 });
    expect(resources('AWS::Logs::LogGroup')).toHaveLength(dataPlane.length + 1);
  });
});

describe('rights', () => {
  it('name their resources; only X-Ray has none to name', () => {
    const wide = allowed(/./).filter(({ Resource }) => Resource.includes('*'));
    expect(new Set(wide.flatMap(({ Action }) => Action))).toEqual(
      new Set(['xray:PutTelemetryRecords', 'xray:PutTraceSegments']),
    );
    expect(
      allowed(/./)
        .flatMap(({ Action }) => Action)
        .filter((action) => action.includes('*')),
    ).toEqual([]);
  });

  it('let the MCP function read tenants’ secrets and the context key, and log in as the data plane: nothing else', () => {
    const data = allowed(/^Mcp/)
      .filter(({ Action }) => !/^(logs|xray):/.test(Action[0]!))
      .map(({ Action, Resource }) => [
        Action,
        Resource.map((arn) => arn.replace(/^.*<AWS::AccountId>:/, '')).sort(),
      ]);
    expect(data).toEqual([
      [['secretsmanager:GetSecretValue'], ['secret:mcp-tenant-db/*', 'secret:tenancy/context-key-??????']],
      [
        ['rds-db:connect'],
        ['t_*', 'tenancy_app', 'tenancy_catalog_reader'].map(
          (login) => `dbuser:prx-0123456789abcdef0/${login}`,
        ),
      ],
    ]);
  });

  it('let whoever answers GET /health log in as the catalog’s reader: nothing else', () => {
    const rights = allowed(/^Health/)
      .filter(({ Action }) => !/^(logs|xray):/.test(Action[0]!))
      .map(({ Action, Resource }) => [
        Action,
        Resource.map((arn) => arn.replace(/^.*<AWS::AccountId>:/, '')),
      ]);
    expect(rights).toEqual([[['rds-db:connect'], ['dbuser:prx-0123456789abcdef0/tenancy_catalog_reader']]]);
  });

  it('let the authorizer do nothing but log and trace', () => {
    const services = allowed(/^Authorizer/).flatMap(({ Action }) =>
      Action.map((action) => action.split(':')[0]),
    );
    expect(new Set(services)).toEqual(new Set(['logs', 'xray']));
  });
});

describe('the API', () => {
  it('is regional, and has no second address beside its domain', () => {
    template.hasResourceProperties('AWS::ApiGateway::RestApi', {
      EndpointConfiguration: { Types: ['REGIONAL'] },
      DisableExecuteApiEndpoint: true,
    });
    template.hasResourceProperties('AWS::ApiGateway::BasePathMapping', { BasePath: Match.absent() });
  });

  it('has exactly the routes of the endpoint, with the authorizer where they say so', () => {
    const path = (id: string): string => {
      const parent = only('AWS::ApiGateway::Resource', new RegExp(`^${id}$`));
      const above = parent.ParentId.Ref ? path(parent.ParentId.Ref) : '';
      return `${above}/${parent.PathPart}`;
    };
    const methods = resources('AWS::ApiGateway::Method').map(([, { Properties }]) => ({
      method: Properties.HttpMethod,
      path: path(Properties.ResourceId.Ref),
      authorized: Properties.AuthorizationType === 'CUSTOM' && Properties.AuthorizerId !== undefined,
    }));
    const expected = routes.map(({ method, path, authorized }) => ({ method, path, authorized }));
    expect(new Set(methods)).toEqual(new Set(expected));
    expect(methods).toHaveLength(expected.length);
  });

  it('asks the authorizer every time', () => {
    template.hasResourceProperties('AWS::ApiGateway::Authorizer', {
      Type: 'REQUEST',
      AuthorizerResultTtlInSeconds: 0,
      IdentitySource: 'method.request.header.Authorization',
    });
  });

  it('streams the MCP function’s answers, as long as the function may run', () => {
    template.hasResourceProperties('AWS::ApiGateway::Method', {
      HttpMethod: 'POST',
      Integration: {
        ResponseTransferMode: 'STREAM',
        TimeoutInMillis: functionNamed('mcp').timeoutSeconds * 1000,
        Uri: Match.objectLike({
          'Fn::Join': ['', Match.arrayWith([Match.stringLikeRegexp('response-streaming-invocations$')])],
        }),
      },
    });
  });

  it('answers the metadata itself', () => {
    const facts = {
      publicUrl,
      issuers: ['https://login.example.com/'],
      scopes: ['things:read', 'things:write'],
    };
    template.hasResourceProperties('AWS::ApiGateway::Method', {
      HttpMethod: 'GET',
      Integration: {
        Type: 'MOCK',
        IntegrationResponses: [
          { ResponseTemplates: { 'application/json': JSON.stringify(protectedResourceMetadata(facts)) } },
        ],
      },
    });
  });

  it('tells a client without a token where to log in, and one without a scope what to ask for', () => {
    template.hasResourceProperties('AWS::ApiGateway::GatewayResponse', {
      ResponseType: 'UNAUTHORIZED',
      StatusCode: '401',
      ResponseParameters: {
        'gatewayresponse.header.WWW-Authenticate':
          '\'Bearer scope="things:read things:write", resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"\'',
      },
    });
    template.hasResourceProperties('AWS::ApiGateway::GatewayResponse', {
      ResponseType: 'ACCESS_DENIED',
      StatusCode: '403',
      ResponseParameters: { 'gatewayresponse.header.WWW-Authenticate': 'context.authorizer.challenge' },
    });
  });

  it('logs no header, no query and no body', () => {
    const stage = only('AWS::ApiGateway::Stage', /./);
    expect(stage.AccessLogSetting.Format).not.toMatch(/header|querystring|body|override/i);
    expect(stage.MethodSettings).toEqual([expect.objectContaining({ DataTraceEnabled: false })]);
  });
});

it('gives each function the settings that it reads', () => {
  const environment = (id: RegExp) => only('AWS::Lambda::Function', id).Environment.Variables;
  expect(environment(/^Mcp/)).toMatchObject({
    PUBLIC_URL: publicUrl,
    CREDENTIALS: 'iam',
    DATABASE_TLS: 'verify',
  });
  expect(JSON.parse(environment(/^Authorizer/).TOOL_SCOPES)).toEqual({
    look: ['things:read'],
    change: ['things:read', 'things:write'],
  });
  expect(JSON.parse(environment(/^Authorizer/).ISSUERS)).toEqual([
    {
      audience: publicUrl,
      issuer: 'https://login.example.com/',
      jwksUri: 'https://login.example.com/.well-known/jwks.json',
    },
  ]);
});

it('says what agents are given and where the name must point', () => {
  const outputs = Object.values(template.findOutputs('*')) as { Value: unknown }[];
  expect(outputs.map(({ Value }) => Value)).toEqual([
    { 'Fn::GetAtt': [expect.stringMatching(/Domain/), 'RegionalDomainName'] },
    publicUrl,
  ]);
});

it('stands below API Gateway’s stage when it has no domain', () => {
  const { template: bare } = synthesize();
  bare.resourceCountIs('AWS::ApiGateway::DomainName', 0);
  bare.hasResourceProperties('AWS::ApiGateway::GatewayResponse', {
    ResponseType: 'UNAUTHORIZED',
    ResponseParameters: {
      'gatewayresponse.header.WWW-Authenticate': Match.objectLike({
        'Fn::Join': [
          '',
          Match.arrayWith([Match.stringLikeRegexp('^/live/.well-known/oauth-protected-resource/mcp')]),
        ],
      }),
    },
  });
});
