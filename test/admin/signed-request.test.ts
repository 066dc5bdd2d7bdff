import { expect, it, vi } from 'vitest';
import { sign, signedHeaders } from '../../functions/lib/aws/signed-request.ts';

// `get-vanilla` of AWS's published test suite for Signature Version 4.
it('signs as AWS does', () => {
  const headers = sign({
    method: 'GET',
    url: new URL('https://example.amazonaws.com/'),
    body: '',
    region: 'us-east-1',
    service: 'service',
    credentials: {
      accessKeyId: 'AKIDEXAMPLE',
      secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY',
    },
    now: new Date('2015-08-30T12:36:00Z'),
  });
  expect(headers).toEqual({
    'x-amz-date': '20150830T123600Z',
    authorization:
      'AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31',
  });
});

it('needs no configured region for an address that names its own', async () => {
  vi.stubEnv('AWS_REGION', undefined);
  vi.stubEnv('AWS_DEFAULT_REGION', undefined);
  vi.stubEnv('AWS_CONFIG_FILE', '/nowhere');
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'AKIDEXAMPLE');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'secret');
  vi.stubEnv('AWS_SESSION_TOKEN', undefined);
  const url = new URL('https://abc.execute-api.eu-west-1.amazonaws.com/admin/tenants');
  const { authorization } = await signedHeaders('GET', url, '');
  expect(authorization).toContain('/eu-west-1/execute-api/aws4_request');
  vi.unstubAllEnvs();
});
