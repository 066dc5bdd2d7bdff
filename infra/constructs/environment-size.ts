import type { Stack } from 'aws-cdk-lib';

/** Lambda's bound for all variables of a function together. */
const maxBytes = 4_096;
/** What CloudFormation fills in: ARNs, hosts and ids are not longer. */
const filledInBytes = 100;
/** Two keys while one replaces the other. */
const keySetBytes = 600;

/** @throws Error with the sum, where a deployment would fail half way */
export function checkEnvironmentSize(
  stack: Stack,
  name: string,
  variables: Readonly<Record<string, string>>,
): void {
  const sizes = Object.entries(variables).map(([variable, value]) => {
    const size = variable === 'API_KEY_JWKS' ? keySetBytes : bytesOf(stack.resolve(value));
    return [variable, variable.length + size] as const;
  });
  const sum = sizes.reduce((total, [, size]) => total + size, 0);
  if (sum <= maxBytes) return;
  const lines = sizes
    .sort(([, a], [, b]) => b - a)
    .map(([variable, size]) => `${String(size).padStart(8)}  ${variable}`);
  throw new Error(
    `The environment of ${name} does not fit: Lambda takes ${maxBytes} bytes.\n${lines.join('\n')}\n${String(sum).padStart(8)}  together\nGive tools and scopes shorter names, let more tools ask for the same scopes, or configure fewer issuers.`,
  );
}

/** Of a value as its stack has it: text, or text and references joined. */
function bytesOf(value: unknown): number {
  if (typeof value === 'string') return Buffer.byteLength(value);
  const join = (value as { 'Fn::Join'?: [string, unknown[]] })['Fn::Join'];
  return join ? join[1].reduce((sum: number, part) => sum + bytesOf(part), 0) : filledInBytes;
}
