import { renameSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';

/** The standard `mcpServers` form that agents read. */
export const mcpServers = (publicUrl: string, tokens: ReadonlyMap<string, string>) => ({
  mcpServers: Object.fromEntries(
    [...tokens].map(([slug, token]) => [
      slug,
      { type: 'http', url: publicUrl, headers: { Authorization: `Bearer ${token}` } },
    ]),
  ),
});

/** @returns the file's path; only its owner may read it, because a key is its tenant */
export function writeAgentFile(
  folder: string,
  publicUrl: string,
  tokens: ReadonlyMap<string, string>,
): string {
  const file = join(folder, 'mcp.json');
  const text = `${JSON.stringify(mcpServers(publicUrl, tokens), undefined, 2)}\n`;
  writeFileSync(`${file}.new`, text, { mode: 0o600 });
  renameSync(`${file}.new`, file);
  return file;
}

/** What a newcomer pastes. */
export function welcome(publicUrl: string, file: string, tokens: ReadonlyMap<string, string>): string {
  const shown = fromHere(file);
  const [first] = tokens;
  const serves = `\nTenantry serves MCP at ${publicUrl}\n`;
  if (first === undefined)
    return `${serves}\n  No demo tenant is left: npm run tenants -- create <slug> --tier starter\n`;
  const [slug, token] = first;
  return `${serves}
  One entry per demo tenant (${[...tokens.keys()].join(', ')}), each with its API key, is in ${shown}:

    claude --mcp-config ${shown}
    npx @modelcontextprotocol/inspector --config ${shown} --server ${slug}

  Or paste into an agent:

    claude mcp add --transport http ${slug} ${publicUrl} --header "Authorization: Bearer ${token}"

  Given the address alone, an agent that can log in opens a page on which you choose the tenant.

What tools log, and how one failed, is in ${fromHere(join(dirname(file), 'logs/mcp.log'))}.
Edited tools are picked up; Ctrl-C stops; \`npm start -- --fresh\` starts over.`;
}

function fromHere(file: string): string {
  const path = relative(process.cwd(), file);
  return path.startsWith('..') ? file : path;
}
