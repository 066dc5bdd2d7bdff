import { existsSync, readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import Table from 'cli-table3';
import { signedHeaders } from '../../functions/lib/aws/signed-request.ts';
import { readVerifySettings } from './settings.ts';
import { verify } from './verify.ts';

/** As `cdk.json` names it. */
const outputsFile = 'cdk-outputs.json';

/** `npm run verify:aws`: asks a deployment what only a deployment can show. Exit code 1 when something does not hold. */
const outputs = existsSync(outputsFile) ? JSON.parse(readFileSync(outputsFile, 'utf8')) : {};
const { url, key, narrowKey, proxy, region } = readVerifySettings(outputs);
const verdicts = await verify({
  url,
  key,
  narrowKey,
  fetch,
  proxyMaximum: proxy === undefined ? undefined : (metric, since) => maximum(proxy, metric, since),
});
const table = new Table({
  head: ['check', 'outcome', 'seen'],
  style: { head: [] },
  wordWrap: true,
  colWidths: [50, 15, 60],
});
for (const { check, outcome, saw } of verdicts)
  table.push([check.name, outcome, outcome === 'does not hold' ? `${saw}\n→ ${check.remedy}` : saw]);
process.exitCode = verdicts.some(({ outcome }) => outcome === 'does not hold') ? 1 : 0;

/** CloudWatch tells a minute once it is over, and some time later. */
async function maximum(proxyName: string, metric: string, since: Date): Promise<number> {
  await setTimeout(180_000);
  const body = new URLSearchParams({
    Action: 'GetMetricStatistics',
    Version: '2010-08-01',
    Namespace: 'AWS/RDS',
    MetricName: metric,
    'Dimensions.member.1.Name': 'ProxyName',
    'Dimensions.member.1.Value': proxyName,
    StartTime: since.toISOString(),
    EndTime: new Date().toISOString(),
    Period: '60',
    'Statistics.member.1': 'Maximum',
  }).toString();
  const domain = region.startsWith('cn-') ? 'amazonaws.com.cn' : 'amazonaws.com';
  const cloudWatch = new URL(`https://monitoring.${region}.${domain}/`);
  const headers = await signedHeaders('POST', cloudWatch, body, { service: 'monitoring', region });
  const answer = await fetch(cloudWatch, {
    method: 'POST',
    headers: { ...headers, 'content-type': 'application/x-www-form-urlencoded' },
    body,
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`CloudWatch answered ${answer.status}: ${text.slice(0, 300)}`);
  const values = Array.from(text.matchAll(/<Maximum>([\d.eE+-]+)<\/Maximum>/g), ([, value]) => Number(value));
  if (values.length === 0)
    throw new Error(`CloudWatch has no figures of ${proxyName} yet: check the name, ask again.`);
  return Math.max(...values);
}
