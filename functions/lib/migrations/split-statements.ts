/**
 * One token of SQL that may hold a semicolon without ending the statement: quoted text, identifiers, dollar quotes and
 * comments (nested ones are found by the loop below). What begins like one and does not end is a token too.
 */
const token =
  /[eE]'(?:[^'\\]|\\.|'')*('|$)|'(?:[^']|'')*('|$)|"(?:[^"]|"")*("|$)|(\$(?:[A-Za-z_][A-Za-z_\d]*)?\$)(?:[\s\S]*?\4|[\s\S]*$)|--[^\n]*|\/\*|;/g;

export interface SplitScript {
  /** Without comments, trimmed. Only good enough to look at how each begins: never executed. */
  readonly statements: readonly string[];
  /** Where each stands in the text: from the end of the one before it to behind its semicolon. */
  readonly places: readonly { readonly from: number; readonly to: number }[];
  /** No quote or comment is left open at the end. */
  readonly isComplete: boolean;
}

export function splitStatements(sql: string): SplitScript {
  const statements: string[] = [];
  const places: { from: number; to: number }[] = [];
  const add = (to: number) => {
    const begun = places.at(-1)?.to ?? 0;
    if (current.trim() === '') return;
    statements.push(current.trim());
    places.push({ from: begun, to });
  };
  let isComplete = true;
  let current = '';
  /** The same without what is quoted. */
  let bare = '';
  let from = 0;
  token.lastIndex = 0;
  for (let match = token.exec(sql); match !== null; match = token.exec(sql)) {
    const [text, inEscapes, inText, inIdentifier, dollars] = match;
    const closing = inEscapes ?? inText ?? inIdentifier;
    current += sql.slice(from, match.index);
    bare += sql.slice(from, match.index);
    if (text === '/*') {
      const end = endOfComment(sql, match.index);
      isComplete &&= end !== undefined;
      token.lastIndex = end ?? sql.length;
    } else if (text === ';' && !isInBody(bare)) {
      add(token.lastIndex);
      current = '';
      bare = '';
    } else if (!text.startsWith('--')) {
      current += text;
      isComplete &&=
        dollars === undefined ? closing !== '' : text.length >= 2 * dollars.length && text.endsWith(dollars);
    }
    from = token.lastIndex;
  }
  current += sql.slice(from);
  add(sql.length);
  return { statements, places, isComplete };
}

/** Within `begin atomic … end`, the SQL-standard body of a function; a `case` has an end of its own. */
function isInBody(bare: string): boolean {
  if (!/\bbegin\s+atomic\b/i.test(bare)) return false;
  const opened = bare.match(/\b(begin\s+atomic|case)\b/gi)!.length;
  return opened > (bare.match(/\bend\b/gi)?.length ?? 0);
}

function endOfComment(sql: string, start: number): number | undefined {
  const border = /\/\*|\*\//g;
  border.lastIndex = start;
  let depth = 0;
  for (let match = border.exec(sql); match !== null; match = border.exec(sql)) {
    depth += match[0] === '/*' ? 1 : -1;
    if (depth === 0) return border.lastIndex;
  }
  return undefined;
}

/** At the commas that stand in no parentheses; ends at a parenthesis that none has opened. */
export function splitList(text: string): string[] {
  const parts: string[] = [''];
  let depth = 0;
  for (const character of text) {
    if (character === ')' && depth-- === 0) break;
    if (character === '(') depth += 1;
    if (character === ',' && depth === 0) parts.push('');
    else parts[parts.length - 1] += character;
  }
  return parts.map((part) => part.trim());
}
