/** A login's IAM token for RDS or RDS Proxy: good for 15 minutes, checked only when a connection is made. */
export async function iamToken(to: {
  host: string;
  port: number;
  login: string;
  region: string;
}): Promise<string> {
  const { Signer } = await import('@aws-sdk/rds-signer');
  return new Signer({
    hostname: to.host,
    port: to.port,
    username: to.login,
    region: to.region,
  }).getAuthToken();
}
