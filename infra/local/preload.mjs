// Loaded before anything else, in plain JavaScript: an older Node can't even read the TypeScript files.
import module from 'node:module';
import { fileURLToPath } from 'node:url';

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 18)) {
  console.error(
    `Tenantry needs Node 22.18 or newer; this is ${process.versions.node}.\n` +
      'On Linux `npm ci` brings the right one along, unless it was told to leave out optional dependencies.\n' +
      'Elsewhere install Node 24 (https://nodejs.org) and try again.',
  );
  process.exit(1);
}

// A third of the time to load everything is compiling it. Inside the project, where nobody else can plant code.
module.enableCompileCache(fileURLToPath(new URL('../../node_modules/.cache/tenantry', import.meta.url)));
