import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { buildCsr, generateKeyPair, pemToDer, verifyChain } from '../../mesh/identity/index.js';
import { waitFor } from '../lab/index.js';
import { OpensslCa } from '../support/openssl-ca.js';
import { type ControlPlane, startControlPlane } from './control-plane.js';
import {
  AgentSide,
  ControllerProcess,
  makePod,
  PATIENCE,
  prepareCluster,
  roleOf,
  tokenOf,
} from './identity-lab.js';

// The CA behind the Kubernetes CSR API: a small signer of the test's own, which can also do wrong.

const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const SIGNER = 'signer.example/mesh';
const CSRS = '/apis/certificates.k8s.io/v1/certificatesigningrequests';
const RULES = [
  {
    apiGroups: ['certificates.k8s.io'],
    resources: ['certificatesigningrequests'],
    verbs: ['create', 'get', 'delete'],
  },
  {
    apiGroups: ['certificates.k8s.io'],
    resources: ['certificatesigningrequests/approval'],
    verbs: ['update'],
  },
  { apiGroups: ['certificates.k8s.io'], resources: ['signers'], resourceNames: [SIGNER], verbs: ['approve'] },
];

interface SigningRequest {
  readonly metadata: { readonly name: string };
  readonly spec: {
    readonly signerName: string;
    readonly request: string;
    readonly expirationSeconds: number;
  };
  readonly status: { readonly certificate?: string; conditions?: { type: string }[] };
}

type Way =
  | 'signs'
  | 'signs for clients only'
  | 'is silent'
  | 'denies'
  | 'signs another key'
  | 'signs another name'
  | 'is another CA';

/** Signs what is approved, by openssl. */
class TestSigner {
  way: Way = 'signs';
  readonly seen = new Set<string>();
  readonly #plane: ControlPlane;
  readonly #folder: string;
  readonly #ca: OpensslCa;
  readonly #stranger: OpensslCa;
  #isRunning = true;

  constructor(plane: ControlPlane, folder: string, ca: OpensslCa) {
    this.#plane = plane;
    this.#folder = folder;
    this.#ca = ca;
    this.#stranger = new OpensslCa(folder, 'stranger');
    void this.#run();
  }

  stop(): void {
    this.#isRunning = false;
  }

  async #run(): Promise<void> {
    while (this.#isRunning) {
      const { items } = await this.#plane.api
        .get<{ items: SigningRequest[] }>(CSRS)
        .catch(() => ({ items: [] }));
      for (const request of items) {
        if (request.spec.signerName !== SIGNER) continue;
        this.seen.add(request.metadata.name);
        await this.#answer(request).catch(() => undefined); // it may be gone
      }
      await delay(50);
    }
  }

  async #answer(request: SigningRequest): Promise<void> {
    const { name } = request.metadata;
    const { certificate, conditions = [] } = request.status;
    if (this.way === 'is silent' || certificate !== undefined || conditions.length > 1) return;
    if (this.way === 'denies') {
      const failed = { type: 'Failed', status: 'True', reason: 'Policy', message: 'not today' };
      await this.#plane.api.put(`${CSRS}/${name}/status`, {
        ...request,
        status: { conditions: [...conditions, failed] },
      });
      return;
    }
    if (!conditions.some(({ type }) => type === 'Approved')) return;
    const text = Buffer.from(this.#sign(request)).toString('base64');
    await this.#plane.api.put(`${CSRS}/${name}/status`, {
      ...request,
      status: { ...request.status, certificate: text },
    });
  }

  #sign(request: SigningRequest): string {
    const file = join(this.#folder, `${request.metadata.name}.csr`);
    const other = () =>
      buildCsr(
        generateKeyPair(),
        this.way === 'signs another key' ? CART : 'spiffe://cluster.local/ns/a/sa/b',
      );
    const isTrue = ['signs', 'is another CA', 'signs for clients only'].includes(this.way);
    const usage = this.way === 'signs for clients only' ? 'clientAuth' : 'serverAuth,clientAuth';
    writeFileSync(`${file}.ext`, `extendedKeyUsage=${usage}\n`);
    writeFileSync(file, isTrue ? Buffer.from(request.spec.request, 'base64') : other());
    const { certificateFile, keyFile } = this.way === 'is another CA' ? this.#stranger : this.#ca;
    const signer = [
      '-CA',
      certificateFile,
      '-CAkey',
      keyFile,
      '-CAcreateserial',
      '-copy_extensions',
      'copy',
      '-days',
      '1',
    ];
    const request509 = ['x509', '-req', '-in', file, '-sha256', '-extfile', `${file}.ext`];
    return execFileSync('openssl', [...request509, ...signer], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  }
}

let plane: ControlPlane;
let signer: TestSigner;
let controller: ControllerProcess;
let root: OpensslCa;
let rootsFile: string;
let agent: AgentSide;

beforeAll(async () => {
  plane = await startControlPlane({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  await prepareCluster(plane);
  await plane.apply(...roleOf('signing', RULES));
  await makePod(plane, 'agent-n1');
  await makePod(plane, 'cart-1', { namespace: 'shop', account: 'cart' });
  const folder = join(plane.ca.folder, 'signer');
  mkdirSync(folder);
  root = new OpensslCa(folder, 'root');
  rootsFile = join(folder, 'roots.pem');
  writeFileSync(rootsFile, root.certificate);
  signer = new TestSigner(plane, folder, root);
  controller = await ControllerProcess.start(plane, 'signed', {
    options: ['--ca-signer', SIGNER, '--ca-roots', rootsFile],
  });
  await controller.ready();
  agent = new AgentSide(plane, { controller, token: await tokenOf(plane, 'agent-n1') });
}, 3_600_000);

afterAll(async () => {
  signer?.stop();
  await controller?.stop();
  plane?.close();
});

const derOf = (pem: string) => pemToDer(pem, 'CERTIFICATE');
const left = async () => (await plane.api.get<{ items: unknown[] }>(CSRS)).items.length;

test('a leaf, and the certificate of the controller itself, are signed by the signer; nothing is left behind', async () => {
  const { chain, roots } = await agent.fetch(CART);
  verifyChain(chain.flatMap(derOf), derOf(root.certificate), Date.now());
  expect(derOf(roots)).toEqual(derOf(root.certificate));
  expect(agent.roots.trim()).toBe(root.certificate.trim());
  expect(signer.seen.size).toBe(2);
  await waitFor('them to be removed', async () => (await left()) === 0, PATIENCE);
  await expect(plane.api.get('/api/v1/namespaces/culvert-system/secrets/culvert-ca-secret')).rejects.toThrow(
    /not found/,
  );
});

test('a signer that does wrong, or nothing: refused, told, and asked again', async () => {
  const wrongs: [Way, RegExp][] = [
    ['denies', /UNAVAILABLE: signer-failed: signer signer.example\/mesh: Failed: not today/],
    ['signs another key', /UNAVAILABLE: signer-failed: .*its certificate is for another key/],
    ['signs another name', /UNAVAILABLE: signer-failed: .*its certificate is for another key/],
    ['signs for clients only', /UNAVAILABLE: signer-failed: .*may not be both TLS client and server/],
    ['is another CA', /UNAVAILABLE: signer-failed: .*leads to no root/],
    ['is silent', /UNAVAILABLE: signer-failed: .*no certificate within 8000 ms/],
  ];
  for (const [way, message] of wrongs) {
    signer.way = way;
    expect(await agent.ask(CART)).toMatch(message);
  }
  expect(await controller.metric('culvert_refusals_total{service="ca",reason="signer-failed"}')).toBe(
    wrongs.length,
  );
  signer.way = 'signs';
  expect(await agent.ask(CART)).toBe('issued');
  await waitFor('them to be removed', async () => (await left()) === 0, PATIENCE);
}, 120_000);

test('a request that asks for more than its identity never comes to the signer', async () => {
  const before = signer.seen.size;
  const key = generateKeyPair();
  for (const csr of [
    buildCsr(key, 'spiffe://cluster.local/ns/shop/sa/db'),
    buildCsr(key, { uris: [CART], dnsNames: ['controller.example'] }),
    buildCsr(key, { uris: [CART, CART] }),
  ])
    expect(await agent.ask(CART, csr)).toMatch(
      /INVALID_ARGUMENT: csr-invalid: the CSR must ask for .* and for nothing else/,
    );
  expect(signer.seen.size).toBe(before);
});

test('the roots are followed: a new one beside the old one, not in its place', async () => {
  const next = new OpensslCa(join(plane.ca.folder, 'signer'), 'next');
  writeFileSync(rootsFile, next.certificate);
  await waitFor('a complaint', () => controller.output.includes('add the new ones first'), PATIENCE);
  writeFileSync(rootsFile, root.certificate + next.certificate);
  await waitFor('both', async () => (await controller.metric('culvert_ca_roots')) === 2, PATIENCE);
  expect(derOf((await agent.fetch(CART)).roots)).toHaveLength(2);
});
