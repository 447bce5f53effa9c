import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';

/** The rules of docs/architecture.md, read off every source file. Each list below is empty, or names file and rule. */

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const TREES = ['agent', 'cli', 'control', 'mesh', 'native', 'test', 'waypoint'];
const PROGRAMS = ['agent', 'control', 'waypoint', 'cli'];

/** Rooms by floor; a room imports from lower floors only. Rooms of a program share floor 5, its top files are floor 6. */
const MESH_FLOORS = [
  ['mesh/common'],
  ['native', 'mesh/proto', 'mesh/log', 'mesh/config'],
  ['mesh/identity', 'mesh/store', 'mesh/http2', 'mesh/manifests'],
  ['mesh/io', 'mesh/policy', 'mesh/xds', 'mesh/kube'],
  ['mesh/tls', 'mesh/hbone', 'mesh/telemetry', 'mesh/admin', 'mesh/kube-write'],
];
/** Of its own program a room imports only those named before it. */
const PROGRAM_ROOMS = [
  'agent/handover',
  'agent/cni',
  'agent/pods',
  'agent/capture',
  'agent/routing',
  'agent/dns',
  'agent/tunnel',
  'control/model',
  'control/translate',
  'control/ca',
  'control/authn',
  'control/cluster-ca',
  'control/xds',
  'control/installation',
  'control/writeback',
  'control/admission',
];
const NATIVE_USERS = ['mesh/io', 'agent/handover', 'agent/cni', 'agent/pods', 'agent/capture'];
/** Who may use which package; a package that is not here may be used by tests only. */
const PACKAGE_USERS: Readonly<Record<string, readonly string[]>> = {
  koffi: ['native'],
  protobufjs: ['mesh/proto'],
  pino: ['mesh/log'],
  'prom-client': ['control'],
  'node-forge': ['mesh/identity'],
  '@grpc/grpc-js': ['mesh/xds', 'control/xds', 'control/ca', 'control/authn', 'control'],
  jose: ['control/ca'],
  yaml: ['mesh/manifests', 'mesh/kube'],
};

interface SourceFile {
  readonly path: string;
  readonly text: string;
  readonly room: string;
  readonly isTest: boolean;
}

interface Import {
  readonly from: SourceFile;
  readonly specifier: string;
  readonly isTypeOnly: boolean;
  /** Path of the imported file without its extension, where it is ours. */
  readonly target: string | null;
}

const files = TREES.filter((tree) => existsSync(join(ROOT, tree))).flatMap(sourcesUnder);
const imports = files.filter((file) => !file.isTest).flatMap(importsOf);
const rooms = [...new Set(files.map((file) => file.room))].filter(
  (room) => room !== 'test' && !PROGRAMS.includes(room),
);

describe('imports', () => {
  test('every room is on a floor, in the test and in docs/architecture.md', () => {
    const doc = readFileSync(join(ROOT, 'docs/architecture.md'), 'utf8').replace(
      /(\w+)\/\{([\w,-]+)\}/g,
      (_all, program: string, names: string) =>
        names
          .split(',')
          .map((name) => `${program}/${name}`)
          .join(', '),
    );
    const homeless = rooms.filter(
      (room) => floorOf(room) === undefined || !new RegExp(`${room}\\b`).test(doc),
    );
    expect(homeless).toEqual([]);
  });

  test('go to lower floors only; programs never import each other', () => {
    const broken = betweenRooms().filter(({ from, room }) => !mayImport(from.room, room));
    expect(broken.map(({ from, room }) => `${from.path}: ${from.room} may not import ${room}`)).toEqual([]);
  });

  test('native is imported by the engine, the handover and the capture room only', () => {
    const broken = betweenRooms().filter(
      ({ from, room }) => room === 'native' && !NATIVE_USERS.includes(from.room),
    );
    expect(
      broken.map(({ from }) => `${from.path}: only ${NATIVE_USERS.join(', ')} may import native`),
    ).toEqual([]);
  });

  test('packages are imported by the rooms that are there for them', () => {
    const broken = imports.filter(({ from, specifier, target }) => {
      if (target !== null || specifier.startsWith('node:')) return false;
      return !(PACKAGE_USERS[packageOf(specifier)] ?? []).includes(from.room);
    });
    expect(
      broken.map(({ from, specifier }) => `${from.path}: ${from.room} may not import ${specifier}`),
    ).toEqual([]);
  });

  test('of other rooms go to index.js, of types also to types.js; mesh/common has no index', () => {
    const broken = betweenRooms().filter(({ room, target, isTypeOnly }) => {
      if (room === 'mesh/common' || target === `${room}/index`) return false;
      if (room === 'native' && /^native\/\w+\/index$/.test(target!)) return false; // its parts
      return !(isTypeOnly && target === `${room}/types`);
    });
    expect(broken.map(({ from, specifier }) => `${from.path}: deep import of ${specifier}`)).toEqual([]);
  });

  test('make no circle of rooms', () => {
    const edges = new Map<string, Set<string>>();
    for (const { from, room } of betweenRooms())
      edges.set(from.room, (edges.get(from.room) ?? new Set()).add(room));
    expect(circlesIn(edges)).toEqual([]);
  });
});

describe('files', () => {
  test('have no any, and no comment that silences the compiler', () => {
    const pattern = /[:<|&,([=]\s*any\b(?!\s*[:(.=])|\bas\s+any\b|@ts-(ignore|expect-error|nocheck)/;
    const broken = files.filter(
      (file) => pattern.test(withoutText(file.text)) || /^\s*\/[/*].*@ts-(ignore|expect|no)/m.test(file.text),
    );
    expect(broken.map((file) => `${file.path}: any, or a silenced compiler`)).toEqual([]);
  });

  test('skip no test and single none out', () => {
    const pattern =
      /\b(?:test|it|describe)\s*\.\s*(?:concurrent\s*\.\s*)?(?:skip|only|todo|failing)\b|\b[xf](?:it|test|describe)\s*\(/;
    const broken = files.filter((file) => pattern.test(withoutText(file.text)));
    expect(broken.map((file) => `${file.path}: a test is skipped, left to do or singled out`)).toEqual([]);
  });

  test('have at most 400 lines, unless their first comment says why ("longer than 400 lines: ...")', () => {
    const broken = files.filter(({ text }) => {
      const firstComment = /\/\*[\s\S]*?\*\/|(?:\/\/.*\n)+/.exec(text)?.[0] ?? '';
      return text.split('\n').length - 1 > 400 && !/longer than 400 lines:/i.test(firstComment);
    });
    expect(broken.map((file) => `${file.path}: ${file.text.split('\n').length - 1} lines`)).toEqual([]);
  });

  test('each room has a README.md and an index.ts; mesh/common has no index', () => {
    const missing = rooms.flatMap((room) => {
      const wanted = room === 'mesh/common' ? [] : ['README.md', 'index.ts'];
      return wanted.map((name) => `${room}/${name}`).filter((path) => !existsSync(join(ROOT, path)));
    });
    expect(missing.map((path) => `${path} is missing`)).toEqual([]);
  });
});

test('docs/errors.md names every error code, and no other', () => {
  const documented = new Set(
    [...readFileSync(join(ROOT, 'docs/errors.md'), 'utf8').matchAll(/^\| `([A-Z0-9_]+)` \|/gm)].map(
      (match) => match[1]!,
    ),
  );
  const raised = errorCodes();
  expect([...raised].filter((code) => !documented.has(code))).toEqual([]);
  expect([...documented].filter((code) => !raised.has(code))).toEqual([]);
});

function sourcesUnder(folder: string): SourceFile[] {
  return readdirSync(join(ROOT, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory())
      return ['gen', 'node_modules', 'testdata'].includes(entry.name) ? [] : sourcesUnder(path);
    if (!entry.name.endsWith('.ts') || entry.name.endsWith('.d.ts')) return [];
    const isTest = folder.split('/')[0] === 'test' || /\.(test|prop\.test|bench)\.ts$/.test(path);
    return [{ path, text: readFileSync(join(ROOT, path), 'utf8'), room: roomOf(path), isTest }];
  });
}

/** `mesh/http2`, `agent/tunnel`, `native`; top files of a program are in the room of its name. */
function roomOf(path: string): string {
  const [tree, ...rest] = path.split('/');
  return tree === 'native' || tree === 'test' || tree === 'cli' || rest.length < 2
    ? tree!
    : `${tree}/${rest[0]}`;
}

function importsOf(from: SourceFile): Import[] {
  const statements =
    /^\s*(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?'([^']+)'|\bimport\(\s*'([^']+)'\s*\)/gm;
  return [...from.text.matchAll(statements)].map((match) => {
    const specifier = match[2] ?? match[3]!;
    const target = specifier.startsWith('.')
      ? normalize(join(dirname(from.path), specifier)).replace(/\.js$/, '')
      : null;
    return { from, specifier, isTypeOnly: match[1] !== undefined, target };
  });
}

function betweenRooms(): (Import & { readonly room: string })[] {
  return imports.flatMap((one) => {
    const room = one.target === null ? one.from.room : roomOf(one.target);
    return room === one.from.room ? [] : [{ ...one, room }];
  });
}

function floorOf(room: string): number | undefined {
  if (PROGRAMS.includes(room)) return 6;
  if (PROGRAM_ROOMS.includes(room)) return 5;
  const floor = MESH_FLOORS.findIndex((names) => names.includes(room));
  return floor < 0 ? undefined : floor;
}

function mayImport(from: string, to: string): boolean {
  const [fromFloor, toFloor] = [floorOf(from), floorOf(to)];
  if (fromFloor === undefined || toFloor === undefined) return false;
  if (toFloor < 5) return toFloor < fromFloor;
  if (from.split('/')[0] !== to.split('/')[0]) return false;
  return toFloor < fromFloor || (toFloor === 5 && PROGRAM_ROOMS.indexOf(to) < PROGRAM_ROOMS.indexOf(from));
}

function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

function circlesIn(edges: ReadonlyMap<string, ReadonlySet<string>>): string[] {
  const circles: string[] = [];
  const done = new Set<string>();
  const visit = (room: string, path: readonly string[]): void => {
    if (path.includes(room)) circles.push([...path.slice(path.indexOf(room)), room].join(' -> '));
    if (done.has(room) || path.includes(room)) return;
    for (const next of edges.get(room) ?? []) visit(next, [...path, room]);
    done.add(room);
  };
  for (const room of edges.keys()) visit(room, []);
  return circles;
}

/** Source without comments and string contents: what is left is code. Good enough for the patterns here. */
function withoutText(source: string): string {
  return source.replace(
    /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\[\s\S]|[^`\\])*`|\/(?![*/ ])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/[dgimsuy]*(?=[\s,;.)\]])/g,
    (text) => (text.startsWith('/') ? ' ' : "''"),
  );
}

/** The literals of every `class ... extends MeshError<Union>`, the union being spelt out there or as a type of that room. */
function errorCodes(): Set<string> {
  const codes = files
    .filter((file) => !file.isTest)
    .flatMap((file) =>
      [...file.text.matchAll(/extends MeshError<([^>]+)>/g)].flatMap((match) => {
        const literals = literalsOf(match[1]!);
        return literals.length > 0 ? literals : unionOf(match[1]!.trim(), file.room);
      }),
    );
  return new Set(codes);
}

function unionOf(name: string, room: string): string[] {
  const declaration = new RegExp(`type ${name}\\s*=([\\s\\S]*?);`);
  const source = files.find((file) => file.room === room && declaration.test(file.text));
  if (source === undefined)
    throw new Error(`no type ${name} in ${room}: MeshError needs a closed union of codes`);
  return literalsOf(declaration.exec(source.text.replace(/\/\/[^\n]*/g, ''))![1]!);
}

function literalsOf(text: string): string[] {
  return [...text.matchAll(/'([A-Z0-9_]+)'/g)].map((match) => match[1]!);
}
