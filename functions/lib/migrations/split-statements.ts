/**
 * One token of SQL that may hold a semicolon without ending the statement: quoted text, identifiers, dollar quotes and
 * comments (nested ones are found by the loop below).
 */
const token =
  /'(?:[^']|'')*'|[eE]'(?:[^'\\]|\\.|'')*'|"(?:[^"]|"")*"|(\$[A-Za-z_\d]*\$)[\s\S]*?\1|--[^\n]*|\/\*|;/g;

/** The statements of a script, without comments, trimmed. Only good enough to look at how each begins: never executed. */
export function splitStatements(sql: string): string[] {
  const statements: string[] = [];
  let current = '';
  let from = 0;
  token.lastIndex = 0;
  for (let match = token.exec(sql); match !== null; match = token.exec(sql)) {
    const [text] = match;
    current += sql.slice(from, match.index);
    if (text === '/*') token.lastIndex = endOfComment(sql, match.index);
    else if (text === ';') {
      statements.push(current);
      current = '';
    } else if (!text.startsWith('--')) current += text;
    from = token.lastIndex;
  }
  statements.push(current + sql.slice(from));
  return statements.map((statement) => statement.trim()).filter((statement) => statement !== '');
}

function endOfComment(sql: string, start: number): number {
  const border = /\/\*|\*\//g;
  border.lastIndex = start;
  let depth = 0;
  for (let match = border.exec(sql); match !== null; match = border.exec(sql)) {
    depth += match[0] === '/*' ? 1 : -1;
    if (depth === 0) return border.lastIndex;
  }
  return sql.length;
}
