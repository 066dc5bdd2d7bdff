import { createHash, createHmac } from 'node:crypto';

/** The headers that sign a request to an IAM-authorised API, or to another service, with the caller's own AWS credentials. */
export async function signedHeaders(
  method: string,
  url: URL,
  body: string,
  to: { readonly service?: string; readonly region?: string } = {},
): Promise<Record<string, string>> {
  // A client of ours knows every place where credentials and region can be.
  const { SFNClient } = await import('@aws-sdk/client-sfn');
  const { config } = new SFNClient({});
  // Whoever calls an address that names its region need have none configured.
  const region = to.region ?? regionOf(url) ?? (await config.region());
  return sign({ method, url, body, ...to, region, credentials: await config.credentials(), now: new Date() });
}

/** Of an address that API Gateway gives. */
export const regionOf = ({ hostname }: URL) => /\.execute-api\.([\w-]+)\.amazonaws\.com/.exec(hostname)?.[1];

export interface ToSign {
  readonly method: string;
  readonly url: URL;
  readonly body: string;
  readonly region: string;
  readonly credentials: { accessKeyId: string; secretAccessKey: string; sessionToken?: string | undefined };
  readonly now: Date;
  /** By default API Gateway's. */
  readonly service?: string;
}

/** AWS Signature Version 4. */
export function sign({
  method,
  url,
  body,
  region,
  credentials,
  now,
  service = 'execute-api',
}: ToSign): Record<string, string> {
  const time = now.toISOString().replace(/[-:]|\.\d+/g, '');
  const scope = `${time.slice(0, 8)}/${region}/${service}/aws4_request`;
  const headers: Record<string, string> = { host: url.host, 'x-amz-date': time };
  if (credentials.sessionToken) headers['x-amz-security-token'] = credentials.sessionToken;
  const names = Object.keys(headers).sort();
  const query = [...url.searchParams].map(([name, value]) => `${encode(name)}=${encode(value)}`).sort();
  const canonical = [
    method,
    // Each part is encoded once more than it is sent, except in S3.
    url.pathname.split('/').map(encode).join('/'),
    query.join('&'),
    ...names.map((name) => `${name}:${headers[name]}`),
    '',
    names.join(';'),
    sha256(body),
  ].join('\n');
  const text = ['AWS4-HMAC-SHA256', time, scope, sha256(canonical)].join('\n');
  const key = [...scope.split('/')].reduce<string | Buffer>(
    (secret, part) => createHmac('sha256', secret).update(part).digest(),
    `AWS4${credentials.secretAccessKey}`,
  );
  const signature = createHmac('sha256', key).update(text).digest('hex');
  const { host: _, ...sent } = headers;
  return {
    ...sent,
    authorization: `AWS4-HMAC-SHA256 Credential=${credentials.accessKeyId}/${scope}, SignedHeaders=${names.join(';')}, Signature=${signature}`,
  };
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

const encode = (text: string) =>
  encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
